-- Makes table reading a hypertable where TimescaleDB is installed. Tried by hand with TimescaleDB 2.22.1 (Apache edition)
-- on PostgreSQL 15: ingest, rollups, checkpoints, audit and questions work; moves and restores were not tried. No test
-- runs it, since the extension is not in Debian.
-- Run it as energy_migrate, once, after `energy-hub migrate`, with ingest and rollup stopped:
--     psql -v ON_ERROR_STOP=1 --single-transaction -U energy_migrate -f timescaledb.sql energy
-- It needs twice the space of the readings while it copies them.
--
-- By the documentation (docs.tigerdata.com, create_hypertable; hypertables and unique indexes):
-- * A table that is partitioned already cannot be converted, so the readings are copied into a new one.
-- * Unique keys have to hold the time column: (point, time) does. No foreign key leads to or from reading.
-- From then on months of readings are chunks: `energy-hub partitions` drops none of them, and drop_chunks() would drop
-- them without looking at rollups and evidence and without a row in `retired`, so that an audit would call them removed.

CREATE EXTENSION IF NOT EXISTS timescaledb;

CREATE TABLE reading_hyper (LIKE reading INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING COMMENTS);
ALTER TABLE reading_hyper ADD PRIMARY KEY (point, time);
SELECT create_hypertable('reading_hyper', by_range('time', INTERVAL '1 month'));
CREATE INDEX reading_hyper_batch ON reading_hyper USING brin (batch) WITH (pages_per_range = 32, autosummarize = on);
INSERT INTO reading_hyper (time, value, batch, point, quality) SELECT time, value, batch, point, quality FROM reading;

DROP VIEW measurement;
DROP TABLE reading;
ALTER TABLE reading_hyper RENAME TO reading;

-- As in migration 1.
CREATE VIEW measurement AS
SELECT s.name AS site, p.name AS point, r.time, r.value, r.quality,
       (SELECT u.unit FROM point_unit u WHERE u.point = r.point AND u.since <= r.time
        ORDER BY u.since DESC LIMIT 1) AS unit,
       b.received, r.batch, b.digest
FROM reading r
JOIN point p ON p.id = r.point
JOIN site s ON s.id = p.site
JOIN batch b ON b.id = r.batch;

GRANT SELECT, INSERT ON reading TO energy_ingest;
GRANT SELECT ON reading TO energy_rollup, energy_read;
GRANT SELECT ON measurement TO energy_read;

-- Chunks come by themselves; only the minutes of the rollups are still partitioned by month.
CREATE OR REPLACE FUNCTION ensure_month(moment timestamptz) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    begins timestamptz := date_trunc('month', moment);
    past timestamptz := begins + interval '1 month';
    name text := 'rollup_minute_' || to_char(begins, 'YYYY_MM');
BEGIN
    IF moment < '2000-01-01' OR moment > now() + interval '1 year' OR to_regclass(name) IS NOT NULL THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('energy.partitions', 0));
    IF EXISTS (SELECT FROM pg_class WHERE relname = name AND relnamespace = 'public'::regnamespace) THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE rollup_minute INCLUDING ALL)', name);
    EXECUTE format('WITH moved AS (DELETE FROM rollup_minute_default WHERE start >= %L AND start < %L RETURNING *)
                    INSERT INTO %I SELECT * FROM moved', begins, past, name);
    EXECUTE format('ALTER TABLE rollup_minute ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, begins, past);
    RETURN true;
END
$$;
