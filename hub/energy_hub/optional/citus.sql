-- Spreads readings, rollups and conflicts over the nodes of a Citus cluster. NOT TESTED by us: the extension is not in
-- Debian. Run it as energy_migrate on the coordinator, once, after `energy-hub migrate`, with the services stopped; a
-- superuser has run CREATE EXTENSION citus and citus_add_node() before.
--
-- By the documentation (docs.citusdata.com, "Creating and Modifying Distributed Tables"): every unique key of a
-- distributed table has to hold the distribution column. Of our tables
-- * reading (point, time), the rollups (point, start) and conflict (point, time, second_batch) have the point in all of
--   theirs, and no foreign key. A point is of one site for ever, so that what is asked of one point is on one node.
-- * batch (id), leaf (batch), site_key (id) and point (id) have keys without their site. They stay on the coordinator.
--
-- So this is distribution by point, not by site: for that the site's number would have to stand in each reading and in
-- the keys above (docs/decisions/0052-shards.md). For sites as wholes there is the hub's own directory.

SELECT create_distributed_table('reading', 'point');
SELECT create_distributed_table('rollup_minute', 'point', colocate_with => 'reading');
SELECT create_distributed_table('rollup_quarter', 'point', colocate_with => 'reading');
SELECT create_distributed_table('rollup_hour', 'point', colocate_with => 'reading');
SELECT create_distributed_table('rollup_day', 'point', colocate_with => 'reading');
SELECT create_distributed_table('conflict', 'point', colocate_with => 'reading');
