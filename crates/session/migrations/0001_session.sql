-- Sessions that outlive their backends. The id itself is never stored, only its SHA-256; the snapshot is sealed.
CREATE TABLE session_records (
    key_hash      BLOB    NOT NULL PRIMARY KEY CHECK (length(key_hash) = 32),
    grant_id      TEXT    NOT NULL,
    user_id       TEXT    NOT NULL,
    opened_at     INTEGER NOT NULL, -- milliseconds since 1970
    last_activity INTEGER NOT NULL, -- milliseconds since 1970
    snapshot      BLOB    NOT NULL
) STRICT, WITHOUT ROWID;
