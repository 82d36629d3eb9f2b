//! A client application in a few lines: codes through the browser, tokens through the token endpoint.

use std::time::Duration;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use sha2::{Digest, Sha256};
use testkit::{
    Browser, FakeForgejo,
    forgejo::{Options, Registered},
};
use url::{Url, form_urlencoded};

/// Where the application waits; nobody listens there.
pub(crate) const REDIRECT: &str = "http://127.0.0.1:7/callback";

/// 43 characters, the shortest verifier there is.
pub(crate) const VERIFIER: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";

pub(crate) const SCOPE: &str = "read:user read:repository";

pub(crate) struct App {
    pub(crate) forgejo: FakeForgejo,
    pub(crate) id: String,
    pub(crate) secret: String,
    http: reqwest::Client,
}

#[derive(Debug, Clone)]
pub(crate) struct Tokens {
    pub(crate) access: String,
    pub(crate) refresh: String,
}

/// What came back: status and JSON.
pub(crate) type Answer = (StatusCode, Value);

impl App {
    pub(crate) async fn start() -> Self {
        Self::start_with(Options::for_redirect(REDIRECT)).await
    }

    pub(crate) async fn start_with(options: Options) -> Self {
        let forgejo = FakeForgejo::start(options).await.expect("a free port");
        let (id, secret) = (forgejo.client_id().to_owned(), forgejo.client_secret().to_owned());
        Self {
            forgejo,
            id,
            secret,
            http: testkit::plain::client(Duration::from_secs(20)),
        }
    }

    pub(crate) fn url(&self, path: &str) -> Url {
        format!("{}{path}", self.forgejo.url())
            .parse()
            .expect("paths make URLs")
    }

    /// An authorize URL of the default application with S256; `extra` replaces or adds parameters, empty ones vanish.
    pub(crate) fn authorize_url(&self, extra: &[(&str, &str)]) -> Url {
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
        let usual = [
            ("response_type", "code"),
            ("client_id", self.id.as_str()),
            ("redirect_uri", REDIRECT),
            ("state", "st4te"),
            ("scope", SCOPE),
            ("code_challenge", challenge.as_str()),
            ("code_challenge_method", "S256"),
        ];
        let kept = usual
            .iter()
            .filter(|(name, _)| extra.iter().all(|(other, _)| other != name));
        let mut url = self.url("/login/oauth/authorize");
        url.query_pairs_mut()
            .extend_pairs(kept.chain(extra).filter(|(_, value)| !value.is_empty()));
        url
    }

    /// Signs a user in with a fresh browser and gives the code.
    pub(crate) async fn code(&self, login: &str, extra: &[(&str, &str)]) -> String {
        let redirect = self.redirect(&mut Browser::new(), login, extra).await;
        parameter(&redirect, "code").unwrap_or_else(|| panic!("a code in {redirect}"))
    }

    /// Lets a browser go through an authorization, and gives the redirect.
    pub(crate) async fn redirect(&self, browser: &mut Browser, login: &str, extra: &[(&str, &str)]) -> Url {
        let target = extra
            .iter()
            .find(|(name, _)| *name == "redirect_uri")
            .map_or(REDIRECT, |(_, uri)| uri);
        let password = format!("{login}-password");
        let url = self.authorize_url(extra);
        browser
            .authorize(&url, login, &password, target)
            .await
            .expect("a redirect to the application")
    }

    pub(crate) async fn sign_in(&self, login: &str) -> Tokens {
        let code = self.code(login, &[]).await;
        tokens(self.exchange(&code, &[]).await)
    }

    /// The usual code exchange; `changes` replaces or adds fields, empty ones vanish.
    pub(crate) async fn exchange(&self, code: &str, changes: &[(&str, &str)]) -> Answer {
        let usual = [
            ("grant_type", "authorization_code"),
            ("client_id", &self.id),
            ("client_secret", &self.secret),
            ("redirect_uri", REDIRECT),
            ("code_verifier", VERIFIER),
            ("code", code),
        ];
        self.token(&usual, changes).await
    }

    pub(crate) async fn refresh(&self, token: &str, changes: &[(&str, &str)]) -> Answer {
        let usual = [
            ("grant_type", "refresh_token"),
            ("client_id", &self.id),
            ("client_secret", &self.secret),
            ("refresh_token", token),
        ];
        self.token(&usual, changes).await
    }

    pub(crate) fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.post(self.url(path))
    }

    pub(crate) async fn api(&self, path: &str, authorization: &str) -> Answer {
        let mut request = self.http.request(Method::GET, self.url(&format!("/api/v1{path}")));
        if !authorization.is_empty() {
            request = request.header("authorization", authorization);
        }
        answer(request.send().await.expect("an answer")).await
    }

    async fn token(&self, usual: &[(&str, &str)], changes: &[(&str, &str)]) -> Answer {
        let kept = usual
            .iter()
            .filter(|(name, _)| changes.iter().all(|(other, _)| other != name));
        let fields = kept.chain(changes).filter(|(_, value)| !value.is_empty());
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        let request = self
            .post("/login/oauth/access_token")
            .header("content-type", "application/x-www-form-urlencoded");
        answer(request.body(form).send().await.expect("an answer")).await
    }
}

/// An application of another kind or owner, beside the default one.
pub(crate) fn other(app: &App, confidential: bool) -> Registered {
    app.forgejo.register_application("other", &[REDIRECT], confidential)
}

pub(crate) async fn answer(response: reqwest::Response) -> Answer {
    let status = response.status();
    let body = response.bytes().await.expect("a whole body");
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

pub(crate) fn tokens((status, body): Answer) -> Tokens {
    assert_eq!(status, StatusCode::OK, "{body}");
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    Tokens {
        access: text("access_token"),
        refresh: text("refresh_token"),
    }
}

/// Asserts one row of the error table: always HTTP 400.
pub(crate) fn assert_refused((status, body): &Answer, error: &str, description: &str) {
    assert_eq!(*status, StatusCode::BAD_REQUEST, "{body}");
    assert_eq!(
        (body["error"].as_str(), body["error_description"].as_str()),
        (Some(error), Some(description))
    );
}

pub(crate) fn parameter(url: &Url, wanted: &str) -> Option<String> {
    let found = url.query_pairs().find(|(name, _)| name == wanted);
    found.map(|(_, value)| value.into_owned())
}
