-- Since when a site is online or offline: a person who looks at the fleet wants to know for how long.

ALTER TABLE site ADD COLUMN state_since timestamptz;
-- Of sites that are here already nobody knows; it is noted from now on.
ALTER TABLE site ALTER COLUMN state_since SET DEFAULT now();
COMMENT ON COLUMN site.state_since IS 'When state changed last; null: before this was noted.';

CREATE FUNCTION note_state() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.state_since := now();
    RETURN NEW;
END
$$;
CREATE TRIGGER note_state BEFORE UPDATE OF state ON site
    FOR EACH ROW WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION note_state();
