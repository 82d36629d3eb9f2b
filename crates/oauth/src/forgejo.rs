//! Sign-in at Forgejo: the [`Upstream`] for which the broker is made.
//!
//! Requests to the token endpoint go through the `oauth2` crate, requests to the API directly; both
//! use one HTTP client that follows no redirect, reads no proxy from the environment, and limits
//! time and size.
//!
//! Forgejo answers every error of its token endpoint with 400 and, in some cases, with
//! `unauthorized_client` where the specification has `invalid_grant`: see `refusals`. Its error
//! texts may echo a token, and are redacted.
//!
//! A user's grant at Forgejo keeps the scope of its first consent, whatever is requested later, and
//! its tokens do not show it: so the broker asks for the scope by introspection.

mod http_client;
mod redact;
mod refusals;
mod scopes;

use std::{fmt, time::Duration};

use http::{StatusCode, header};
use oauth2::{
    AuthType, AuthUrl, AuthorizationCode, ClientId, ClientSecret, EndpointNotSet, EndpointSet, PkceCodeVerifier,
    RedirectUrl, RefreshToken, RequestTokenError, TokenResponse as _, TokenUrl,
    basic::{BasicClient, BasicErrorResponse, BasicTokenResponse},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use url::{Position, Url};

use crate::{
    ids::UserId,
    ports::{BoxFuture, GrantedScope, Upstream, UpstreamError, UpstreamTokens, UpstreamUser},
};
use http_client::{HttpClient, TransportError};
use refusals::TokenRequest;

pub use scopes::{ScopeError, Scopes};

/// The address of Forgejo, and the application of the broker there.
#[derive(Clone, Debug)]
pub struct ForgejoConfig {
    /// The URL at which users reach Forgejo, e.g. `https://code.example.org`.
    pub url: String,
    /// The client id of the application that is registered at Forgejo.
    pub client_id: String,
    /// Its secret.
    pub client_secret: SecretString,
    /// The scopes of the users' tokens.
    pub scopes: Scopes,
}

/// The reason why there is no client for Forgejo.
#[derive(Debug, thiserror::Error)]
pub enum ForgejoError {
    /// The URL is not one of a Forgejo.
    #[error("forgejo.url: {0}")]
    Url(String),
    /// The client id or the secret is empty.
    #[error("forgejo.{0} is empty")]
    Empty(&'static str),
    /// The HTTP client cannot be created.
    #[error("cannot create the HTTP client for Forgejo")]
    Http(#[source] reqwest::Error),
}

/// A Forgejo instance.
pub struct Forgejo {
    name: String,
    /// Ends with a slash, so that paths can be joined to it.
    base: Url,
    oauth: OAuthClient,
    client_secret: SecretString,
    http: HttpClient,
    scopes: Scopes,
}

/// The longest lifetime of an access token. It keeps times from overflowing.
const MAX_LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A token counts as expired this much early, but at most a tenth of its lifetime.
const EXPIRY_MARGIN: Duration = Duration::from_secs(2);

type OAuthClient = BasicClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

/// The response of `GET /api/v1/user`, as far as it is read.
#[derive(Deserialize)]
struct User {
    id: i64,
    login: String,
    #[serde(default = "is_active_by_default")]
    active: bool,
    #[serde(default)]
    prohibit_login: bool,
}

/// The response of `/login/oauth/introspect` (RFC 7662 section 2.2), as far as it is read.
#[derive(Deserialize)]
struct Introspection {
    active: bool,
    scope: Option<String>,
}

impl Forgejo {
    /// A client for a Forgejo instance. It sends no request yet.
    ///
    /// # Errors
    ///
    /// Any [`ForgejoError`]; all of them are for the operator to mend.
    pub fn new(config: ForgejoConfig) -> Result<Self, ForgejoError> {
        let invalid = |error: url::ParseError| ForgejoError::Url(error.to_string());
        let mut base = Url::parse(&config.url).map_err(invalid)?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            return Err(ForgejoError::Url("must be an http or https URL".to_owned()));
        }
        let has_user = !base.username().is_empty() || base.password().is_some();
        if has_user || base.query().is_some() || base.fragment().is_some() {
            let text = "must not have a query, a fragment or user information";
            return Err(ForgejoError::Url(text.to_owned()));
        }
        if config.client_id.is_empty() {
            return Err(ForgejoError::Empty("client_id"));
        }
        if config.client_secret.expose_secret().is_empty() {
            return Err(ForgejoError::Empty("client_secret"));
        }
        let path = format!("{}/", base.path().trim_end_matches('/'));
        base.set_path(&path);
        let oauth = BasicClient::new(ClientId::new(config.client_id))
            .set_client_secret(ClientSecret::new(config.client_secret.expose_secret().to_owned()))
            .set_auth_type(AuthType::RequestBody)
            .set_auth_uri(AuthUrl::new(format!("{base}login/oauth/authorize")).map_err(invalid)?)
            .set_token_uri(TokenUrl::new(format!("{base}login/oauth/access_token")).map_err(invalid)?);
        Ok(Self {
            name: base[Position::BeforeHost..Position::AfterPort].to_owned(),
            base,
            oauth,
            client_secret: config.client_secret,
            http: HttpClient::new().map_err(ForgejoError::Http)?,
            scopes: config.scopes,
        })
    }

    /// The URL of a path. Each segment is encoded, so that a login or an organization cannot reach
    /// another path.
    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    /// Reads from the API with a user's token.
    async fn get(&self, access_token: &SecretString, path: &[&str]) -> Result<http::Response<Vec<u8>>, UpstreamError> {
        let request = self.http.0.get(self.url(&[&["api", "v1"], path].concat()));
        let request = request.header(header::ACCEPT, "application/json");
        self.send(request.bearer_auth(access_token.expose_secret())).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<http::Response<Vec<u8>>, UpstreamError> {
        let invalid = |_| UpstreamError::unexpected("the access token does not fit into a header");
        let response = self.http.exchange(request.build().map_err(invalid)?).await;
        Ok(response?)
    }
}

impl Upstream for Forgejo {
    fn name(&self) -> &str {
        &self.name
    }

    fn permissions(&self) -> Vec<String> {
        self.scopes.in_words()
    }

    fn reads_organizations(&self) -> bool {
        self.scopes.read_organizations()
    }

    fn authorize_url(&self, state: &str, challenge: &str, redirect_uri: &str) -> Url {
        // The `oauth2` crate sets a challenge only together with its verifier, which the callback
        // derives again.
        let mut url = self.oauth.auth_uri().url().clone();
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", self.oauth.client_id())
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("scope", &self.scopes.to_string())
            .append_pair("state", state)
            .append_pair("code_challenge", challenge)
            .append_pair("code_challenge_method", "S256");
        url
    }

    fn exchange<'a>(
        &'a self,
        code: &'a SecretString,
        verifier: &'a SecretString,
        redirect_uri: &'a str,
    ) -> BoxFuture<'a, Result<UpstreamTokens, UpstreamError>> {
        Box::pin(async move {
            let redirect = RedirectUrl::new(redirect_uri.to_owned())
                .map_err(|error| UpstreamError::Misconfigured(error.to_string()))?;
            let response = self
                .oauth
                .exchange_code(AuthorizationCode::new(code.expose_secret().to_owned()))
                .set_pkce_verifier(PkceCodeVerifier::new(verifier.expose_secret().to_owned()))
                .set_redirect_uri(std::borrow::Cow::Owned(redirect))
                .request_async(&self.http);
            tokens(TokenRequest::Exchange, response.await)
        })
    }

    fn refresh<'a>(&'a self, refresh_token: &'a SecretString) -> BoxFuture<'a, Result<UpstreamTokens, UpstreamError>> {
        Box::pin(async move {
            let refresh_token = RefreshToken::new(refresh_token.expose_secret().to_owned());
            let request = self.oauth.exchange_refresh_token(&refresh_token);
            tokens(TokenRequest::Refresh, request.request_async(&self.http).await)
        })
    }

    fn user<'a>(&'a self, access_token: &'a SecretString) -> BoxFuture<'a, Result<UpstreamUser, UpstreamError>> {
        Box::pin(async move {
            let response = self.get(access_token, &["user"]).await?;
            if response.status() != StatusCode::OK {
                return Err(refusals::of_api(&response));
            }
            let user: User = serde_json::from_slice(response.body())
                .map_err(|_| UpstreamError::unexpected("the user is not described as expected"))?;
            Ok(UpstreamUser {
                id: UserId(user.id),
                login: user.login,
                active: user.active && !user.prohibit_login,
            })
        })
    }

    fn granted_scope<'a>(
        &'a self,
        access_token: &'a SecretString,
    ) -> BoxFuture<'a, Result<GrantedScope, UpstreamError>> {
        Box::pin(async move {
            let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            // RFC 6749 section 2.3.1: both parts of the credentials are form-encoded.
            let (user, password) = (
                encode(self.oauth.client_id()),
                encode(self.client_secret.expose_secret()),
            );
            let request = self.http.0.post(self.url(&["login", "oauth", "introspect"]));
            let request = request
                .basic_auth(user, Some(password))
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(format!("token={}", encode(access_token.expose_secret())));
            let response = self.send(request).await?;
            match response.status() {
                StatusCode::OK => {}
                // Another server that speaks Forgejo's OAuth2, without introspection.
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => return Ok(GrantedScope::Unknown),
                // Only a challenge is about the broker: a dead token has a 401 without one.
                StatusCode::UNAUTHORIZED if response.headers().contains_key(header::WWW_AUTHENTICATE) => {
                    return Err(UpstreamError::Misconfigured("introspection is refused".to_owned()));
                }
                StatusCode::UNAUTHORIZED => {
                    return Err(UpstreamError::Refused("the token is not active".to_owned()));
                }
                status => return Err(UpstreamError::unexpected(format!("introspection: {}", status.as_u16()))),
            }
            let answer: Introspection = serde_json::from_slice(response.body())
                .map_err(|_| UpstreamError::unexpected("introspection did not answer as expected"))?;
            match answer.scope {
                _ if !answer.active => Err(UpstreamError::Refused("the token is not active".to_owned())),
                None => Ok(GrantedScope::Unknown),
                Some(scope) if self.scopes.same_as(&scope) => Ok(GrantedScope::AsRequested),
                Some(scope) => Ok(GrantedScope::Other(scopes::granted_in_words(&scope))),
            }
        })
    }

    fn settings_url(&self) -> Url {
        self.url(&["user", "settings", "applications"])
    }

    fn is_member<'a>(
        &'a self,
        access_token: &'a SecretString,
        organization: &'a str,
        login: &'a str,
    ) -> BoxFuture<'a, Result<bool, UpstreamError>> {
        Box::pin(async move {
            let path = ["orgs", organization, "members", login];
            let response = self.get(access_token, &path).await?;
            match response.status() {
                StatusCode::NO_CONTENT => Ok(true),
                // An outsider gets a redirect to the public members.
                StatusCode::NOT_FOUND | StatusCode::FOUND | StatusCode::SEE_OTHER => Ok(false),
                _ => Err(refusals::of_api(&response)),
            }
        })
    }
}

impl fmt::Debug for Forgejo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forgejo")
            .field("url", &self.base.as_str())
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

/// The tokens in a response of the token endpoint.
fn tokens(
    request: TokenRequest,
    response: Result<BasicTokenResponse, RequestTokenError<TransportError, BasicErrorResponse>>,
) -> Result<UpstreamTokens, UpstreamError> {
    let response = response.map_err(|error| refusals::of_token_request(request, error))?;
    let (Some(refresh_token), Some(expires_in)) = (response.refresh_token(), response.expires_in()) else {
        return Err(UpstreamError::unexpected(
            "the response lacks refresh_token or expires_in",
        ));
    };
    Ok(UpstreamTokens {
        access_token: response.access_token().secret().clone().into(),
        refresh_token: refresh_token.secret().clone().into(),
        expires_in: safe_lifetime(expires_in),
    })
}

/// The time for which a token is used. Forgejo cuts the expiry to whole seconds and counts from
/// before its answer arrives, so the last two seconds of a token are not safe.
fn safe_lifetime(expires_in: Duration) -> Duration {
    let margin = EXPIRY_MARGIN.min(expires_in / 10);
    expires_in.min(MAX_LIFETIME) - margin
}

fn is_active_by_default() -> bool {
    true
}

impl UpstreamError {
    fn unexpected(text: impl Into<String>) -> Self {
        Self::Unexpected(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> ForgejoConfig {
        ForgejoConfig {
            url: url.to_owned(),
            client_id: "2f8f".to_owned(),
            client_secret: "gto_secret".to_owned().into(),
            scopes: Scopes::new(["read:user", "write:issue"]).unwrap(),
        }
    }

    #[test]
    fn authorize_url_has_pkce_state_and_scopes() {
        for base in ["https://example.org/git", "https://example.org/git/"] {
            let forgejo = Forgejo::new(config(base)).unwrap();
            let url = forgejo.authorize_url("the state", "challenge", "https://broker.example/oauth/callback");
            assert_eq!(
                url.as_str(),
                "https://example.org/git/login/oauth/authorize?response_type=code&client_id=2f8f\
                 &redirect_uri=https%3A%2F%2Fbroker.example%2Foauth%2Fcallback&scope=read%3Auser+write%3Aissue\
                 &state=the+state&code_challenge=challenge&code_challenge_method=S256"
            );
        }
    }

    #[test]
    fn name_is_the_host_with_its_port() {
        assert_eq!(
            Forgejo::new(config("https://example.org/git")).unwrap().name(),
            "example.org"
        );
        assert_eq!(
            Forgejo::new(config("http://127.0.0.1:3000")).unwrap().name(),
            "127.0.0.1:3000"
        );
    }

    #[test]
    fn invalid_configuration_is_refused() {
        for url in [
            "",
            "code.example.org",
            "ftp://example.org",
            "https://example.org/?a",
            "https://u@example.org",
        ] {
            assert!(matches!(Forgejo::new(config(url)), Err(ForgejoError::Url(_))), "{url}");
        }
        let empty = ForgejoConfig {
            client_secret: String::new().into(),
            ..config("https://example.org")
        };
        assert!(matches!(Forgejo::new(empty), Err(ForgejoError::Empty("client_secret"))));
    }

    #[test]
    fn debug_shows_no_secret() {
        let config = config("https://example.org");
        assert!(!format!("{config:?}").contains("gto_secret"));
        assert!(!format!("{:?}", Forgejo::new(config).unwrap()).contains("gto_secret"));
    }
}
