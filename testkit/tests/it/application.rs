//! A client application in a few lines: codes through the browser, tokens through the token
//! endpoint.

use std::time::Duration;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use reqwest::StatusCode;
use serde_json::Value;
use sha2::{Digest, Sha256};
use testkit::{
    Browser, FakeForgejo,
    forgejo::{Options, Registered},
};
use url::{Url, form_urlencoded};

/// The redirect URI of the application; nothing listens there.
pub(crate) const REDIRECT: &str = "http://127.0.0.1:7/callback";

/// Another redirect URI of the application.
const SECOND_REDIRECT: &str = "http://127.0.0.1:7/second";

/// 43 characters, the shortest valid verifier.
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

pub(crate) type Answer = (StatusCode, Value);

impl App {
    pub(crate) async fn start() -> Self {
        let redirect_uris = [REDIRECT, SECOND_REDIRECT].map(str::to_owned).into();
        let options = Options {
            redirect_uris,
            ..Options::default()
        };
        let forgejo = FakeForgejo::start(options).await;
        let forgejo = forgejo.expect("a free port");
        Self {
            id: forgejo.client_id().to_owned(),
            secret: forgejo.client_secret().to_owned(),
            http: testkit::http_client::client(Duration::from_secs(20)),
            forgejo,
        }
    }

    pub(crate) fn url(&self, path: &str) -> Url {
        let url = format!("{}{path}", self.forgejo.url());
        url.parse().expect("paths make URLs")
    }

    /// An authorize URL of the default application with S256; `extra` replaces or adds parameters
    /// and removes empty ones.
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
        let mut url = self.url("/login/oauth/authorize");
        url.query_pairs_mut().extend_pairs(replaced(&usual, extra));
        url
    }

    pub(crate) async fn code(&self, login: &str, extra: &[(&str, &str)]) -> String {
        let redirect = self.redirect(&mut Browser::new(), login, extra).await;
        parameter(&redirect, "code").unwrap_or_else(|| panic!("a code in {redirect}"))
    }

    pub(crate) async fn redirect(&self, browser: &mut Browser, login: &str, extra: &[(&str, &str)]) -> Url {
        let target = extra.iter().find(|(name, _)| *name == "redirect_uri");
        let target = target.map_or(REDIRECT, |(_, uri)| uri);
        let (url, password) = (self.authorize_url(extra), format!("{login}-password"));
        let redirect = browser.authorize(&url, login, &password, target).await;
        redirect.expect("a redirect to the application")
    }

    pub(crate) async fn sign_in(&self, login: &str) -> Tokens {
        let code = self.code(login, &[]).await;
        tokens(self.exchange(&code, &[]).await)
    }

    /// The usual code exchange; `changes` replaces or adds fields and removes empty ones.
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
        let mut request = self.http.get(self.url(&format!("/api/v1{path}")));
        if !authorization.is_empty() {
            request = request.header("authorization", authorization);
        }
        answer(request.send().await.expect("an answer")).await
    }

    pub(crate) async fn status(&self, path: &str, authorization: &str) -> StatusCode {
        self.api(path, authorization).await.0
    }

    pub(crate) fn bearer(&self, login: &str, scope: &str) -> String {
        format!("Bearer {}", self.forgejo.access_token(login, scope))
    }

    pub(crate) fn other(&self, confidential: bool) -> Registered {
        self.forgejo.register_application("other", &[REDIRECT], confidential)
    }

    async fn token(&self, usual: &[(&str, &str)], changes: &[(&str, &str)]) -> Answer {
        let mut form = form_urlencoded::Serializer::new(String::new());
        let form = form.extend_pairs(replaced(usual, changes)).finish();
        let request = self.post("/login/oauth/access_token");
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        answer(request.body(form).send().await.expect("an answer")).await
    }
}

fn replaced<'a>(usual: &[(&'a str, &'a str)], changes: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let is_changed = |name: &str| changes.iter().any(|(changed, _)| *changed == name);
    let kept = usual.iter().filter(|(name, _)| !is_changed(name));
    kept.chain(changes)
        .filter(|(_, value)| !value.is_empty())
        .copied()
        .collect()
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

/// Asserts one row of the error table; the status is always 400.
pub(crate) fn assert_error((status, body): &Answer, error: &str, description: &str) {
    assert_eq!(*status, StatusCode::BAD_REQUEST, "{body}");
    assert_eq!(body["error"], error);
    assert_eq!(body["error_description"], description);
}

pub(crate) fn parameter(url: &Url, wanted: &str) -> Option<String> {
    let found = url.query_pairs().find(|(name, _)| name == wanted);
    found.map(|(_, value)| value.into_owned())
}
