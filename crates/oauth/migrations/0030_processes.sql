-- What several processes on one store have to know of each other.

-- Code exchanges at the upstream that are under way. A number is never used twice, so that numbers tell before from after.
CREATE TABLE oauth_exchanges (
    number     INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    expires_at INTEGER NOT NULL -- from then on, whoever began it is taken to be dead
) STRICT;

-- The newest exchange that had begun when the pair of a sign-in was put here. Renewals leave it as it is.
ALTER TABLE oauth_accounts ADD COLUMN signed_in INTEGER NOT NULL DEFAULT 0;

-- Who renews an account now.
CREATE TABLE oauth_leases (
    user_id    INTEGER NOT NULL PRIMARY KEY,
    owner      INTEGER NOT NULL, -- a random number, of one process
    expires_at INTEGER NOT NULL  -- from then on, the owner is taken to be dead
) STRICT;

-- Grants that have ended, and grants of which only some tokens have, for processes that remember bearers.
CREATE TABLE oauth_endings (
    number   INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    grant_id TEXT    NOT NULL,
    ended    INTEGER NOT NULL -- 0: only some of its tokens have
) STRICT;
CREATE TRIGGER oauth_grant_ended AFTER DELETE ON oauth_grants BEGIN
    INSERT INTO oauth_endings (grant_id, ended) VALUES (OLD.grant_id, 1);
END;
