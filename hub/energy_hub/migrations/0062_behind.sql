-- The worker tells its metrics how far the rollups are behind.
GRANT SELECT ON touched TO energy_ingest;
