-- A batch that is removed before it came into a tree leaves its row in leaf_due. That row now says whose it was.
--
-- Unknown are batches that were removed before this migration, and rows of a worker of the release before.
ALTER TABLE leaf_due
    ADD COLUMN site integer,
    ADD COLUMN stream bytea CHECK (length(stream) = 8),
    ADD COLUMN sequence bigint,
    ADD COLUMN received timestamptz;
UPDATE leaf_due d SET site = b.site, stream = b.stream, sequence = b.sequence, received = b.received
FROM batch b WHERE b.id = d.batch;
COMMENT ON COLUMN leaf_due.site IS 'With stream, sequence and received what the batch says, for when it is gone. No reference, for the same reason.';

ALTER TABLE evidence
    DROP CONSTRAINT evidence_kind_check,
    ADD CONSTRAINT evidence_kind_check
        CHECK (kind IN ('chain-broken', 'fork', 'unit-changed', 'conflict', 'batch-removed'));
COMMENT ON TABLE evidence IS 'What an auditor has to see. chain-broken: previous names another batch; fork: one sequence, two batches; batch-removed: it was gone before it came into a tree.';
