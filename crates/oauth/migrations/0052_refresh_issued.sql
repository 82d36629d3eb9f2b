-- The time at which a refresh token was issued; 0 for those from before.
ALTER TABLE oauth_refresh_tokens ADD COLUMN issued_at INTEGER NOT NULL DEFAULT 0;
