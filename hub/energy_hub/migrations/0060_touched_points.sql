-- A note for the rollups says of which points the readings are, and how many, and whose.
--
-- What is unknown: notes from before, which mean all points of their site, and stand as those of site 0.
ALTER TABLE touched
    ADD COLUMN site integer NOT NULL DEFAULT 0,
    ADD COLUMN readings integer,
    ADD COLUMN points integer[];
COMMENT ON COLUMN touched.site IS 'Of the batch; 0 where the note does not say it. Each site has its turn.';
COMMENT ON COLUMN touched.readings IS 'Of the batch in this span; null: at most those of the batch.';
COMMENT ON COLUMN touched.points IS 'The points that the batch has readings of in this span; null: any of its site.';
CREATE INDEX touched_site ON touched (site, batch);
