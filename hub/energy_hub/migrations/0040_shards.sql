-- Sites spread over several databases: which of them a site lives in, and a fence that holds whatever a worker remembers.

ALTER TABLE site ADD COLUMN here boolean NOT NULL DEFAULT true;
COMMENT ON COLUMN site.here IS 'False: the site is on its way, or lives in another database, and nothing may be written of it here.';

-- In the database that has the directory; empty in all others, and where there is one database.
CREATE TABLE directory (
    site text PRIMARY KEY CHECK (site ~ '^[a-z0-9][a-z0-9-]{0,38}$'),
    shard text NOT NULL,
    since timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX directory_shard ON directory (shard);
COMMENT ON TABLE directory IS 'The database that each site lives in, by its name in the hub''s configuration.';

CREATE TABLE shard (
    name text PRIMARY KEY,
    only_one boolean NOT NULL DEFAULT true UNIQUE CHECK (only_one)
);
COMMENT ON TABLE shard IS 'The name under which this database is configured: two that were mixed up would be noticed.';

-- Checkpoints are the fleet's, and numbers of sites are each database's own.
ALTER TABLE checkpoint_site ADD COLUMN name text;
UPDATE checkpoint_site c SET name = s.name FROM site s WHERE s.id = c.site;
ALTER TABLE checkpoint_site DROP COLUMN site;
ALTER TABLE checkpoint_site RENAME COLUMN name TO site;
ALTER TABLE checkpoint_site ALTER COLUMN site SET NOT NULL;
ALTER TABLE checkpoint_site ADD PRIMARY KEY (site, checkpoint);

GRANT SELECT, INSERT ON directory TO energy_ingest;
GRANT SELECT ON shard TO energy_ingest;
GRANT SELECT ON directory, shard TO energy_rollup;
-- To take a fence away that a move has left behind which was cut off.
GRANT UPDATE (here) ON site TO energy_ingest;
