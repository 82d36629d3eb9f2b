//! The upstream: the server at which users sign in and whose tokens the accounts hold.

use std::{fmt, time::Duration};

use secrecy::SecretString;
use url::Url;

use super::BoxFuture;
use crate::{BoxError, ids::UserId};

/// Signs users in by the authorization code flow with PKCE, and renews their tokens.
pub trait Upstream: fmt::Debug + Send + Sync + 'static {
    /// The name on the pages, e.g. `code.example.org`.
    fn name(&self) -> &str;

    /// The permissions of an access token, in words for the consent page.
    fn permissions(&self) -> Vec<String>;

    /// Reports whether an access token can read the members of an organization.
    fn reads_organizations(&self) -> bool;

    /// The URL at which the browser signs in. `challenge` is the S256 challenge of the verifier
    /// that [`Upstream::exchange`] gets.
    fn authorize_url(&self, state: &str, challenge: &str, redirect_uri: &str) -> Url;

    /// Exchanges a code for tokens. It must not be retried: a code works once, and the exchange has
    /// invalidated all earlier refresh tokens of the user. After a dropped future the outcome is
    /// unknown.
    fn exchange<'a>(
        &'a self,
        code: &'a SecretString,
        verifier: &'a SecretString,
        redirect_uri: &'a str,
    ) -> BoxFuture<'a, Result<UpstreamTokens, UpstreamError>>;

    /// Renews the tokens. It must not be retried with the same token after a success, even one
    /// whose answer was lost.
    ///
    /// # Errors
    ///
    /// [`UpstreamError::Refused`] when the user has to sign in again, and
    /// [`UpstreamError::Unconfirmed`] when that is likely; the others say nothing about the user.
    fn refresh<'a>(&'a self, refresh_token: &'a SecretString) -> BoxFuture<'a, Result<UpstreamTokens, UpstreamError>>;

    /// The user of a token. It may be retried.
    ///
    /// # Errors
    ///
    /// [`UpstreamError::LockedOut`], [`UpstreamError::Refused`] when the token is invalid, else any
    /// other.
    fn user<'a>(&'a self, access_token: &'a SecretString) -> BoxFuture<'a, Result<UpstreamUser, UpstreamError>>;

    /// The scope of a token, compared with the one that the broker requests. It may be retried.
    fn granted_scope<'a>(
        &'a self,
        access_token: &'a SecretString,
    ) -> BoxFuture<'a, Result<GrantedScope, UpstreamError>>;

    /// The page at which a user revokes the grant of the broker at the upstream.
    fn settings_url(&self) -> Url;

    /// Reports whether a user is a member of an organization. It may be retried.
    fn is_member<'a>(
        &'a self,
        access_token: &'a SecretString,
        organization: &'a str,
        login: &'a str,
    ) -> BoxFuture<'a, Result<bool, UpstreamError>>;
}

/// The tokens of a user at the upstream.
#[derive(Clone, Debug)]
pub struct UpstreamTokens {
    /// The access token.
    pub access_token: SecretString,
    /// The refresh token.
    pub refresh_token: SecretString,
    /// The lifetime of the access token, from the answer on.
    pub expires_in: Duration,
}

/// A user of the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamUser {
    /// The id.
    pub id: UserId,
    /// The login.
    pub login: String,
    /// `true` if the user may sign in.
    pub active: bool,
}

/// The scope of a token, compared with the one that the broker requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrantedScope {
    /// It is the same.
    AsRequested,
    /// It is another: the user granted it before the broker requested its present scope. In words.
    Other(Vec<String>),
    /// The upstream does not show it.
    Unknown,
}

/// A failure of the upstream. No variant holds a token: texts of the upstream have been redacted.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The upstream itself refuses the user's code or token for good, for a known reason.
    #[error("Forgejo refuses the code or token: {0}")]
    Refused(String),
    /// The upstream refuses the user's refresh token for an unknown reason. Only together with
    /// another sign is this a refusal for good.
    #[error("Forgejo refuses the refresh token for an unknown reason: {0}")]
    Unconfirmed(String),
    /// The user may not sign in at the upstream.
    #[error("Forgejo has locked the user out: {0}")]
    LockedOut(String),
    /// The upstream rejects the configuration of the broker. The user cannot mend it.
    #[error("Forgejo rejects the configuration of the broker: {0}")]
    Misconfigured(String),
    /// The upstream asks to wait.
    #[error("Forgejo asks to wait for {} s", retry_after.as_secs())]
    Busy {
        /// The time until the next try.
        retry_after: Duration,
    },
    /// The upstream cannot be reached or has failed; a later try may succeed.
    #[error("Forgejo is unavailable")]
    Unavailable(#[source] BoxError),
    /// The upstream sent an invalid answer; a later try may succeed.
    #[error("Forgejo sent an invalid answer: {0}")]
    Unexpected(String),
}
