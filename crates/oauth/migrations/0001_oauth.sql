-- Times are seconds since 1970. Tokens, codes, states and cookies are SHA-256 hashes; accounts are sealed.

CREATE TABLE oauth_clients (
    client_id     TEXT    NOT NULL PRIMARY KEY,
    name          TEXT,
    redirect_uris TEXT    NOT NULL, -- a JSON array
    auth_method   TEXT    NOT NULL CHECK (auth_method IN ('none', 'client_secret_basic', 'client_secret_post')),
    secret_hash   BLOB    CHECK ((auth_method = 'none') = (secret_hash IS NULL)),
    created_at    INTEGER NOT NULL,
    last_used_at  INTEGER NOT NULL
) STRICT;

CREATE TABLE oauth_pending (
    state_hash     BLOB    NOT NULL PRIMARY KEY,
    browser_hash   BLOB    NOT NULL,
    client_id      TEXT    NOT NULL,
    redirect_uri   TEXT    NOT NULL,
    client_state   TEXT,
    code_challenge TEXT    NOT NULL,
    expires_at     INTEGER NOT NULL
) STRICT;

CREATE TABLE oauth_accounts (
    user_id        INTEGER NOT NULL PRIMARY KEY,
    version        INTEGER NOT NULL,
    access_sealed  BLOB    NOT NULL,
    refresh_sealed BLOB    NOT NULL,
    issued_at      INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL
) STRICT;

CREATE TABLE oauth_grants (
    grant_id     TEXT    NOT NULL PRIMARY KEY,
    user_id      INTEGER NOT NULL REFERENCES oauth_accounts ON DELETE CASCADE,
    login        TEXT    NOT NULL,
    client_id    TEXT    NOT NULL,
    generation   INTEGER NOT NULL DEFAULT 0, -- of the newest refresh token
    created_at   INTEGER NOT NULL,
    last_used_at INTEGER NOT NULL
) STRICT;
CREATE INDEX oauth_grants_user ON oauth_grants (user_id);
CREATE INDEX oauth_grants_client ON oauth_grants (client_id);

CREATE TABLE oauth_codes (
    code_hash      BLOB    NOT NULL PRIMARY KEY,
    grant_id       TEXT    NOT NULL REFERENCES oauth_grants ON DELETE CASCADE,
    client_id      TEXT    NOT NULL,
    redirect_uri   TEXT    NOT NULL,
    code_challenge TEXT    NOT NULL,
    expires_at     INTEGER NOT NULL,
    used           INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX oauth_codes_grant ON oauth_codes (grant_id);

CREATE TABLE oauth_access_tokens (
    token_hash BLOB    NOT NULL PRIMARY KEY,
    grant_id   TEXT    NOT NULL REFERENCES oauth_grants ON DELETE CASCADE,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX oauth_access_tokens_grant ON oauth_access_tokens (grant_id, expires_at);

CREATE TABLE oauth_refresh_tokens (
    token_hash BLOB    NOT NULL PRIMARY KEY,
    grant_id   TEXT    NOT NULL REFERENCES oauth_grants ON DELETE CASCADE,
    generation INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX oauth_refresh_tokens_grant ON oauth_refresh_tokens (grant_id, generation);
