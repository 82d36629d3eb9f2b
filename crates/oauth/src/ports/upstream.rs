//! The upstream: who signs users in and whose tokens the accounts hold.

use std::{fmt, time::Duration};

use secrecy::SecretString;
use url::Url;

use super::BoxFuture;
use crate::{BoxError, ids::UserId};

/// Signs users in by the authorization code flow with PKCE and renews their tokens.
pub trait Upstream: fmt::Debug + Send + Sync + 'static {
    /// What the pages call it, e.g. `code.example.org`.
    fn name(&self) -> &str;

    /// What an access token will allow, in words for the consent page.
    fn permissions(&self) -> Vec<String>;

    /// Whether the tokens allow asking who is a member of an organization.
    fn sees_organizations(&self) -> bool;

    /// Where the browser goes to sign in.
    ///
    /// `challenge` is the S256 challenge of the verifier that [`Upstream::exchange`] will be given.
    fn authorize_url(&self, state: &str, challenge: &str, redirect_uri: &str) -> Url;

    /// Turns a code into tokens. It must not be retried: a code is good once, and the exchange has killed all refresh
    /// tokens that the user had before.
    ///
    /// # Errors
    ///
    /// Any [`UpstreamError`]. What came of the exchange after a dropped future is unknown.
    fn exchange<'a>(
        &'a self,
        code: &'a SecretString,
        verifier: &'a SecretString,
        redirect_uri: &'a str,
    ) -> BoxFuture<'a, Result<UpstreamTokens, UpstreamError>>;

    /// Renews the tokens. It must not be retried with the same token after a success, even one that got lost.
    ///
    /// # Errors
    ///
    /// [`UpstreamError::Refused`] when the user has to sign in again; the others say nothing about the user.
    fn refresh<'a>(&'a self, refresh_token: &'a SecretString) -> BoxFuture<'a, Result<UpstreamTokens, UpstreamError>>;

    /// Whose token it is. May be retried.
    ///
    /// # Errors
    ///
    /// [`UpstreamError::Refused`] when the token is no good any more or its user is locked out, else any other.
    fn user<'a>(&'a self, access_token: &'a SecretString) -> BoxFuture<'a, Result<UpstreamUser, UpstreamError>>;

    /// What a token really allows, compared with what the broker asks for. May be retried.
    ///
    /// # Errors
    ///
    /// Any [`UpstreamError`].
    fn granted_scope<'a>(
        &'a self,
        access_token: &'a SecretString,
    ) -> BoxFuture<'a, Result<GrantedScope, UpstreamError>>;

    /// Where a user takes back what they have granted the broker at the upstream.
    fn settings_url(&self) -> Url;

    /// Whether a user is a member of an organization. May be retried.
    ///
    /// # Errors
    ///
    /// Any [`UpstreamError`].
    fn is_member<'a>(
        &'a self,
        access_token: &'a SecretString,
        organization: &'a str,
        login: &'a str,
    ) -> BoxFuture<'a, Result<bool, UpstreamError>>;
}

/// What an exchange or a renewal yields.
#[derive(Clone, Debug)]
pub struct UpstreamTokens {
    /// The access token.
    pub access_token: SecretString,
    /// The refresh token.
    pub refresh_token: SecretString,
    /// How long the access token is good, counted from the answer.
    pub expires_in: Duration,
}

/// A user as the upstream knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamUser {
    /// The number that stays when the login changes.
    pub id: UserId,
    /// The login.
    pub login: String,
    /// Whether the upstream lets the user in.
    pub active: bool,
}

/// How what a token allows compares with what the broker asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrantedScope {
    /// It is the same.
    AsAsked,
    /// It is more or less: the user granted it before the broker asked for what it asks now. In words.
    Other(Vec<String>),
    /// The upstream does not tell.
    Unknown,
}

/// Why the upstream did not do as asked. No variant holds a token: what the upstream wrote has been redacted.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The user's code or token is refused for good.
    #[error("the upstream refuses the credential: {0}")]
    Refused(String),
    /// The upstream does not know this broker or its configuration is at odds with it. Nothing that the user can mend.
    #[error("the upstream does not accept the broker's configuration: {0}")]
    Misconfigured(String),
    /// It cannot be reached or is in trouble; a later try may succeed.
    #[error("the upstream cannot be asked now")]
    Unavailable(#[source] BoxError),
    /// It answered with something that is not an answer; a later try may succeed.
    #[error("the upstream gave an answer that makes no sense: {0}")]
    Unexpected(String),
}
