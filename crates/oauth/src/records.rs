//! What the store keeps, as plain data.
//!
//! Secrets occur here in two forms only: as [`TokenHash`] (SHA-256 of a random value of 256 bits, so that neither salt
//! nor stretching is needed) and as sealed bytes.

use std::{fmt, time::SystemTime};

/// SHA-256 of a token, code, state, cookie or client secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 32]);

/// A registered client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRecord {
    /// The client identifier.
    pub client_id: String,
    /// What the client calls itself. Nobody has verified it.
    pub name: Option<String>,
    /// Where the client may be sent back to.
    pub redirect_uris: Vec<String>,
    /// How the client shows at the token endpoint who it is.
    pub auth: ClientAuth,
    /// When it was registered.
    pub created_at: SystemTime,
}

/// How a client authenticates (RFC 7591 section 2, `token_endpoint_auth_method`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// `none`: a public client.
    None,
    /// `client_secret_basic`, with the hash of the secret.
    Basic(TokenHash),
    /// `client_secret_post`, with the hash of the secret.
    Post(TokenHash),
}

/// An authorization that the user has approved and for which the browser is on its way through Forgejo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingRecord {
    /// The `state` that was sent to Forgejo.
    pub state: TokenHash,
    /// The cookie of the browser in which the user approved.
    pub browser: TokenHash,
    /// The client that asked.
    pub client_id: String,
    /// Where the client wants its answer, as it wrote it.
    pub redirect_uri: String,
    /// The client's own `state`.
    pub client_state: Option<String>,
    /// The client's S256 challenge (RFC 7636 section 4.2).
    pub code_challenge: String,
    /// When it stops being good.
    pub expires_at: SystemTime,
}

/// One user's yes to one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantRecord {
    /// The name of the grant.
    pub grant: String,
    /// Forgejo's numeric id of the user.
    pub user: i64,
    /// The user's login at the time of the sign-in.
    pub login: String,
    /// The client.
    pub client_id: String,
}

/// An authorization code and what it is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeRecord {
    /// The code.
    pub code: TokenHash,
    /// The grant whose tokens it buys.
    pub grant: String,
    /// The client it was issued to.
    pub client_id: String,
    /// The redirect URI it was delivered to.
    pub redirect_uri: String,
    /// The client's S256 challenge.
    pub code_challenge: String,
    /// When it stops being good.
    pub expires_at: SystemTime,
}

/// The sealed upstream tokens of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRecord {
    /// Forgejo's numeric id of the user.
    pub user: i64,
    /// Names this pair of tokens: a random number, new with each pair, never reused after a deletion.
    pub version: i64,
    /// The sealed access token.
    pub access: Vec<u8>,
    /// The sealed refresh token.
    pub refresh: Vec<u8>,
    /// When the pair was obtained.
    pub issued_at: SystemTime,
    /// When the access token expires.
    pub expires_at: SystemTime,
}

impl fmt::Debug for TokenHash {
    /// Shows the first four bytes: enough to tell two apart in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenHash({}..)", hex::encode(&self.0[..4]))
    }
}
