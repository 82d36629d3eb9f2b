//! The records of the store, as plain data.
//!
//! Secrets occur here in two forms only: as [`TokenHash`] (SHA-256 of a random value of 256 bits,
//! which needs neither salt nor stretching) and as sealed bytes.

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
    /// The name that the client gives itself, which is not verified.
    pub name: Option<String>,
    /// The registered redirect URIs.
    pub redirect_uris: Vec<String>,
    /// The authentication at the token endpoint.
    pub auth: ClientAuth,
    /// The kind of application that the client says it is. Nothing depends on it.
    pub application_type: Option<ApplicationType>,
    /// The time of the registration.
    pub created_at: SystemTime,
    /// The host that vouches for the client: the one of its metadata document. `None` for a client
    /// that registered itself or is configured.
    pub domain: Option<String>,
    /// The hash of the token with which the client changes its registration (RFC 7592), if it may.
    pub registration_token: Option<TokenHash>,
    /// Identifies a public client that registers again: two with one fingerprint are one client.
    pub fingerprint: Option<TokenHash>,
}

/// The authentication of a client (RFC 7591 section 2, `token_endpoint_auth_method`).
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

/// The kind of application (OpenID Connect Dynamic Client Registration section 2,
/// `application_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplicationType {
    /// `native`: an application on the user's device.
    Native,
    /// `web`: an application on another machine.
    Web,
}

/// The source of a client's public keys (RFC 7591 section 2, `jwks` and `jwks_uri`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A JWK Set, as JSON.
    Inline(String),
    /// The https URL of a JWK Set.
    Uri(String),
}

/// A sign-in that has begun here and whose browser is at Forgejo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingRecord {
    /// The `state` that was sent to Forgejo.
    pub state: TokenHash,
    /// The cookie of the browser in which it began.
    pub browser: TokenHash,
    /// The purpose.
    pub purpose: Purpose,
    /// The time at which it expires.
    pub expires_at: SystemTime,
}

/// The purpose of a sign-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A client requests a code.
    Client(ClientRequest),
    /// The user opens the page of connections.
    Connections,
}

/// A client's request for a code, which the user has approved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRequest {
    /// The client.
    pub client_id: ClientId,
    /// The redirect URI, as the client wrote it.
    pub redirect_uri: String,
    /// The client's own `state`.
    pub client_state: Option<String>,
    /// The client's S256 challenge (RFC 7636 section 4.2).
    pub code_challenge: String,
    /// The scope of the grant.
    pub scope: String,
    /// The user whose earlier approval counts. `None` if the user has just approved.
    pub approved_by: Option<UserId>,
}

/// One user's consent to one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantRecord {
    /// The id.
    pub id: GrantId,
    /// The user.
    pub user: UserId,
    /// The user's login at the time of the sign-in.
    pub login: String,
    /// The client.
    pub client_id: ClientId,
    /// The scopes of the grant's tokens, separated by spaces.
    pub scope: String,
}

/// A grant as its user sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantSummary {
    /// The grant.
    pub grant: GrantRecord,
    /// The time of the consent.
    pub created_at: SystemTime,
    /// The time of the last use: an access token presented, or tokens issued. It may lag by two
    /// minutes.
    pub last_used_at: SystemTime,
}

/// An access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessTokenRecord {
    /// Its grant.
    pub grant: GrantRecord,
    /// The time at which it expires, if the grant does not end before.
    pub expires_at: SystemTime,
}

/// An authorization code and its bindings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeRecord {
    /// The code.
    pub code: TokenHash,
    /// The grant of its tokens, with the client to which it was issued.
    pub grant: GrantRecord,
    /// The redirect URI to which it was delivered.
    pub redirect_uri: String,
    /// The client's S256 challenge.
    pub code_challenge: String,
    /// The time at which it expires.
    pub expires_at: SystemTime,
}

/// The sealed upstream tokens of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRecord {
    /// The user.
    pub user: UserId,
    /// The version of the tokens.
    pub version: TokenVersion,
    /// The sealed access token.
    pub access: Vec<u8>,
    /// The sealed refresh token.
    pub refresh: Vec<u8>,
    /// The time at which the tokens were obtained.
    pub issued_at: SystemTime,
    /// The time at which the access token expires.
    pub expires_at: SystemTime,
}

impl ApplicationType {
    /// The type of a name. `None` for a name that is not defined.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Native, Self::Web].into_iter().find(|kind| kind.name() == name)
    }

    /// The name in metadata and in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Web => "web",
        }
    }
}

impl fmt::Debug for TokenHash {
    /// Shows the first four bytes: enough to distinguish two in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenHash({}..)", hex::encode(&self.0[..4]))
    }
}
