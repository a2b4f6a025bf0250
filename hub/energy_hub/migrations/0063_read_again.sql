-- Signed batches that could not be read when they came, and were read by a later release.
ALTER TABLE evidence
    DROP CONSTRAINT evidence_kind_check,
    ADD CONSTRAINT evidence_kind_check
        CHECK (kind IN ('chain-broken', 'fork', 'unit-changed', 'conflict', 'batch-removed', 'read-again'));
COMMENT ON TABLE evidence IS 'What an auditor has to see. chain-broken: previous names another batch; fork: one sequence, two batches; batch-removed: it was gone before it came into a tree; read-again: a quarantined batch whose readings were stored later.';
