-- What was restored from a backup, so that an audit can tell it from what somebody has cut off.

CREATE TABLE restored (
    at timestamptz PRIMARY KEY DEFAULT clock_timestamp(),
    target timestamptz,
    checkpoint bigint NOT NULL CHECK (checkpoint >= 0),
    generation text NOT NULL
);
COMMENT ON TABLE restored IS 'When this database was set back, written before anything new came in (playbooks/restore.yml).';
COMMENT ON COLUMN restored.target IS 'The time it was restored to; NULL is the end of the archive.';
COMMENT ON COLUMN restored.checkpoint IS 'The newest checkpoint that was left. Later ones that were signed before `at` are of the database before.';
COMMENT ON COLUMN restored.generation IS 'What acknowledgements name the database by since then.';
