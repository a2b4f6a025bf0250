-- What gateways have measured, as it arrived, with what proves where it came from.
-- Names of the three roles are fixed: energy_migrate owns everything, energy_ingest adds, energy_read looks.

CREATE TABLE site (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,38}$'),
    first_seen timestamptz NOT NULL DEFAULT now(),
    last_seen timestamptz NOT NULL DEFAULT now(),
    state text NOT NULL DEFAULT 'online' CHECK (state IN ('online', 'offline')),
    status jsonb NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE site IS 'A gateway. It exists here from its first key statement that verified.';
COMMENT ON COLUMN site.last_seen IS 'When the hub last heard of it: a batch committed or a status of online.';

CREATE TABLE site_key (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    site integer NOT NULL REFERENCES site,
    public bytea NOT NULL CHECK (length(public) = 32),
    statement bytea NOT NULL,
    certificate text NOT NULL,
    fingerprint bytea NOT NULL,
    not_after timestamptz NOT NULL,
    first_seen timestamptz NOT NULL DEFAULT now(),
    UNIQUE (site, public)
);
COMMENT ON TABLE site_key IS 'Every Ed25519 key that was ever trusted to sign batches, with the certificate that vouched for it.';

CREATE TABLE stream (
    site integer NOT NULL REFERENCES site,
    stream bytea NOT NULL CHECK (length(stream) = 8),
    committed int8multirange NOT NULL DEFAULT '{}',
    PRIMARY KEY (site, stream)
);
COMMENT ON TABLE stream IS 'Sequences that are committed, kept from table batch so that an acknowledgement need not count them each time.';

CREATE TABLE batch (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    site integer NOT NULL REFERENCES site,
    stream bytea NOT NULL CHECK (length(stream) = 8),
    sequence bigint NOT NULL CHECK (sequence > 0),
    digest bytea NOT NULL CHECK (length(digest) = 32),
    previous bytea NOT NULL CHECK (length(previous) = 32),
    signature bytea NOT NULL CHECK (length(signature) = 64),
    key integer NOT NULL REFERENCES site_key,
    size integer NOT NULL,
    readings integer NOT NULL,
    received timestamptz NOT NULL DEFAULT now(),
    chain smallint NOT NULL CHECK (chain IN (0, 1, 2)),
    quarantined boolean NOT NULL DEFAULT false,
    content bytea,
    UNIQUE (site, stream, sequence)
);
ALTER TABLE batch ALTER COLUMN content SET STORAGE EXTERNAL;
COMMENT ON COLUMN batch.chain IS '0: the batch before it is not here yet; 1: it follows the batch before it; 2: it does not.';
COMMENT ON COLUMN batch.quarantined IS 'Signed by the site, but its body could not be read: it has no readings, and the reason is in quarantine.';
COMMENT ON COLUMN batch.content IS 'All bytes as they arrived: what the readings can be decoded from again, and compared with.';
-- The newest batch of a site, and the readings of the last minutes, without reading all batches.
CREATE INDEX batch_received ON batch (received);
CREATE INDEX batch_unchained ON batch (site, stream, sequence) WHERE chain <> 1;

CREATE TABLE point (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    site integer NOT NULL REFERENCES site,
    name text NOT NULL,
    UNIQUE (site, name)
);

CREATE TABLE point_unit (
    point integer NOT NULL REFERENCES point,
    since timestamptz NOT NULL,
    unit text NOT NULL,
    PRIMARY KEY (point, since)
);
COMMENT ON TABLE point_unit IS 'UCUM unit of a point, dated: a unit that changes is added with the time from which it holds.';

CREATE TABLE reading (
    time timestamptz NOT NULL,
    value double precision CHECK (value > '-Infinity' AND value < 'Infinity'),
    batch bigint NOT NULL,
    point integer NOT NULL,
    quality smallint NOT NULL CHECK (quality BETWEEN 0 AND 255),
    PRIMARY KEY (point, time),
    CHECK ((value IS NULL) = (quality >= 128))
) PARTITION BY RANGE (time);
COMMENT ON TABLE reading IS 'Append-only. (point, time) is the identity; when it was received is told by its batch.';
COMMENT ON COLUMN reading.value IS 'NULL: the device did not answer. NaN counts as greater than Infinity here, so neither is ever stored.';

CREATE TABLE reading_default PARTITION OF reading DEFAULT;
COMMENT ON TABLE reading_default IS 'Readings of months that have no partition: clocks that were wrong.';

CREATE TABLE conflict (
    point integer NOT NULL,
    time timestamptz NOT NULL,
    first_batch bigint NOT NULL,
    first_value double precision,
    first_quality smallint NOT NULL,
    second_batch bigint NOT NULL,
    second_value double precision,
    second_quality smallint NOT NULL,
    found timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (point, time, second_batch)
);
COMMENT ON TABLE conflict IS 'One identity with two values: the first stays in reading, the second is kept here. The batches have the digests.';

CREATE TABLE evidence (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    found timestamptz NOT NULL DEFAULT now(),
    site integer NOT NULL REFERENCES site,
    kind text NOT NULL CHECK (kind IN ('chain-broken', 'fork', 'unit-changed', 'conflict')),
    stream bytea,
    sequence bigint,
    detail text NOT NULL
);
COMMENT ON TABLE evidence IS 'What an auditor has to see. chain-broken: previous names another batch; fork: one sequence, two batches.';

CREATE TABLE quarantine (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic_site text NOT NULL,
    digest bytea NOT NULL CHECK (length(digest) = 32),
    reason text NOT NULL,
    signed boolean NOT NULL,
    size integer NOT NULL,
    content bytea NOT NULL,
    count integer NOT NULL DEFAULT 1,
    first_seen timestamptz NOT NULL DEFAULT now(),
    last_seen timestamptz NOT NULL DEFAULT now(),
    UNIQUE (topic_site, digest)
);
ALTER TABLE quarantine ALTER COLUMN content SET STORAGE EXTERNAL;
COMMENT ON TABLE quarantine IS 'Payloads that could not be stored as readings, and why. Of what no trusted key has signed only the first 64 KiB are kept.';

-- Makes the monthly partition that a time belongs to; true when it was made. Readings of that month that
-- had landed in the default partition move into it. Owned by energy_migrate, so that ingest may have
-- partitions made without the right to create tables.
CREATE FUNCTION ensure_month(moment timestamptz) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    first timestamptz := date_trunc('month', moment);
    past timestamptz := first + interval '1 month';
    name text := 'reading_' || to_char(first, 'YYYY_MM');
BEGIN
    IF moment < '2000-01-01' OR moment > now() + interval '1 year' THEN
        RETURN false;
    END IF;
    IF to_regclass(name) IS NOT NULL THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('energy.partitions', 0));
    -- Not to_regclass again: it would answer from what this session remembers, not from what another has committed.
    IF EXISTS (SELECT FROM pg_class WHERE relname = name AND relnamespace = 'public'::regnamespace) THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE reading INCLUDING ALL)', name);
    EXECUTE format('WITH moved AS (DELETE FROM reading_default WHERE time >= %L AND time < %L RETURNING *)
                    INSERT INTO %I SELECT * FROM moved', first, past, name);
    -- ATTACH does not read the new table again when a constraint already proves its bounds.
    EXECUTE format('ALTER TABLE %I ADD CONSTRAINT bounds CHECK (time >= %L AND time < %L)', name, first, past);
    EXECUTE format('ALTER TABLE reading ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, first, past);
    EXECUTE format('ALTER TABLE %I DROP CONSTRAINT bounds', name);
    RETURN true;
END
$$;
REVOKE ALL ON FUNCTION ensure_month(timestamptz) FROM PUBLIC;

CREATE VIEW measurement AS
SELECT s.name AS site, p.name AS point, r.time, r.value, r.quality,
       (SELECT u.unit FROM point_unit u WHERE u.point = r.point AND u.since <= r.time
        ORDER BY u.since DESC LIMIT 1) AS unit,
       b.received, r.batch, b.digest
FROM reading r
JOIN point p ON p.id = r.point
JOIN site s ON s.id = p.site
JOIN batch b ON b.id = r.batch;
COMMENT ON VIEW measurement IS 'Readings with names instead of numbers.';

-- Least privilege: readings, batches and evidence are added, never changed. The columns that may change are
-- named.
GRANT SELECT, INSERT ON site, site_key, stream, batch, point, point_unit, reading, conflict, evidence, quarantine
    TO energy_ingest;
GRANT UPDATE (last_seen, state, status) ON site TO energy_ingest;
GRANT UPDATE (committed) ON stream TO energy_ingest;
GRANT UPDATE (chain) ON batch TO energy_ingest;
GRANT UPDATE (count, last_seen) ON quarantine TO energy_ingest;
GRANT EXECUTE ON FUNCTION ensure_month(timestamptz) TO energy_ingest;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO energy_read;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO energy_read;
