-- The callback looks for the only sign-in of a browser if Forgejo names none.
CREATE INDEX oauth_pending_browser ON oauth_pending (browser_hash);
