-- Figures by minute, quarter of an hour, hour and day, which follow the readings, and what a site's file has said of it.

CREATE TABLE touched (
    batch bigint NOT NULL REFERENCES batch,
    first timestamptz NOT NULL,
    last timestamptz NOT NULL CHECK (last >= first)
);
COMMENT ON TABLE touched IS 'Spans of time in which a batch has readings that the rollups do not count yet. Written with the batch, taken away by `energy-hub rollup`.';
CREATE INDEX touched_batch ON touched (batch);

CREATE TABLE site_description (
    site text NOT NULL CHECK (site ~ '^[a-z0-9][a-z0-9-]{0,38}$'),
    since timestamptz NOT NULL,
    digest bytea NOT NULL CHECK (length(digest) = 32),
    content jsonb NOT NULL,
    received timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (site, since)
);
COMMENT ON TABLE site_description IS 'What a site''s file says, from a time on: meters, ratios, calibration, zone. A change is added with its date; nothing is overwritten.';

-- One definition for four tables: what is kept of a span of a point.
CREATE TABLE rollup_minute (
    point integer NOT NULL,
    start timestamptz NOT NULL,
    readings integer NOT NULL,
    good integer NOT NULL,
    uncertain integer NOT NULL,
    sum double precision,
    minimum double precision,
    maximum double precision,
    first_time timestamptz,
    first_value double precision,
    last_time timestamptz,
    last_value double precision,
    PRIMARY KEY (point, start)
) PARTITION BY RANGE (start);
COMMENT ON TABLE rollup_minute IS 'Readings of a point by minute (UTC). The mean is sum / (good + uncertain); readings without a value count in readings alone.';
CREATE TABLE rollup_minute_default PARTITION OF rollup_minute DEFAULT;

CREATE TABLE rollup_quarter (LIKE rollup_minute INCLUDING ALL);
CREATE TABLE rollup_hour (LIKE rollup_minute INCLUDING ALL);
CREATE TABLE rollup_day (LIKE rollup_minute INCLUDING ALL);
COMMENT ON TABLE rollup_quarter IS 'The same by 15 minutes (UTC), from rollup_minute.';
COMMENT ON TABLE rollup_hour IS 'The same by hour (UTC), from rollup_quarter.';
COMMENT ON TABLE rollup_day IS 'The same by the day of the site''s own zone, from rollup_quarter; a day has 92, 96 or 100 quarters.';

-- The zone by whose clock the days of a site begin: what its newest description says, else UTC.
CREATE FUNCTION zone_of(integer) RETURNS text
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT coalesce(
        (SELECT d.content ->> 'timezone' FROM site s JOIN site_description d ON d.site = s.name
         WHERE s.id = $1 ORDER BY d.since DESC LIMIT 1), 'UTC')
$$;

CREATE TABLE rollup_zone (
    site integer PRIMARY KEY REFERENCES site,
    zone text NOT NULL
);
COMMENT ON TABLE rollup_zone IS 'The zone by which the days of a site were counted. Where it is no longer that of its description, they are counted again.';

-- As in migration 1, and with the partition of the minutes.
CREATE OR REPLACE FUNCTION ensure_month(moment timestamptz) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    month timestamptz := date_trunc('month', moment);
    past timestamptz := month + interval '1 month';
    suffix text := to_char(month, 'YYYY_MM');
    made boolean := false;
    parent text;
    key text;
    name text;
BEGIN
    IF moment < '2000-01-01' OR moment > now() + interval '1 year' THEN
        RETURN false;
    END IF;
    IF to_regclass('reading_' || suffix) IS NOT NULL AND to_regclass('rollup_minute_' || suffix) IS NOT NULL THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('energy.partitions', 0));
    FOR parent, key IN VALUES ('reading', 'time'), ('rollup_minute', 'start') LOOP
        name := parent || '_' || suffix;
        -- Not to_regclass again: it would answer from what this session remembers, not from what another has committed.
        CONTINUE WHEN EXISTS (SELECT FROM pg_class WHERE relname = name AND relnamespace = 'public'::regnamespace);
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', name, parent);
        EXECUTE format('WITH moved AS (DELETE FROM %I WHERE %I >= %L AND %I < %L RETURNING *)
                        INSERT INTO %I SELECT * FROM moved', parent || '_default', key, month, key, past, name);
        -- ATTACH does not read the new table again when a constraint already proves its bounds.
        EXECUTE format('ALTER TABLE %I ADD CONSTRAINT bounds CHECK (%I >= %L AND %I < %L)', name, key, month, key, past);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, name, month, past);
        EXECUTE format('ALTER TABLE %I DROP CONSTRAINT bounds', name);
        made := made OR parent = 'reading';
    END LOOP;
    RETURN made;
END
$$;

-- Months that have readings already get their minutes too, and what is stored is counted once.
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT relname FROM pg_class
                WHERE relname ~ '^reading_\d{4}_\d{2}$' AND relnamespace = 'public'::regnamespace LOOP
        PERFORM ensure_month(to_timestamp(substr(name, 9) || ' 15 +00', 'YYYY_MM DD TZH'));
    END LOOP;
END
$$;
INSERT INTO touched (batch, first, last) SELECT batch, min(time), max(time) FROM reading GROUP BY batch;

GRANT INSERT ON touched TO energy_ingest;
GRANT SELECT, INSERT ON site_description TO energy_ingest;
GRANT SELECT ON site, point, batch, reading, site_description TO energy_rollup;
GRANT SELECT, DELETE ON touched TO energy_rollup;
GRANT SELECT, INSERT, UPDATE, DELETE ON rollup_minute, rollup_quarter, rollup_hour, rollup_day, rollup_zone TO energy_rollup;
GRANT SELECT ON touched, site_description, rollup_minute, rollup_quarter, rollup_hour, rollup_day, rollup_zone TO energy_read;
