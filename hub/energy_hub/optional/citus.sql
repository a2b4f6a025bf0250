-- Puts the schema of one of the hub's databases on a node of Citus, as a whole (docs/how-to/large-hub.md).
-- Run it as energy_migrate, once for each schema, after `energy-hub migrate` has made it:
--     PGOPTIONS=-csearch_path=north psql -v ON_ERROR_STOP=1 -U energy_migrate -f citus.sql energy
-- Tried with Citus 13.2.2 on PostgreSQL 15, a coordinator and two nodes.

-- Of table `site`, where the trigger notes since when a state holds: it looks at nothing but its own row.
SET citus.enable_unsafe_triggers = on;
SELECT citus_schema_distribute(quote_ident(current_schema())::regnamespace);
-- Numbers of batches and points are drawn on the node, by the role that adds them.
DO $$
DECLARE
    failed text;
BEGIN
    SELECT string_agg(nodename || ':' || nodeport || ': ' || result, '; ') INTO failed
    FROM run_command_on_workers(format('GRANT USAGE ON ALL SEQUENCES IN SCHEMA %I TO energy_ingest', current_schema()))
    WHERE NOT success;
    IF failed IS NOT NULL THEN
        RAISE EXCEPTION '%', failed;
    END IF;
END
$$;
