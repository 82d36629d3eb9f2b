//! From a registered client to tokens: authorization with a person at a browser, code exchange, refresh.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
use url::{Url, form_urlencoded};

use super::{Answer, Client, ClientError, sign_in::Pending, steps::Outcome};
use crate::browser::Browser;

impl Client {
    /// All steps from [`probe`](Self::probe) to [`exchange`](Self::exchange). Registration is left out if the client has
    /// an id already.
    ///
    /// # Errors
    ///
    /// Those of the steps.
    pub async fn sign_in(&self, browser: &mut Browser, login: &str, password: &str) -> Result<(), ClientError> {
        self.probe().await?;
        self.discover().await?;
        if self.client_id().is_none() {
            self.register().await?;
        }
        self.authorize(browser, login, password).await?;
        self.exchange().await
    }

    /// Sends the person off to say yes and sign in, and takes the code that comes back.
    ///
    /// # Errors
    ///
    /// Those of [`authorize_url`](Self::authorize_url) and [`accept_redirect`](Self::accept_redirect);
    /// [`ClientError::Browser`].
    pub async fn authorize(&self, browser: &mut Browser, login: &str, password: &str) -> Result<(), ClientError> {
        let authorize = async {
            let url = self.authorize_url()?;
            let redirect = browser.authorize(&url, login, password, &self.redirect_uri).await?;
            self.accept_redirect(&redirect)?;
            let status = browser.visited().last().map(|visit| visit.status);
            Ok(Outcome {
                value: (),
                status,
                detail: format!("{login} said yes and signed in"),
            })
        };
        self.steps.take("authorize", authorize).await
    }

    /// Begins an authorization: a URL with a new `state` and a new S256 challenge, which replace those of the one before.
    ///
    /// # Errors
    ///
    /// [`ClientError::TooEarly`] before [`discover`](Self::discover) or without a client id.
    pub fn authorize_url(&self) -> Result<Url, ClientError> {
        let server = self.sign_in.server()?;
        let client_id = self.client_id().ok_or(ClientError::TooEarly("register"))?;
        let pending = Pending::new();
        let mut url = server.authorization_endpoint;
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &client_id)
            .append_pair("redirect_uri", &self.redirect_uri)
            .append_pair("state", &pending.state)
            .append_pair("code_challenge", &pending.challenge())
            .append_pair("code_challenge_method", "S256")
            .append_pair("resource", &server.resource)
            .extend_pairs(server.scope.as_ref().map(|scope| ("scope", scope)));
        self.sign_in.known().pending = Some(pending);
        Ok(url)
    }

    /// Takes the redirect back: checks `state` and `iss` (RFC 9207 section 2.4) and keeps the code.
    ///
    /// # Errors
    ///
    /// [`ClientError::Denied`] for an error response, [`ClientError::Unexpected`] for one that is not for this client.
    pub fn accept_redirect(&self, redirect: &Url) -> Result<(), ClientError> {
        let server = self.sign_in.server()?;
        let parameter = |wanted: &str| {
            let found = redirect.query_pairs().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.into_owned())
        };
        let mut known = self.sign_in.known();
        let state = known.pending.as_ref().map(|pending| pending.state.clone());
        if state.is_none() || parameter("state") != state {
            return Err(ClientError::Unexpected("the redirect has another state".to_owned()));
        }
        let iss = parameter("iss");
        let iss_fits = iss.as_ref().map_or(!server.iss_advertised, |iss| *iss == server.issuer);
        if !iss_fits {
            return Err(ClientError::Unexpected(format!("the redirect has iss {iss:?}")));
        }
        if let Some(error) = parameter("error") {
            let description = parameter("error_description").unwrap_or_default();
            return Err(ClientError::Denied { error, description });
        }
        known.code = Some(parameter("code").ok_or_else(|| ClientError::Unexpected("no code".to_owned()))?);
        Ok(())
    }

    /// Exchanges the code for tokens (RFC 6749 section 4.1.3, RFC 7636 section 4.5).
    ///
    /// # Errors
    ///
    /// [`ClientError::TooEarly`] without a code; [`ClientError::Refused`]; [`ClientError::Unexpected`].
    pub async fn exchange(&self) -> Result<(), ClientError> {
        let exchange = async {
            let (code, pending) = {
                let known = self.sign_in.known();
                (known.code.clone(), known.pending.clone())
            };
            let (code, pending) = code.zip(pending).ok_or(ClientError::TooEarly("authorize"))?;
            let fields = [
                ("grant_type", "authorization_code"),
                ("code", &code),
                ("redirect_uri", &self.redirect_uri),
                ("code_verifier", &pending.verifier),
            ];
            self.take_tokens(&fields).await
        };
        self.steps.take("exchange", exchange).await
    }

    /// Exchanges the refresh token for new tokens, for all sessions that share this sign-in (RFC 6749 section 6).
    ///
    /// # Errors
    ///
    /// [`ClientError::TooEarly`] without a refresh token; [`ClientError::Refused`]; [`ClientError::Unexpected`].
    pub async fn refresh(&self) -> Result<(), ClientError> {
        let refresh = async {
            let token = self.refresh_token().ok_or(ClientError::TooEarly("exchange"))?;
            self.take_tokens(&[("grant_type", "refresh_token"), ("refresh_token", &token)])
                .await
        };
        self.steps.take("refresh", refresh).await
    }

    /// Sends a form to the token endpoint as it is; nothing is added and nothing kept.
    ///
    /// # Errors
    ///
    /// [`ClientError::TooEarly`] before [`discover`](Self::discover); [`ClientError::Transport`].
    pub async fn token_request(&self, fields: &[(&str, &str)]) -> Result<Answer, ClientError> {
        let at = self.sign_in.server()?.token_endpoint;
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        self.post_to(&at, "application/x-www-form-urlencoded", form).await
    }

    async fn take_tokens(&self, fields: &[(&str, &str)]) -> Result<Outcome<()>, ClientError> {
        let resource = self.sign_in.server()?.resource;
        let (id, secret) = {
            let known = self.sign_in.known();
            (known.client_id.clone().unwrap_or_default(), known.client_secret.clone())
        };
        let mut fields = fields.to_vec();
        fields.extend([("client_id", id.as_str()), ("resource", resource.as_str())]);
        fields.extend(secret.as_deref().map(|secret| ("client_secret", secret)));
        let answer = self.token_request(&fields).await?.expect_status(StatusCode::OK)?;
        let body = answer.json();
        let is_bearer = body["token_type"]
            .as_str()
            .is_some_and(|kind| kind.eq_ignore_ascii_case("bearer"));
        let Some(access) = body["access_token"].as_str().filter(|_| is_bearer) else {
            return Err(ClientError::Unexpected("no bearer token in the answer".to_owned()));
        };
        let detail = format!("expires in {} s", body["expires_in"]);
        let mut known = self.sign_in.known();
        known.access_token = Some(access.to_owned());
        // An answer without a refresh token leaves the old one good (RFC 6749 section 6).
        if let Some(refresh) = body["refresh_token"].as_str() {
            known.refresh_token = Some(refresh.to_owned());
        }
        Ok(Outcome::new((), answer.status, detail))
    }

    pub(super) async fn post_to(
        &self,
        url: &Url,
        media_type: &'static str,
        body: String,
    ) -> Result<Answer, ClientError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        self.send(Method::POST, url, headers, Bytes::from(body)).await
    }
}
