# SPDX-License-Identifier: Apache-2.0
"""What the glance at the fleet asks the database. Each query is for all sites at once, and its cost does not grow with
the age of the tables: readings are looked up by point and time, and what is added up over a day comes from the rollups.

LATERAL with OFFSET 0, here as in health.py, keeps PostgreSQL from reading whole months where few spans are looked up.
"""

# `state_since` is null where nobody has noted it.
SITES = """
    SELECT s.id, s.name, s.state, s.state_since, s.first_seen, s.last_seen, s.status ->> 'version' AS collector,
           (SELECT max(k.not_after) FROM site_key k WHERE k.site = s.id) AS expires,
           date_trunc('day', %(now)s::timestamptz AT TIME ZONE z.zone) AT TIME ZONE z.zone AS today,
           (date_trunc('day', %(now)s::timestamptz AT TIME ZONE z.zone) - interval '1 day') AT TIME ZONE z.zone
           AS yesterday
    FROM site s LEFT JOIN rollup_zone z ON z.site = s.id
    WHERE %(names)s::text[] IS NULL OR s.name = ANY(%(names)s)
"""

# What each site's file says now, and what it said before where that was changed in the longest day that there is.
DESCRIPTIONS = """
    SELECT site, since, first, content -> 'name' AS label, content -> 'region' AS region,
           content -> 'interval' AS interval, content -> 'meters' AS meters
    FROM (SELECT site, since, content, min(since) OVER of_site AS first, lead(since) OVER of_site AS ends
          FROM site_description
          WHERE since <= %(now)s AND (%(names)s::text[] IS NULL OR site = ANY(%(names)s))
          WINDOW of_site AS (PARTITION BY site ORDER BY since)) AS d
    WHERE ends IS NULL OR ends > %(now)s::timestamptz - interval '26 hours'
"""

CHAINS = """
    SELECT site, bool_or(chain = 2) AS broken FROM batch WHERE chain <> 1 GROUP BY site
"""

# Of each site, the rollups count everything but what came later than this; no row when nothing of it waits. Site 0 is
# that of notes which do not say whose they are.
WAITING = """
    SELECT s.id AS site, b.received
    FROM (SELECT id FROM site UNION ALL SELECT 0) AS s
    CROSS JOIN LATERAL (SELECT batch FROM touched WHERE site = s.id ORDER BY batch LIMIT 1) AS w
    JOIN batch b ON b.id = w.batch
"""

POINTS = """
    SELECT p.site, p.name, p.id FROM point p
    WHERE (split_part(p.name, '/', 2) = ANY(%(points)s)
           OR starts_with(p.name, 'buses/') AND p.name ~ '-(requests|crc_errors|timeouts)$')
      AND (%(sites)s::int[] IS NULL OR p.site = ANY(%(sites)s))
"""

# A point with which every poll shows, of meters that have no power.
OTHER_POINTS = """
    SELECT DISTINCT ON (w.site, w.meter) w.site, w.meter, p.id
    FROM unnest(%(sites)s::int[], %(meters)s::text[]) AS w (site, meter)
    JOIN point p ON p.site = w.site AND starts_with(p.name, w.meter || '/')
    WHERE p.name !~ '_(multiplier|offset|raw)$|/voltage_event'
    ORDER BY w.site, w.meter, p.name
"""

# The newest reading of each point, unless it is older than `since`; one that is ahead of time tells nothing of now.
NEWEST = """
    SELECT w.point, r.time, r.value
    FROM unnest(%(points)s::int[], %(since)s::timestamptz[]) AS w (point, since)
    CROSS JOIN LATERAL (SELECT time, value FROM reading
                        WHERE point = w.point AND time >= w.since AND time <= %(until)s
                        ORDER BY time DESC LIMIT 1) AS r
"""

# Of sites that have not been heard of for long: whatever their newest reading is, of any point.
NEWEST_OF_SITES = """
    SELECT p.site, max(r.time) AS time
    FROM point p
    CROSS JOIN LATERAL (SELECT time FROM reading WHERE point = p.id AND time <= %(until)s
                        ORDER BY time DESC LIMIT 1) AS r
    WHERE p.site = ANY(%(sites)s)
    GROUP BY p.site
"""

# Of one point of each site, one reading in 121 s: a batch spans 10 s or a minute, so that readings from all places of
# a batch are among them. All of them would cost several times as much, and tell little more.
DELAYS = """
    SELECT w.site, count(*) AS samples,
           percentile_disc(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY extract(epoch FROM b.received - r.time)::float8)
           AS delays
    FROM unnest(%(sites)s::int[], %(points)s::int[]) AS w (site, point)
    CROSS JOIN (SELECT %(now)s::timestamptz - n * interval '121 s' AS start FROM generate_series(1, 29) AS n) AS t
    CROSS JOIN LATERAL (SELECT time, batch FROM reading
                        WHERE point = w.point AND time >= t.start AND time < t.start + interval '121 s'
                        ORDER BY time LIMIT 1) AS r
    CROSS JOIN LATERAL (SELECT received FROM batch WHERE id = r.batch OFFSET 0) AS b
    GROUP BY w.site
"""

COUNTS = """
    SELECT w.point, sum(h.readings)::bigint AS readings, sum(h.good + h.uncertain)::bigint AS valued
    FROM unnest(%(points)s::int[], %(since)s::timestamptz[], %(until)s::timestamptz[]) AS w (point, since, until)
    CROSS JOIN LATERAL (SELECT readings, good, uncertain FROM rollup_hour
                        WHERE point = w.point AND start >= w.since AND start < w.until OFFSET 0) AS h
    GROUP BY w.point
"""

# By hour, over the sites that have a mean of all their meters that count: kW of load, generation, storage, and net.
HOURS = """
    WITH mean AS (
        SELECT w.site, w.role, w.meters, h.start, h.sum / (h.good + h.uncertain) / 1000 AS power
        FROM unnest(%(points)s::int[], %(sites)s::int[], %(roles)s::text[], %(meters)s::int[])
             AS w (point, site, role, meters)
        CROSS JOIN LATERAL (SELECT start, sum, good, uncertain FROM rollup_hour
                            WHERE point = w.point AND start >= %(since)s AND start <= %(now)s
                            AND sum IS NOT NULL OFFSET 0) AS h
    ), whole AS (
        SELECT start,
               sum(power) FILTER (WHERE role = 'main') AS main,
               coalesce(sum(power) FILTER (WHERE role = 'consumption'), 0) AS consumption,
               coalesce(sum(power) FILTER (WHERE role = 'generation'), 0) AS generation,
               coalesce(sum(power) FILTER (WHERE role = 'storage'), 0) AS storage
        FROM mean GROUP BY site, start HAVING count(*) = min(meters)
    )
    SELECT start, count(*) AS sites,
           sum(coalesce(main - generation - storage, consumption)) AS load,
           sum(generation) AS generation, sum(storage) AS storage,
           sum(coalesce(main, consumption + generation + storage)) AS net
    FROM whole GROUP BY start ORDER BY start
"""

DAYS = """
    SELECT w.point, d.good + d.uncertain AS valued, d.sum, d.minimum,
           d.first_time, d.first_value, d.last_time, d.last_value
    FROM unnest(%(points)s::int[], %(starts)s::timestamptz[]) AS w (point, start)
    CROSS JOIN LATERAL (SELECT * FROM rollup_day WHERE point = w.point AND start = w.start OFFSET 0) AS d
    WHERE d.last_time IS NOT NULL
"""

# Of each site, over the hours that all of its meters have a mean of: kWh of the supply and of the other meters, and
# the mean sizes in W of what is between them and of the supply.
AGREEMENT = """
    WITH mean AS (
        SELECT w.site, w.supply, w.meters, h.start, h.sum / (h.good + h.uncertain) AS power
        FROM unnest(%(points)s::int[], %(sites)s::int[], %(supplies)s::bool[], %(meters)s::int[],
                    %(since)s::timestamptz[], %(until)s::timestamptz[])
             AS w (point, site, supply, meters, since, until)
        CROSS JOIN LATERAL (SELECT start, sum, good, uncertain FROM rollup_hour
                            WHERE point = w.point AND start >= w.since AND start <= w.until - interval '1 hour'
                            AND sum IS NOT NULL OFFSET 0) AS h
    ), whole AS (
        SELECT site, sum(power) FILTER (WHERE supply) AS supply, sum(power) FILTER (WHERE NOT supply) AS parts
        FROM mean GROUP BY site, start HAVING count(*) = min(meters)
    )
    SELECT site, count(*) AS hours, sum(supply) / 1000 AS supply, sum(parts) / 1000 AS parts,
           avg(abs(supply - parts)) AS residual, avg(abs(supply)) AS size
    FROM whole GROUP BY site
"""

# Of some sites alone: mean powers by quarter of an hour, a row a point.
QUARTERS = """
    SELECT w.site, w.name, q.starts, q.powers
    FROM unnest(%(sites)s::int[], %(names)s::text[], %(begins)s::timestamptz[], %(since)s::timestamptz[],
                %(until)s::timestamptz[]) AS w (site, name, begins, since, until)
    JOIN point p ON p.site = w.site AND p.name = w.name
    CROSS JOIN LATERAL (SELECT array_agg(extract(epoch FROM start)::bigint) AS starts,
                               array_agg(sum / (good + uncertain)) AS powers
                        FROM rollup_quarter WHERE point = p.id AND start >= w.since AND start < w.until
                        AND sum IS NOT NULL OFFSET 0) AS q
    WHERE q.starts IS NOT NULL
"""

# Of phases the mean of the day is enough.
PHASES = """
    SELECT w.site, w.name, ARRAY[extract(epoch FROM d.start)::bigint] AS starts,
           ARRAY[d.sum / (d.good + d.uncertain)] AS powers
    FROM unnest(%(sites)s::int[], %(names)s::text[], %(begins)s::timestamptz[], %(since)s::timestamptz[],
                %(until)s::timestamptz[]) AS w (site, name, begins, since, until)
    JOIN point p ON p.site = w.site AND p.name = w.name
    CROSS JOIN LATERAL (SELECT start, sum, good, uncertain FROM rollup_day
                        WHERE point = p.id AND start = w.begins AND sum IS NOT NULL OFFSET 0) AS d
"""

# By how much counters grew in each hour. A value below the one before began again at 0.
ERRORS = """
    WITH grown AS (
        SELECT w.site, w.counter, h.start,
               CASE WHEN h.last_value >= h.before THEN h.last_value - h.before ELSE h.last_value END AS growth
        FROM unnest(%(points)s::int[], %(sites)s::int[], %(counters)s::text[]) AS w (point, site, counter)
        CROSS JOIN LATERAL (
            SELECT start, last_value,
                   coalesce(lag(last_value) OVER (ORDER BY start), first_value) AS before
            FROM rollup_hour
            WHERE point = w.point AND start >= %(since)s::timestamptz - interval '1 hour' AND start <= %(now)s
              AND last_value IS NOT NULL OFFSET 0) AS h
        WHERE h.start >= %(since)s
    )
    SELECT site, start,
           coalesce(sum(growth) FILTER (WHERE counter = 'requests'), 0)::bigint AS requests,
           coalesce(sum(growth) FILTER (WHERE counter = 'crc_errors'), 0)::bigint AS crc_errors,
           coalesce(sum(growth) FILTER (WHERE counter = 'timeouts'), 0)::bigint AS timeouts
    FROM grown GROUP BY site, start
"""
