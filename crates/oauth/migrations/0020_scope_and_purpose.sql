-- What a grant allows, and what a sign-in is for. Sign-ins that are under way while this runs have to begin again.

ALTER TABLE oauth_grants ADD COLUMN scope TEXT NOT NULL DEFAULT 'mcp';

DROP TABLE oauth_pending;
CREATE TABLE oauth_pending (
    state_hash     BLOB    NOT NULL PRIMARY KEY,
    browser_hash   BLOB    NOT NULL,
    -- The request of a client. All NULL for a sign-in to the page of connections.
    client_id      TEXT,
    redirect_uri   TEXT    CHECK ((redirect_uri IS NULL) = (client_id IS NULL)),
    client_state   TEXT    CHECK (client_state IS NULL OR client_id IS NOT NULL),
    code_challenge TEXT    CHECK ((code_challenge IS NULL) = (client_id IS NULL)),
    scope          TEXT    CHECK ((scope IS NULL) = (client_id IS NULL)),
    approved_by    INTEGER CHECK (approved_by IS NULL OR client_id IS NOT NULL),
    expires_at     INTEGER NOT NULL
) STRICT;
