-- Sessions that no client has an id of: their keys are not remembered when they end.
ALTER TABLE session_records ADD COLUMN implicit INTEGER NOT NULL DEFAULT 0;

-- The last initialize of each grant: its requests without a session id belong there. The snapshot is sealed for the session.
CREATE TABLE session_initializes (
    grant_id  TEXT    NOT NULL PRIMARY KEY,
    user_id   TEXT    NOT NULL,
    key_hash  BLOB    NOT NULL CHECK (length(key_hash) = 32),
    opened_at INTEGER NOT NULL, -- milliseconds since 1970
    snapshot  BLOB    NOT NULL
) STRICT, WITHOUT ROWID;
