//! The Forgejo client against a small HTTP server that answers as Forgejo does.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use oauth::{
    AuthorizationServer, Config,
    forgejo::{Forgejo, ForgejoConfig, Scopes},
    ports::{GrantedScope, SystemClock, Upstream as _, UpstreamError},
    seal::Sealer,
    sqlite::SqliteStore,
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{net::TcpListener, task::JoinSet};

/// A server that sends every request the same response and records the requests.
struct Server {
    forgejo: Forgejo,
    requests: Arc<Mutex<Vec<RecordedRequest>>>,
    /// Ends the server when the test ends.
    _task: JoinSet<()>,
}

#[derive(Clone, Debug)]
struct RecordedRequest {
    line: String,
    authorization: String,
    body: String,
}

const JWT: &str = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJnbnQiOjEsInR0IjowfQ.c2lnbmF0dXJl";

impl Server {
    async fn answering(status: u16, headers: &[(&'static str, &str)], body: impl Into<Bytes>) -> Self {
        let mut response = Response::new(body.into());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in headers {
            response.headers_mut().insert(*name, value.parse().unwrap());
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/git/", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let mut task = JoinSet::new();
        task.spawn(serve(listener, response, Arc::clone(&requests)));
        let forgejo = Forgejo::new(ForgejoConfig {
            url,
            client_id: "2f8f9a3c".to_owned(),
            client_secret: "gto_hush".to_owned().into(),
            scopes: Scopes::new(["read:user"]).unwrap(),
        })
        .unwrap();
        Self {
            forgejo,
            requests,
            _task: task,
        }
    }

    async fn json(status: u16, body: &str) -> Self {
        Self::answering(status, &[("content-type", "application/json")], body.to_owned()).await
    }

    async fn error(error: &str, description: &str) -> Self {
        Self::json(
            400,
            &serde_json::json!({"error": error, "error_description": description}).to_string(),
        )
        .await
    }

    async fn refresh(&self) -> Result<oauth::ports::UpstreamTokens, UpstreamError> {
        self.forgejo.refresh(&secret("the-refresh-token")).await
    }

    async fn exchange(&self) -> Result<oauth::ports::UpstreamTokens, UpstreamError> {
        self.forgejo
            .exchange(
                &secret("gta_code"),
                &secret("verifier"),
                "https://b.example/oauth/callback",
            )
            .await
    }

    fn last_request(&self) -> RecordedRequest {
        self.requests.lock().unwrap().last().unwrap().clone()
    }
}

async fn serve(listener: TcpListener, response: Response<Bytes>, requests: Arc<Mutex<Vec<RecordedRequest>>>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (response, requests) = (response.clone(), Arc::clone(&requests));
        connections.spawn(async move {
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let (response, requests) = (response.clone(), Arc::clone(&requests));
                async move {
                    let line = format!("{} {}", request.method(), request.uri());
                    let authorization = request.headers().get(header::AUTHORIZATION);
                    let authorization = authorization
                        .map(|v| v.to_str().unwrap().to_owned())
                        .unwrap_or_default();
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let body = String::from_utf8(body.to_vec()).unwrap();
                    requests.lock().unwrap().push(RecordedRequest {
                        line,
                        authorization,
                        body,
                    });
                    Ok::<_, Infallible>(response.map(Full::new))
                }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn secret(text: &str) -> SecretString {
    text.to_owned().into()
}

/// The error and all its causes, as a log shows them.
fn chain(error: &UpstreamError) -> String {
    let mut text = format!("{error:?}");
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        text.push_str(&format!(" / {error}"));
        cause = error.source();
    }
    text
}

#[tokio::test]
async fn code_exchange_sends_verifier_secret_and_redirect_uri() {
    let body =
        format!(r#"{{"access_token":"{JWT}","token_type":"bearer","expires_in":3600,"refresh_token":"the next one"}}"#);
    let server = Server::json(200, &body).await;
    let pair = server.exchange().await.unwrap();
    assert_eq!(pair.access_token.expose_secret(), JWT);
    assert_eq!(pair.refresh_token.expose_secret(), "the next one");
    assert_eq!(pair.expires_in, Duration::from_secs(3598));
    let request = server.last_request();
    assert_eq!(request.line, "POST /git/login/oauth/access_token");
    for part in [
        "grant_type=authorization_code",
        "code=gta_code",
        "code_verifier=verifier",
        "client_id=2f8f9a3c",
        "client_secret=gto_hush",
        "redirect_uri=https%3A%2F%2Fb.example%2Foauth%2Fcallback",
    ] {
        assert!(request.body.contains(part), "{part} in {}", request.body);
    }
    server.refresh().await.unwrap();
    assert!(server.last_request().body.contains("refresh_token=the-refresh-token"));
}

#[tokio::test]
async fn refresh_refusals_are_classified() {
    for (error, description) in [
        ("unauthorized_client", "unable to parse refresh token"),
        ("unauthorized_client", "token is not a refresh token"),
        ("unauthorized_client", "token was already used"),
        ("invalid_grant", "grant does not exist"),
        ("invalid_grant", "refresh token was not issued to this client"),
    ] {
        let outcome = Server::error(error, description).await.refresh().await;
        assert!(
            matches!(outcome, Err(UpstreamError::Refused(_))),
            "{error}: {description}: {outcome:?}"
        );
    }
    let outcome = Server::error("invalid_grant", "cannot increase the grant counter").await;
    let outcome = outcome.refresh().await;
    assert!(matches!(outcome, Err(UpstreamError::Unexpected(_))), "{outcome:?}");
    let outcome = Server::error("invalid_grant", "a new reason").await.refresh().await;
    assert!(matches!(outcome, Err(UpstreamError::Unconfirmed(_))), "{outcome:?}");
    for (error, description) in [
        ("invalid_client", "invalid client secret"),
        ("invalid_client", "cannot load client with client id: 'x'"),
        ("invalid_request", "cannot parse basic auth header"),
        (
            "unsupported_grant_type",
            "Only refresh_token or authorization_code grant type is supported",
        ),
    ] {
        let outcome = Server::error(error, description).await.refresh().await;
        assert!(
            matches!(outcome, Err(UpstreamError::Misconfigured(_))),
            "{error}: {description}: {outcome:?}"
        );
    }
}

#[tokio::test]
async fn exchange_refusals_distinguish_dead_code_from_wrong_secret() {
    for description in ["client is not authorized", "failed PKCE code challenge"] {
        let outcome = Server::error("unauthorized_client", description).await.exchange().await;
        assert!(
            matches!(outcome, Err(UpstreamError::Refused(_))),
            "{description}: {outcome:?}"
        );
    }
    for description in ["invalid client secret", "unexpected redirect URI"] {
        let outcome = Server::error("unauthorized_client", description).await.exchange().await;
        assert!(
            matches!(outcome, Err(UpstreamError::Misconfigured(_))),
            "{description}: {outcome:?}"
        );
    }
}

#[tokio::test]
async fn failing_server_refuses_no_user() {
    for status in [500, 502, 503, 504, 429] {
        let server = Server::answering(status, &[("content-type", "text/html")], "<h1>Oops</h1>").await;
        assert!(
            matches!(server.refresh().await, Err(UpstreamError::Unavailable(_))),
            "{status}"
        );
        assert!(
            matches!(
                server.forgejo.user(&secret(JWT)).await,
                Err(UpstreamError::Unavailable(_))
            ),
            "{status}"
        );
    }
    // A proxy's page, a redirect (not followed), and responses that lack a required field.
    for server in [
        Server::answering(200, &[("content-type", "text/html")], "<h1>Welcome</h1>").await,
        Server::answering(404, &[("content-type", "text/html")], "<h1>Not here</h1>").await,
        Server::answering(302, &[("location", "https://evil.example/")], "").await,
        Server::json(200, r#"{"access_token":"x","token_type":"bearer","expires_in":3600}"#).await,
        Server::json(200, r#"{"access_token":"x","token_type":"bearer","refresh_token":"y"}"#).await,
    ] {
        let outcome = server.refresh().await;
        assert!(matches!(outcome, Err(UpstreamError::Unexpected(_))), "{outcome:?}");
    }
    let huge = Server::json(200, &"x".repeat(300 * 1024)).await;
    assert!(matches!(huge.refresh().await, Err(UpstreamError::Unavailable(_))));
}

#[tokio::test]
async fn answer_that_a_proxy_can_give_refuses_no_user() {
    for server in [
        Server::answering(401, &[("content-type", "text/html")], "<h1>Sign in first</h1>").await,
        Server::json(401, r#"{"message":"authentication required"}"#).await,
        Server::answering(
            403,
            &[("content-type", "text/html")],
            "This account is prohibited from signing in",
        )
        .await,
    ] {
        let outcome = server.forgejo.user(&secret(JWT)).await;
        assert!(
            matches!(
                outcome,
                Err(UpstreamError::Unexpected(_) | UpstreamError::Misconfigured(_))
            ),
            "{outcome:?}"
        );
    }
}

#[tokio::test]
async fn last_seconds_of_a_token_are_not_used() {
    for (expires_in, used) in [(3600, 3598.0), (10, 9.0)] {
        let body =
            format!(r#"{{"access_token":"x","token_type":"bearer","expires_in":{expires_in},"refresh_token":"y"}}"#);
        let tokens = Server::json(200, &body).await.refresh().await.unwrap();
        assert_eq!(tokens.expires_in.as_secs_f64(), used);
    }
}

#[tokio::test]
async fn unreachable_server_refuses_no_user() {
    let port = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let forgejo = Forgejo::new(ForgejoConfig {
        url: format!("http://127.0.0.1:{port}"),
        client_id: "x".to_owned(),
        client_secret: secret("y"),
        scopes: Scopes::new(["all"]).unwrap(),
    })
    .unwrap();
    let error = forgejo.refresh(&secret("the-refresh-token")).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Unavailable(_)), "{error:?}");
    assert!(
        chain(&error).contains("refused"),
        "the cause is shown: {}",
        chain(&error)
    );
    assert!(!chain(&error).contains("the-refresh-token"));
}

#[tokio::test]
async fn user_is_read_from_the_api() {
    for (extra, active) in [
        ("", true),
        (r#","active":true,"prohibit_login":false"#, true),
        (r#","active":false"#, false),
        (r#","prohibit_login":true"#, false),
    ] {
        let server = Server::json(
            200,
            &format!(r#"{{"id":7,"login":"alice","email":"a@example.org"{extra}}}"#),
        )
        .await;
        let user = server.forgejo.user(&secret(JWT)).await.unwrap();
        assert_eq!((user.id.0, user.login.as_str(), user.active), (7, "alice", active));
        assert_eq!(server.last_request().line, "GET /git/api/v1/user");
        assert_eq!(server.last_request().authorization, format!("Bearer {JWT}"));
    }
}

#[tokio::test]
async fn api_refusals_hold_no_token() {
    let echo = format!(r#"{{"message":"invalid username, password or token: {JWT}","url":"https://x/api/swagger"}}"#);
    let error = Server::json(401, &echo)
        .await
        .forgejo
        .user(&secret(JWT))
        .await
        .unwrap_err();
    assert!(matches!(error, UpstreamError::Refused(_)), "{error:?}");
    assert!(
        !chain(&error).contains(JWT) && chain(&error).contains("[redacted]"),
        "{}",
        chain(&error)
    );
    let scope = r#"{"message":"token does not have at least one of required scope(s): [read:user]","url":"x"}"#;
    let error = Server::json(403, scope)
        .await
        .forgejo
        .user(&secret(JWT))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, UpstreamError::Misconfigured(text) if text.contains("[read:user]")),
        "{error:?}"
    );
    let error = Server::error("unauthorized_client", &format!("bad token {JWT}"))
        .await
        .refresh()
        .await
        .unwrap_err();
    assert!(!chain(&error).contains(JWT), "{}", chain(&error));
}

#[tokio::test]
async fn membership_follows_the_status() {
    for (status, member) in [(204, true), (404, false), (302, false)] {
        let server = Server::answering(status, &[], "").await;
        let outcome = server.forgejo.is_member(&secret(JWT), "the staff/..", "alice").await;
        assert_eq!(outcome.unwrap(), member, "{status}");
        assert_eq!(
            server.last_request().line,
            "GET /git/api/v1/orgs/the%20staff%2F../members/alice"
        );
    }
    let server = Server::json(403, r#"{"message":"scope"}"#).await;
    let outcome = server.forgejo.is_member(&secret(JWT), "staff", "alice").await;
    assert!(matches!(outcome, Err(UpstreamError::Misconfigured(_))), "{outcome:?}");
}

#[tokio::test]
async fn allowed_organizations_need_the_scope_to_read_members() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path().join("broker.db")).await.unwrap();
    for (scopes, fine) in [(&["read:user"][..], false), (&["read:user", "read:organization"], true)] {
        let forgejo = Forgejo::new(ForgejoConfig {
            url: "https://forgejo.example".to_owned(),
            client_id: "x".to_owned(),
            client_secret: secret("y"),
            scopes: Scopes::new(scopes.iter().copied()).unwrap(),
        })
        .unwrap();
        let mut config = Config::new("https://broker.example");
        config.allowed_orgs = vec!["staff".to_owned()];
        let outcome = AuthorizationServer::new(
            config,
            Arc::new(store.clone()),
            Sealer::with_key([7; 32]),
            Arc::new(forgejo),
            Arc::new(SystemClock),
            Arc::new(crate::recorded_events::RecordedEvents::default()),
            None,
        );
        assert_eq!(outcome.is_ok(), fine, "{outcome:?}");
        if let Err(errors) = outcome {
            assert_eq!(errors.0[0].key, "forgejo.allowed_orgs");
        }
    }
}

#[tokio::test]
async fn scope_of_a_token_is_introspected() {
    let body = r#"{"active":true,"scope":"openid read:user","username":"alice"}"#;
    let server = Server::json(200, body).await;
    let granted = server.forgejo.granted_scope(&secret(JWT)).await.unwrap();
    assert_eq!(granted, GrantedScope::AsRequested);
    let request = server.last_request();
    assert_eq!(request.line, "POST /git/login/oauth/introspect");
    // 2f8f9a3c:gto_hush
    assert_eq!(request.authorization, "Basic MmY4ZjlhM2M6Z3RvX2h1c2g=");
    assert_eq!(request.body, format!("token={JWT}"));

    let server = Server::json(200, r#"{"active":true,"scope":"read:user write:package"}"#).await;
    let granted = server.forgejo.granted_scope(&secret(JWT)).await.unwrap();
    let words = ["read your account and profile", "read and change packages"];
    assert_eq!(granted, GrantedScope::Other(words.map(str::to_owned).to_vec()));
    // A scope without a part of the API allows all of it.
    let server = Server::json(200, r#"{"active":true,"scope":"openid"}"#).await;
    let granted = server.forgejo.granted_scope(&secret(JWT)).await.unwrap();
    assert_eq!(
        granted,
        GrantedScope::Other(vec!["do everything that you can do".to_owned()])
    );
}

#[tokio::test]
async fn unknown_scope_and_failed_introspection_are_distinguished() {
    for (status, body) in [(404, "{}"), (405, "{}"), (200, r#"{"active":true}"#)] {
        let server = Server::json(status, body).await;
        let granted = server.forgejo.granted_scope(&secret(JWT)).await.unwrap();
        assert_eq!(granted, GrantedScope::Unknown, "{status}");
    }
    let error = Server::json(200, r#"{"active":false}"#).await;
    let error = error.forgejo.granted_scope(&secret(JWT)).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Refused(_)), "{error:?}");
    let challenge = ("www-authenticate", "Basic realm=\"Gitea OAuth2\"");
    let error = Server::answering(401, &[challenge], "").await;
    let error = error.forgejo.granted_scope(&secret(JWT)).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Misconfigured(_)), "{error:?}");
    let error = Server::answering(401, &[("content-type", "text/plain")], "").await;
    let error = error.forgejo.granted_scope(&secret(JWT)).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Refused(_)), "{error:?}");
    let error = Server::json(503, "{}").await;
    let error = error.forgejo.granted_scope(&secret(JWT)).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Unavailable(_)), "{error:?}");
}

#[tokio::test]
async fn locked_out_user_is_distinguished_from_missing_scope() {
    let text = r#"{"message":"This account is prohibited from signing in, please contact your site administrator."}"#;
    let server = Server::json(403, text).await;
    let error = server.forgejo.user(&secret(JWT)).await.unwrap_err();
    assert!(matches!(error, UpstreamError::LockedOut(_)), "{error:?}");
    let text = r#"{"message":"token does not have at least one of required scope(s): [read:user]"}"#;
    let server = Server::json(403, text).await;
    let error = server.forgejo.user(&secret(JWT)).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Misconfigured(_)), "{error:?}");
}

#[tokio::test]
async fn settings_url_is_below_the_root_of_forgejo() {
    let server = Server::json(200, "{}").await;
    assert_eq!(server.forgejo.settings_url().path(), "/git/user/settings/applications");
}
