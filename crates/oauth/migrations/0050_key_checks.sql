-- A value of each key, which tells a wrong key from the right one.
CREATE TABLE oauth_key_checks (
    number INTEGER NOT NULL PRIMARY KEY, -- of the key
    hmac   BLOB    NOT NULL
) STRICT;

-- The newest version of the program that has used this database: one row.
CREATE TABLE oauth_program (
    id      INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    version TEXT    NOT NULL
) STRICT;
