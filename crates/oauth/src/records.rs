//! What the store keeps, as plain data.
//!
//! Secrets occur here in two forms only: as [`TokenHash`] (SHA-256 of a random value of 256 bits, so that neither salt
//! nor stretching is needed) and as sealed bytes.

use std::{fmt, time::SystemTime};

use crate::ids::{ClientId, GrantId, TokenVersion, UserId};

/// SHA-256 of a token, code, state, cookie or client secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 32]);

/// A registered client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRecord {
    /// The client identifier.
    pub client_id: ClientId,
    /// What the client calls itself. Nobody has verified it.
    pub name: Option<String>,
    /// Where the client may be sent back to.
    pub redirect_uris: Vec<String>,
    /// How the client shows at the token endpoint who it is.
    pub auth: ClientAuth,
    /// When it was registered.
    pub created_at: SystemTime,
    /// The host that vouches for the client: the one that its metadata document was fetched from. `None` for a client
    /// that registered itself or stands in the configuration.
    pub domain: Option<String>,
    /// The hash of the token that lets the client change its registration (RFC 7592), if it may.
    pub registration_token: Option<TokenHash>,
    /// What a public client is known by when it registers again: two with one fingerprint are one client.
    pub fingerprint: Option<TokenHash>,
}

/// How a client authenticates (RFC 7591 section 2, `token_endpoint_auth_method`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// `none`: a public client.
    None,
    /// `client_secret_basic`, with the hash of the secret.
    Basic(TokenHash),
    /// `client_secret_post`, with the hash of the secret.
    Post(TokenHash),
    /// `private_key_jwt`: assertions signed with one of these keys (RFC 7523).
    PrivateKeyJwt(KeySource),
}

/// Where the public keys of a client are (RFC 7591 section 2, `jwks` and `jwks_uri`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A JWK Set, as JSON.
    Inline(String),
    /// The https URL of a JWK Set.
    Uri(String),
}

/// A sign-in that has begun in this broker and for which the browser is on its way through Forgejo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingRecord {
    /// The `state` that was sent to Forgejo.
    pub state: TokenHash,
    /// The cookie of the browser in which it began.
    pub browser: TokenHash,
    /// What it is for.
    pub purpose: Purpose,
    /// When it stops being good.
    pub expires_at: SystemTime,
}

/// What a sign-in is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A client wants a code.
    Client(ClientRequest),
    /// The user wants to see their connections.
    Connections,
}

/// A client's request for a code that the user has approved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRequest {
    /// The client that asked.
    pub client_id: ClientId,
    /// Where the client wants its answer, as it wrote it.
    pub redirect_uri: String,
    /// The client's own `state`.
    pub client_state: Option<String>,
    /// The client's S256 challenge (RFC 7636 section 4.2).
    pub code_challenge: String,
    /// The scope that the grant is to have.
    pub scope: String,
    /// Whose earlier approval this goes by. `None` if the user has just been asked.
    pub approved_by: Option<UserId>,
}

/// One user's yes to one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantRecord {
    /// The grant.
    pub id: GrantId,
    /// Forgejo's numeric id of the user.
    pub user: UserId,
    /// The user's login at the time of the sign-in.
    pub login: String,
    /// The client.
    pub client_id: ClientId,
    /// What the tokens of the grant allow: scopes with a space between them.
    pub scope: String,
}

/// A grant as its user sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantSummary {
    /// The grant.
    pub grant: GrantRecord,
    /// When the user said yes.
    pub created_at: SystemTime,
    /// When it was last used: a bearer shown, or tokens issued. It may lag by two minutes.
    pub last_used_at: SystemTime,
}

/// An access token that is honoured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessTokenRecord {
    /// The grant that it belongs to.
    pub grant: GrantRecord,
    /// Until when it is honoured, if the grant does not end before.
    pub expires_at: SystemTime,
}

/// An authorization code and what it is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeRecord {
    /// The code.
    pub code: TokenHash,
    /// The grant whose tokens it buys.
    pub grant: GrantId,
    /// The user of the grant.
    pub user: UserId,
    /// The client it was issued to.
    pub client_id: ClientId,
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
    pub user: UserId,
    /// Names this pair of tokens: a random number, new with each pair, never reused after a deletion.
    pub version: TokenVersion,
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
