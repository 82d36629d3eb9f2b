//! From a registered client to tokens: authorization with a user at a browser, code exchange,
//! refresh.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
use url::{Url, form_urlencoded};

use super::{Answer, Client, ClientError, sign_in::PendingAuthorization};
use crate::browser::Browser;

impl Client {
    /// All steps from [`probe`](Self::probe) to [`exchange`](Self::exchange), without registration
    /// if the client has an id.
    pub async fn sign_in(&self, browser: &mut Browser, login: &str, password: &str) -> Result<(), ClientError> {
        self.probe().await?;
        self.discover().await?;
        if self.client_id().is_none() {
            self.register().await?;
        }
        self.authorize(browser, login, password).await?;
        self.exchange().await
    }

    pub async fn authorize(&self, browser: &mut Browser, login: &str, password: &str) -> Result<(), ClientError> {
        let url = self.authorize_url()?;
        let redirect = browser.authorize(&url, login, password, &self.redirect_uri).await?;
        self.accept_redirect(&redirect)
    }

    /// Begins an authorization: a URL with a new `state` and a new S256 challenge, which replace
    /// the previous ones.
    pub fn authorize_url(&self) -> Result<Url, ClientError> {
        let server = self.sign_in.server()?;
        let client_id = self.client_id().ok_or(ClientError::TooEarly("register"))?;
        let pending = PendingAuthorization::random();
        let mut url = server.authorization_endpoint;
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &client_id)
            .append_pair("redirect_uri", &self.redirect_uri)
            .append_pair("state", &pending.state)
            .append_pair("code_challenge", &pending.challenge())
            .append_pair("code_challenge_method", "S256")
            .append_pair("resource", &server.resource.resource);
        if !server.resource.scopes_supported.is_empty() {
            let scope = server.resource.scopes_supported.join(" ");
            url.query_pairs_mut().append_pair("scope", &scope);
        }
        self.sign_in.state().pending = Some(pending);
        Ok(url)
    }

    /// Checks `state` and `iss` of a redirect (RFC 9207 section 2.4) and stores its code.
    pub(super) fn accept_redirect(&self, redirect: &Url) -> Result<(), ClientError> {
        let server = self.sign_in.server()?;
        let parameter = |wanted: &str| {
            let found = redirect.query_pairs().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.into_owned())
        };
        let mut sign_in = self.sign_in.state();
        let state = sign_in.pending.as_ref().map(|pending| pending.state.clone());
        if state.is_none() || parameter("state") != state {
            return Err(ClientError::unexpected("the redirect has another state"));
        }
        let iss = parameter("iss");
        let advertised = server.authorization_response_iss_parameter_supported;
        if iss.as_ref().map_or(advertised, |iss| *iss != server.issuer) {
            return Err(ClientError::Unexpected(format!("the redirect has iss {iss:?}")));
        }
        if let Some(error) = parameter("error") {
            let description = parameter("error_description").unwrap_or_default();
            return Err(ClientError::Denied { error, description });
        }
        sign_in.code = Some(parameter("code").ok_or_else(|| ClientError::unexpected("no code"))?);
        Ok(())
    }

    /// Exchanges the code for tokens (RFC 6749 section 4.1.3, RFC 7636 section 4.5).
    pub async fn exchange(&self) -> Result<(), ClientError> {
        let code = self.code().zip(self.verifier());
        let (code, verifier) = code.ok_or(ClientError::TooEarly("authorize"))?;
        let fields = [
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", &self.redirect_uri),
            ("code_verifier", &verifier),
        ];
        self.store_tokens(&fields).await
    }

    /// Exchanges the refresh token for new tokens, for all sessions of this sign-in (RFC 6749
    /// section 6).
    pub async fn refresh(&self) -> Result<(), ClientError> {
        let token = self.refresh_token().ok_or(ClientError::TooEarly("exchange"))?;
        self.store_tokens(&[("grant_type", "refresh_token"), ("refresh_token", &token)])
            .await
    }

    /// Sends exactly this form to the token endpoint, and stores nothing.
    pub async fn token_request(&self, fields: &[(&str, &str)]) -> Result<Answer, ClientError> {
        let at = self.sign_in.server()?.token_endpoint;
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        self.post_to(&at, "application/x-www-form-urlencoded", form).await
    }

    async fn store_tokens(&self, fields: &[(&str, &str)]) -> Result<(), ClientError> {
        let resource = self.sign_in.server()?.resource.resource;
        let id = self.client_id().unwrap_or_default();
        let secret = self.sign_in.state().client_secret.clone();
        let mut fields = fields.to_vec();
        fields.extend([("client_id", id.as_str()), ("resource", resource.as_str())]);
        fields.extend(secret.as_deref().map(|secret| ("client_secret", secret)));
        let answer = self.token_request(&fields).await?.expect_status(StatusCode::OK)?;
        let body = answer.json();
        let token_type = body["token_type"].as_str().unwrap_or_default();
        let is_bearer = token_type.eq_ignore_ascii_case("bearer");
        let Some(access) = body["access_token"].as_str().filter(|_| is_bearer) else {
            return Err(ClientError::unexpected("no bearer token in the answer"));
        };
        self.set_access_token(Some(access));
        // An answer without a refresh token leaves the previous one valid (RFC 6749 section 6).
        if let Some(refresh) = body["refresh_token"].as_str() {
            self.set_refresh_token(Some(refresh));
        }
        Ok(())
    }

    pub(super) async fn post_to(
        &self,
        url: &Url,
        media_type: &'static str,
        body: String,
    ) -> Result<Answer, ClientError> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(media_type))]);
        self.send(Method::POST, url, headers, Bytes::from(body)).await
    }
}
