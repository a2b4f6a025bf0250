-- What proves that the hub still has what it received: a Merkle tree over each site's batches, and signed checkpoints.

CREATE TABLE leaf_due (
    batch bigint PRIMARY KEY
);
COMMENT ON TABLE leaf_due IS 'Batches that are committed and not in their site''s tree yet. Written with the batch, emptied by energy-hub checkpoint.';
INSERT INTO leaf_due (batch) SELECT id FROM batch;

-- No reference to batch: where a batch was removed, its leaf has to be able to stay and say so.
CREATE TABLE leaf (
    site integer NOT NULL REFERENCES site,
    number bigint NOT NULL CHECK (number >= 0),
    batch bigint NOT NULL UNIQUE,
    stream bytea NOT NULL CHECK (length(stream) = 8),
    sequence bigint NOT NULL,
    received timestamptz NOT NULL,
    hashes bytea NOT NULL CHECK (length(hashes) > 0 AND length(hashes) % 32 = 0),
    PRIMARY KEY (site, number)
);
COMMENT ON TABLE leaf IS 'The leaves of each site''s tree, in the order in which the hub put them there; numbers have no gap.';
COMMENT ON COLUMN leaf.hashes IS 'Of the leaf itself, then of every node of the tree that it completed, upwards: 32 bytes each.';

CREATE TABLE checkpoint (
    number bigint PRIMARY KEY CHECK (number > 0),
    body text NOT NULL,
    signature bytea NOT NULL CHECK (length(signature) = 64),
    key bytea NOT NULL CHECK (length(key) = 32)
);
COMMENT ON TABLE checkpoint IS 'Signed by the hub; body is the text that was signed (docs/reference/checkpoint-format.md).';

CREATE TABLE checkpoint_site (
    checkpoint bigint NOT NULL REFERENCES checkpoint,
    site integer NOT NULL REFERENCES site,
    size bigint NOT NULL CHECK (size > 0),
    root bytea NOT NULL CHECK (length(root) = 32),
    PRIMARY KEY (site, checkpoint)
);
CREATE INDEX checkpoint_site_by_checkpoint ON checkpoint_site (checkpoint);
COMMENT ON TABLE checkpoint_site IS 'Trees that had grown since the checkpoint before; a site''s newest row up to a checkpoint is what holds in it.';

CREATE TABLE checkpoint_stamp (
    checkpoint bigint NOT NULL REFERENCES checkpoint,
    authority text NOT NULL,
    token bytea NOT NULL,
    received timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (checkpoint, authority)
);
COMMENT ON TABLE checkpoint_stamp IS 'Time stamps (RFC 3161, the whole response) over the SHA-256 of a checkpoint''s body and signature.';

-- All rows of a batch, wherever their times are. Rows of a batch lie together, so a summary of block ranges is enough.
CREATE INDEX reading_batch ON reading USING brin (batch) WITH (pages_per_range = 32, autosummarize = on);

GRANT SELECT, INSERT ON leaf, checkpoint, checkpoint_site, checkpoint_stamp TO energy_ingest;
GRANT SELECT, INSERT, DELETE ON leaf_due TO energy_ingest;
