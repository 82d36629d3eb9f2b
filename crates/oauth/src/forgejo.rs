//! Sign-in at Forgejo: the [`Upstream`] that the broker is made for.
//!
//! The token endpoint is spoken to through the `oauth2` crate, the API directly; both over one HTTP client that
//! follows no redirect, reads no proxy from the environment, waits ten seconds and takes 256 KiB at most.
//!
//! Forgejo answers every error of its token endpoint with 400 and, depending on the case, says `unauthorized_client`
//! where the specification has `invalid_grant`: see `answers`. Its error texts may echo a token, and are redacted
//! before they go anywhere.
//!
//! A user's grant at Forgejo keeps the scope of its first consent, whatever is asked for later, and its tokens do not
//! say which: so the scope is asked for by introspection.

mod answers;
mod http_client;
mod scopes;

use std::{fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderValue, StatusCode, header};
use oauth2::{
    AuthType, AuthUrl, AuthorizationCode, ClientId, ClientSecret, EndpointNotSet, EndpointSet, PkceCodeVerifier,
    RedirectUrl, RefreshToken, TokenResponse as _, TokenUrl,
    basic::{BasicClient, BasicTokenResponse},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use url::Url;

use crate::{
    ids::UserId,
    ports::{BoxFuture, GrantedScope, Upstream, UpstreamError, UpstreamTokens, UpstreamUser},
};
use answers::Asked;
use http_client::HttpClient;

pub use scopes::{ScopeError, Scopes};

/// How to reach Forgejo and who the broker is there.
#[derive(Clone, Debug)]
pub struct ForgejoConfig {
    /// Where Forgejo is, as users reach it, e.g. `https://code.example.org`.
    pub url: String,
    /// The client id of the application that is registered at Forgejo.
    pub client_id: String,
    /// Its secret.
    pub client_secret: SecretString,
    /// What the users' tokens are to allow.
    pub scopes: Scopes,
}

/// Why there is no client for Forgejo.
#[derive(Debug, thiserror::Error)]
pub enum ForgejoError {
    /// The URL is not one of a Forgejo.
    #[error("forgejo.url: {0}")]
    Url(String),
    /// The client id or the secret is empty.
    #[error("forgejo.{0} is empty")]
    Empty(&'static str),
    /// The HTTP client cannot be made.
    #[error("no HTTP client can be made")]
    Http(#[source] reqwest::Error),
}

/// A Forgejo instance.
pub struct Forgejo {
    name: String,
    /// Ends with a slash, so that paths can be joined to it.
    base: Url,
    oauth: OAuthClient,
    /// Who the broker is there, for HTTP Basic (RFC 6749 section 2.3.1).
    basic: HeaderValue,
    http: HttpClient,
    scopes: Scopes,
}

/// The longest life of an access token that is believed.
const LONGEST_LIFE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

type OAuthClient = BasicClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

/// What `GET /api/v1/user` answers, as far as it matters.
#[derive(Deserialize)]
struct User {
    id: i64,
    login: String,
    #[serde(default = "yes")]
    active: bool,
    #[serde(default)]
    prohibit_login: bool,
}

/// What `/login/oauth/introspect` answers (RFC 7662 section 2.2), as far as it matters.
#[derive(Deserialize)]
struct Introspection {
    active: bool,
    scope: Option<String>,
}

impl Forgejo {
    /// A client for a Forgejo instance. Nothing is asked yet.
    ///
    /// # Errors
    ///
    /// Any [`ForgejoError`]; all of them are for the operator to mend.
    pub fn new(config: ForgejoConfig) -> Result<Self, ForgejoError> {
        let mut base = Url::parse(&config.url).map_err(|error| ForgejoError::Url(error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            return Err(ForgejoError::Url("must be an http or https URL".to_owned()));
        }
        if base.query().is_some()
            || base.fragment().is_some()
            || !base.username().is_empty()
            || base.password().is_some()
        {
            return Err(ForgejoError::Url(
                "must not have a query, a fragment or user information".to_owned(),
            ));
        }
        if config.client_id.is_empty() {
            return Err(ForgejoError::Empty("client_id"));
        }
        if config.client_secret.expose_secret().is_empty() {
            return Err(ForgejoError::Empty("client_secret"));
        }
        let path = format!("{}/", base.path().trim_end_matches('/'));
        base.set_path(&path);
        let endpoint = |path: &str| format!("{base}{path}");
        let bad = |error: url::ParseError| ForgejoError::Url(error.to_string());
        let basic = basic(&config.client_id, &config.client_secret).ok_or(ForgejoError::Empty("client_secret"))?;
        let oauth = BasicClient::new(ClientId::new(config.client_id))
            .set_client_secret(ClientSecret::new(config.client_secret.expose_secret().to_owned()))
            .set_auth_type(AuthType::RequestBody)
            .set_auth_uri(AuthUrl::new(endpoint("login/oauth/authorize")).map_err(bad)?)
            .set_token_uri(TokenUrl::new(endpoint("login/oauth/access_token")).map_err(bad)?);
        let name = match base.port() {
            Some(port) => format!("{}:{port}", base.host_str().unwrap_or_default()),
            None => base.host_str().unwrap_or_default().to_owned(),
        };
        let http = HttpClient::new().map_err(ForgejoError::Http)?;
        Ok(Self {
            name,
            base,
            oauth,
            basic,
            http,
            scopes: config.scopes,
        })
    }

    /// Asks the API with a user's token.
    async fn get(&self, access_token: &SecretString, path: &[&str]) -> Result<http::Response<Vec<u8>>, UpstreamError> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            // Encodes each segment, so that a login or an organisation cannot reach another path.
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        let bearer = format!("Bearer {}", access_token.expose_secret());
        let cannot = |_| UpstreamError::Unexpected("the access token cannot be sent in a header".to_owned());
        let mut bearer = HeaderValue::try_from(bearer).map_err(cannot)?;
        // Keeps it out of the traces of the HTTP stack.
        bearer.set_sensitive(true);
        let mut request = http::Request::new(Vec::new());
        *request.uri_mut() = url
            .as_str()
            .parse()
            .map_err(|_| UpstreamError::Unexpected("the address cannot be asked".to_owned()))?;
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::AUTHORIZATION, bearer);
        self.http
            .exchange(request)
            .await
            .map_err(|error| UpstreamError::Unavailable(Box::new(error)))
    }
}

impl Upstream for Forgejo {
    fn name(&self) -> &str {
        &self.name
    }

    fn permissions(&self) -> Vec<String> {
        self.scopes.in_words()
    }

    fn sees_organizations(&self) -> bool {
        self.scopes.read_organizations()
    }

    fn authorize_url(&self, state: &str, challenge: &str, redirect_uri: &str) -> Url {
        // Written by hand: the `oauth2` crate sets a challenge only together with its verifier, and the verifier is
        // derived anew at the callback.
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
            let answer = self
                .oauth
                .exchange_code(AuthorizationCode::new(code.expose_secret().to_owned()))
                .set_pkce_verifier(PkceCodeVerifier::new(verifier.expose_secret().to_owned()))
                .set_redirect_uri(std::borrow::Cow::Owned(redirect))
                .request_async(&self.http)
                .await
                .map_err(|error| answers::refusal(Asked::Exchange, error))?;
            pair(&answer)
        })
    }

    fn refresh<'a>(&'a self, refresh_token: &'a SecretString) -> BoxFuture<'a, Result<UpstreamTokens, UpstreamError>> {
        Box::pin(async move {
            let answer = self
                .oauth
                .exchange_refresh_token(&RefreshToken::new(refresh_token.expose_secret().to_owned()))
                .request_async(&self.http)
                .await
                .map_err(|error| answers::refusal(Asked::Refresh, error))?;
            pair(&answer)
        })
    }

    fn user<'a>(&'a self, access_token: &'a SecretString) -> BoxFuture<'a, Result<UpstreamUser, UpstreamError>> {
        Box::pin(async move {
            let response = self.get(access_token, &["user"]).await?;
            if answers::is_locked_out(&response) {
                return Err(UpstreamError::Refused("the user is locked out".to_owned()));
            }
            if response.status() != StatusCode::OK {
                return Err(answers::api_refusal(&response));
            }
            let user: User = serde_json::from_slice(response.body())
                .map_err(|_| UpstreamError::Unexpected("the user is not described as expected".to_owned()))?;
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
            let form = url::form_urlencoded::Serializer::new(String::new())
                .append_pair("token", access_token.expose_secret())
                .finish();
            let mut request = http::Request::new(form.into_bytes());
            *request.method_mut() = http::Method::POST;
            *request.uri_mut() = format!("{}login/oauth/introspect", self.base)
                .parse()
                .map_err(|_| UpstreamError::Unexpected("the address cannot be asked".to_owned()))?;
            let headers = request.headers_mut();
            headers.insert(header::AUTHORIZATION, self.basic.clone());
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/x-www-form-urlencoded"),
            );
            let response = self.http.exchange(request).await;
            let response = response.map_err(|error| UpstreamError::Unavailable(Box::new(error)))?;
            match response.status() {
                StatusCode::OK => {}
                // Something that speaks Forgejo's OAuth2 but cannot introspect.
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => return Ok(GrantedScope::Unknown),
                StatusCode::UNAUTHORIZED => {
                    return Err(UpstreamError::Misconfigured("introspection is refused".to_owned()));
                }
                status => return Err(UpstreamError::Unexpected(format!("introspection: {}", status.as_u16()))),
            }
            let answer: Introspection = serde_json::from_slice(response.body())
                .map_err(|_| UpstreamError::Unexpected("introspection did not answer as expected".to_owned()))?;
            match answer.scope {
                _ if !answer.active => Err(UpstreamError::Refused("the token is not active".to_owned())),
                None => Ok(GrantedScope::Unknown),
                Some(scope) if self.scopes.same_as(&scope) => Ok(GrantedScope::AsAsked),
                Some(scope) => Ok(GrantedScope::Other(scopes::granted_in_words(&scope))),
            }
        })
    }

    fn settings_url(&self) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["user", "settings", "applications"]);
        }
        url
    }

    fn is_member<'a>(
        &'a self,
        access_token: &'a SecretString,
        organization: &'a str,
        login: &'a str,
    ) -> BoxFuture<'a, Result<bool, UpstreamError>> {
        Box::pin(async move {
            let response = self
                .get(access_token, &["orgs", organization, "members", login])
                .await?;
            match response.status() {
                StatusCode::NO_CONTENT => Ok(true),
                // A redirect to the public members is what an outsider gets.
                StatusCode::NOT_FOUND | StatusCode::FOUND | StatusCode::SEE_OTHER => Ok(false),
                _ => Err(answers::api_refusal(&response)),
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

/// RFC 6749 section 2.3.1: both parts are form-encoded before they are joined. `None` if they fit into no header.
fn basic(client_id: &str, client_secret: &SecretString) -> Option<HeaderValue> {
    let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = format!("{}:{}", encode(client_id), encode(client_secret.expose_secret()));
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn pair(answer: &BasicTokenResponse) -> Result<UpstreamTokens, UpstreamError> {
    let refresh_token = answer
        .refresh_token()
        .ok_or_else(|| UpstreamError::Unexpected("there is no refresh_token in the answer".to_owned()))?;
    let expires_in = answer
        .expires_in()
        .ok_or_else(|| UpstreamError::Unexpected("there is no expires_in in the answer".to_owned()))?;
    Ok(UpstreamTokens {
        access_token: answer.access_token().secret().clone().into(),
        refresh_token: refresh_token.secret().clone().into(),
        // No time can overflow by what Forgejo says.
        expires_in: expires_in.min(LONGEST_LIFE),
    })
}

fn yes() -> bool {
    true
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
    fn the_browser_is_sent_with_pkce_state_and_scopes() {
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
    fn the_name_is_the_host_with_its_port() {
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
    fn what_is_no_forgejo_url_is_refused() {
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
