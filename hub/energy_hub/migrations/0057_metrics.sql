-- The worker tells its metrics which schema it has met.
GRANT SELECT ON migration TO energy_ingest;
