-- The kind of application that a client says it is (OpenID Connect Dynamic Client Registration section 2).
ALTER TABLE oauth_clients ADD COLUMN application_type TEXT
    CHECK (application_type IS NULL OR application_type IN ('native', 'web'));
