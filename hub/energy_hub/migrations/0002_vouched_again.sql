-- A signing key whose certificate was revoked may be vouched for again, by a certificate that is valid: each is kept.

ALTER TABLE site_key DROP CONSTRAINT site_key_site_public_key;
ALTER TABLE site_key ADD UNIQUE (site, public, fingerprint);
