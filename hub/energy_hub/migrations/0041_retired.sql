-- What retention has dropped, so that an audit can tell it from what was removed.

CREATE TABLE retired (
    site integer NOT NULL REFERENCES site,
    month timestamptz NOT NULL,
    readings bigint NOT NULL,
    dropped timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (site, month)
);
COMMENT ON TABLE retired IS 'Months (UTC) whose readings retention has dropped, and how many there were of each site. Batches, leaves and rollups stay.';
GRANT SELECT ON retired TO energy_rollup;

-- As in migration 20; a month that retention has dropped is not made again: what comes late of it goes to the default
-- partition, where it is kept.
CREATE OR REPLACE FUNCTION ensure_month(moment timestamptz) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    begins timestamptz := date_trunc('month', moment);
    past timestamptz := begins + interval '1 month';
    suffix text := to_char(begins, 'YYYY_MM');
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
        CONTINUE WHEN parent = 'reading' AND EXISTS (SELECT FROM retired r WHERE r.month = begins);
        -- Not to_regclass again: it would answer from what this session remembers, not from what another has committed.
        CONTINUE WHEN EXISTS (SELECT FROM pg_class WHERE relname = name AND relnamespace = 'public'::regnamespace);
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', name, parent);
        EXECUTE format('WITH moved AS (DELETE FROM %I WHERE %I >= %L AND %I < %L RETURNING *)
                        INSERT INTO %I SELECT * FROM moved', parent || '_default', key, begins, key, past, name);
        -- ATTACH does not read the new table again when a constraint already proves its bounds.
        EXECUTE format('ALTER TABLE %I ADD CONSTRAINT bounds CHECK (%I >= %L AND %I < %L)', name, key, begins, key, past);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, name, begins, past);
        EXECUTE format('ALTER TABLE %I DROP CONSTRAINT bounds', name);
        made := made OR parent = 'reading';
    END LOOP;
    RETURN made;
END
$$;
