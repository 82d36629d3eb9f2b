-- A grant is one user's yes to one client, however often the client signs in: each sign-in begins a family of refresh
-- tokens below the grant, and rotation and reuse are judged within a family.

ALTER TABLE oauth_refresh_tokens ADD COLUMN family BLOB NOT NULL DEFAULT x''; -- the hash of the code that began it
ALTER TABLE oauth_access_tokens ADD COLUMN family BLOB NOT NULL DEFAULT x'';
DROP INDEX oauth_refresh_tokens_grant;
CREATE INDEX oauth_refresh_tokens_family ON oauth_refresh_tokens (grant_id, family, generation);
ALTER TABLE oauth_grants DROP COLUMN generation;
CREATE INDEX oauth_pending_client ON oauth_pending (client_id);
