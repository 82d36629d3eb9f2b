-- Sessions that have ended: an id that was good once is told from one that never was, after a restart too. Swept by age and number.
CREATE TABLE session_endings (
    key_hash BLOB    NOT NULL PRIMARY KEY CHECK (length(key_hash) = 32),
    ended_at INTEGER NOT NULL -- milliseconds since 1970
) STRICT, WITHOUT ROWID;

CREATE INDEX session_endings_by_time ON session_endings (ended_at);
