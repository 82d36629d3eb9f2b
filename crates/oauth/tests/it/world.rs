//! A broker in memory: the server, its store in a temporary directory, a scripted upstream, a clock
//! set by hand.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use oauth::{
    AuthorizationServer, Caller, Config, fetch::Fetch, ids::UserId, ports::Upstream, seal::Sealer, sqlite::SqliteStore,
    testing::ManualClock,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{recorded_events::RecordedEvents, scripted_upstream::ScriptedUpstream};

pub(crate) const ISSUER: &str = "https://broker.example";
pub(crate) const REDIRECT: &str = "http://127.0.0.1:4711/callback";
pub(crate) const ALICE: UserId = UserId(11);
pub(crate) const BOB: UserId = UserId(12);

/// Everything around a server.
pub(crate) struct World {
    pub(crate) server: AuthorizationServer,
    pub(crate) store: SqliteStore,
    pub(crate) upstream: Arc<ScriptedUpstream>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) events: Arc<RecordedEvents>,
    pub(crate) config: Config,
    fetch: Option<Arc<dyn Fetch>>,
    directory: Arc<TempDir>,
}

/// A response with its body read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

/// Tokens as a client gets them.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    pub(crate) access: String,
    pub(crate) refresh: String,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Config::new(ISSUER)).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        Self::with_fetch(config, None).await
    }

    /// A broker that reads documents of clients.
    pub(crate) async fn with_fetch(config: Config, fetch: Option<Arc<dyn Fetch>>) -> Self {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        let upstream = Arc::new(ScriptedUpstream::default());
        upstream.add_user(ALICE, "alice");
        upstream.add_user(BOB, "bob");
        let clock = ManualClock::at(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let events = Arc::new(RecordedEvents::default());
        let store = SqliteStore::open(directory.path().join("broker.db")).await.unwrap();
        let server = server(
            &config,
            &store,
            Sealer::with_key([7; 32]),
            Arc::clone(&upstream) as _,
            &clock,
            &events,
            fetch.clone(),
        );
        Self {
            server,
            store,
            upstream,
            clock,
            events,
            config,
            fetch,
            directory,
        }
    }

    /// Another process on the same store, which reaches the upstream in its own way.
    pub(crate) async fn another(&self, upstream: Arc<dyn Upstream>) -> Self {
        let store = SqliteStore::open(self.database()).await.unwrap();
        let events = Arc::new(RecordedEvents::default());
        let sealer = Sealer::with_key([7; 32]);
        let server = server(&self.config, &store, sealer, upstream, &self.clock, &events, None);
        Self {
            server,
            store,
            upstream: Arc::clone(&self.upstream),
            clock: Arc::clone(&self.clock),
            events,
            config: self.config.clone(),
            fetch: None,
            directory: Arc::clone(&self.directory),
        }
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.directory.path().join("broker.db")
    }

    /// The broker dies and comes back on the same file, with a key.
    pub(crate) async fn restart(&mut self, key: [u8; 32]) {
        self.restart_with(Sealer::with_key(key)).await;
    }

    /// As [`World::restart`], with several numbered keys.
    pub(crate) async fn restart_with_keys(&mut self, keys: &[(u32, [u8; 32])]) {
        let lines: Vec<String> = keys
            .iter()
            .map(|(number, key)| format!("{number} {}", hex::encode(key)))
            .collect();
        self.restart_with(Sealer::from_text(&lines.join("\n").into()).unwrap())
            .await;
    }

    async fn restart_with(&mut self, sealer: Sealer) {
        self.store.close().await;
        self.store = SqliteStore::open(self.database()).await.unwrap();
        self.server = server(
            &self.config,
            &self.store,
            sealer,
            Arc::clone(&self.upstream) as _,
            &self.clock,
            &self.events,
            self.fetch.clone(),
        );
    }

    pub(crate) async fn send(&self, request: Request<Bytes>) -> Answer {
        Answer::read(self.server.serve(request).await).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Bytes::new()).unwrap()).await
    }

    pub(crate) async fn form(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.send(form_request(path, fields)).await
    }

    pub(crate) async fn register(&self, metadata: Value) -> Answer {
        let request = Request::post("/oauth/register")
            .header(header::CONTENT_TYPE, "application/json")
            .body(metadata.to_string().into())
            .unwrap();
        self.send(request).await
    }

    /// Registers a public client.
    pub(crate) async fn client(&self) -> String {
        self.client_named("Test client").await
    }

    pub(crate) async fn client_named(&self, name: &str) -> String {
        self.client_at(name, REDIRECT).await
    }

    pub(crate) async fn client_at(&self, name: &str, redirect_uri: &str) -> String {
        let metadata = serde_json::json!({
            "client_name": name,
            "redirect_uris": [redirect_uri],
            "token_endpoint_auth_method": "none",
        });
        let answer = self.register(metadata).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
        answer.json()["client_id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn exchange(&self, client: &str, code: &str) -> Answer {
        self.form("/oauth/token", &code_form(client, code)).await
    }

    /// As [`World::exchange`], for a client elsewhere.
    pub(crate) async fn exchange_at(&self, client: &str, code: &str, redirect_uri: &str) -> Answer {
        let fields = with(&code_form(client, code), &[("redirect_uri", redirect_uri)]);
        self.form("/oauth/token", &fields).await
    }

    pub(crate) async fn refresh(&self, client: &str, token: &str) -> Answer {
        let fields = [
            ("grant_type", "refresh_token"),
            ("client_id", client),
            ("refresh_token", token),
        ];
        self.form("/oauth/token", &fields).await
    }

    /// Signs a user in from the consent page to the tokens.
    pub(crate) async fn tokens(&self, client: &str, user: UserId) -> Tokens {
        let code = crate::browser::Browser::default().sign_in(self, client, user).await;
        self.exchange(client, &code).await.tokens()
    }

    pub(crate) async fn authenticate(&self, bearer: &str) -> Result<Caller, Answer> {
        let headers = [(header::AUTHORIZATION, format!("Bearer {bearer}").parse().unwrap())]
            .into_iter()
            .collect();
        match self.server.authenticate(&headers).await {
            Ok(caller) => Ok(caller),
            Err(response) => Err(Answer::read(response).await),
        }
    }

    pub(crate) async fn caller(&self, bearer: &str) -> Caller {
        self.authenticate(bearer)
            .await
            .unwrap_or_else(|answer| panic!("no caller: {answer:?}"))
    }
}

impl Answer {
    pub(crate) async fn read(response: Response<oauth::Body>) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Self {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub(crate) fn header(&self, name: impl header::AsHeaderName) -> &str {
        self.headers
            .get(name)
            .map(|value| value.to_str().unwrap())
            .unwrap_or_default()
    }

    /// The place that the browser is sent to.
    pub(crate) fn location(&self) -> url::Url {
        assert_eq!(self.status, StatusCode::SEE_OTHER, "{self:?}");
        url::Url::parse(self.header(header::LOCATION)).unwrap()
    }

    /// A parameter of the place that the browser is sent to.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        self.location()
            .query_pairs()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }

    pub(crate) fn tokens(&self) -> Tokens {
        assert_eq!(self.status, StatusCode::OK, "{self:?}");
        let json = self.json();
        let text = |name: &str| json[name].as_str().unwrap().to_owned();
        Tokens {
            access: text("access_token"),
            refresh: text("refresh_token"),
        }
    }

    /// Status and `error` of an OAuth error.
    pub(crate) fn error(&self) -> (u16, String) {
        (
            self.status.as_u16(),
            self.json()["error"].as_str().unwrap_or_default().to_owned(),
        )
    }
}

/// The verifier of every flow, and its challenge (RFC 7636 appendix B).
pub(crate) const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
pub(crate) const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

pub(crate) fn code_form<'a>(client: &'a str, code: &'a str) -> [(&'a str, &'a str); 5] {
    [
        ("grant_type", "authorization_code"),
        ("client_id", client),
        ("code", code),
        ("redirect_uri", REDIRECT),
        ("code_verifier", VERIFIER),
    ]
}

pub(crate) fn form_request(path: &str, fields: &[(&str, &str)]) -> Request<Bytes> {
    Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(encode(fields).into())
        .unwrap()
}

pub(crate) fn encode(fields: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish()
}

/// Other values for some fields; an empty value takes a field out of the request.
pub(crate) fn with<'a>(fields: &[(&'a str, &'a str)], changes: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut fields = fields.to_vec();
    for (name, value) in changes {
        fields.retain(|(key, _)| key != name);
        if !value.is_empty() {
            fields.push((name, value));
        }
    }
    fields
}

fn server(
    config: &Config,
    store: &SqliteStore,
    sealer: Sealer,
    upstream: Arc<dyn Upstream>,
    clock: &Arc<ManualClock>,
    events: &Arc<RecordedEvents>,
    fetch: Option<Arc<dyn Fetch>>,
) -> AuthorizationServer {
    AuthorizationServer::new(
        config.clone(),
        Arc::new(store.clone()),
        sealer,
        upstream,
        Arc::clone(clock) as _,
        Arc::clone(events) as _,
        fetch,
    )
    .unwrap()
}
