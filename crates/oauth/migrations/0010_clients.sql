-- Clients that sign assertions (private_key_jwt), that manage their registration (RFC 7592), and that are one client
-- when their metadata is the same. The table is made anew, since the ways to authenticate are in a CHECK.

CREATE TABLE oauth_clients_new (
    client_id         TEXT    NOT NULL PRIMARY KEY,
    name              TEXT,
    redirect_uris     TEXT    NOT NULL, -- a JSON array
    auth_method       TEXT    NOT NULL
        CHECK (auth_method IN ('none', 'client_secret_basic', 'client_secret_post', 'private_key_jwt')),
    secret_hash       BLOB    CHECK ((auth_method IN ('client_secret_basic', 'client_secret_post')) = (secret_hash IS NOT NULL)),
    jwks              TEXT    CHECK (jwks IS NULL OR auth_method = 'private_key_jwt'), -- a JWK Set
    jwks_uri          TEXT    CHECK ((auth_method = 'private_key_jwt') = ((jwks IS NULL) <> (jwks_uri IS NULL))),
    registration_hash BLOB, -- of the registration access token
    fingerprint       BLOB, -- of the metadata of a client that is one with its likes
    created_at        INTEGER NOT NULL,
    last_used_at      INTEGER NOT NULL
) STRICT;
INSERT INTO oauth_clients_new (client_id, name, redirect_uris, auth_method, secret_hash, created_at, last_used_at)
    SELECT client_id, name, redirect_uris, auth_method, secret_hash, created_at, last_used_at FROM oauth_clients;
DROP TABLE oauth_clients;
ALTER TABLE oauth_clients_new RENAME TO oauth_clients;
CREATE UNIQUE INDEX oauth_clients_fingerprint ON oauth_clients (fingerprint) WHERE fingerprint IS NOT NULL;
CREATE INDEX oauth_clients_last_used ON oauth_clients (last_used_at);

-- Signed assertions that have been used, until they expire.
CREATE TABLE oauth_assertions (
    assertion_hash BLOB    NOT NULL PRIMARY KEY,
    expires_at     INTEGER NOT NULL
) STRICT;
CREATE INDEX oauth_assertions_expiry ON oauth_assertions (expires_at);
