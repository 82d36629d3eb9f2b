//! The client against a scripted server that is its authorization server too.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::{Client, ClientError};
use crate::{browser::Browser, serve::HttpServer};

/// What the server says that it could say otherwise.
#[derive(Debug, Clone)]
struct Script {
    issuer_suffix: &'static str,
    iss: Option<&'static str>,
    extra: Value,
}

type Log = Arc<Mutex<Vec<(String, String)>>>;

async fn start(script: Script) -> (HttpServer, Client, Log) {
    let log = Log::default();
    let recorded = Arc::clone(&log);
    let server = HttpServer::start(
        0,
        Arc::new(move |request| {
            let response = respond(&script, &request);
            let body = String::from_utf8_lossy(request.body()).into_owned();
            recorded
                .lock()
                .unwrap()
                .push((format!("{} {}", request.method(), request.uri().path()), body));
            Box::pin(async move { Ok(response) })
        }),
    )
    .await
    .unwrap();
    let client = Client::new(format!("http://{}/mcp", server.address()).parse().unwrap());
    (server, client, log)
}

fn respond(script: &Script, request: &Request<Bytes>) -> Response<Full<Bytes>> {
    let base = format!("http://{}", request.headers()["host"].to_str().unwrap());
    let issuer = format!("{base}{}", script.issuer_suffix);
    match request.uri().path() {
        "/mcp" => mcp(&base, request),
        "/meta" => reply(
            200,
            "application/json",
            &json!({
                "resource": format!("{base}/mcp"), "authorization_servers": [base], "scopes_supported": ["mcp"],
            }),
        ),
        "/.well-known/oauth-authorization-server" => reply(
            200,
            "application/json",
            &json!({
                "issuer": issuer,
                "authorization_endpoint": format!("{base}/authorize"),
                "token_endpoint": format!("{base}/token"),
                "registration_endpoint": format!("{base}/register"),
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": true,
            }),
        ),
        "/register" => {
            let mut body = json!({ "client_id": "client-1" });
            body.as_object_mut()
                .unwrap()
                .extend(script.extra.as_object().cloned().unwrap_or_default());
            reply(201, "application/json", &body)
        }
        "/authorize" => {
            let query: Vec<(String, String)> = form_urlencoded::parse(request.uri().query().unwrap().as_bytes())
                .into_owned()
                .collect();
            let find = |name: &str| {
                query
                    .iter()
                    .find(|(key, _)| key == name)
                    .map(|(_, value)| value.clone())
                    .unwrap()
            };
            assert_eq!(find("resource"), format!("{base}/mcp"));
            assert_eq!(
                (find("scope").as_str(), find("code_challenge_method").as_str()),
                ("mcp", "S256")
            );
            let iss = script.iss.map_or(base.clone(), str::to_owned);
            let answer = form_urlencoded::Serializer::new(String::new())
                .extend_pairs([("code", "c0de"), ("state", &find("state")), ("iss", &iss)])
                .finish();
            Response::builder()
                .status(303)
                .header("location", format!("{}?{answer}", find("redirect_uri")))
                .body(Full::default())
                .unwrap()
        }
        "/token" => reply(
            200,
            "application/json",
            &json!({
                "access_token": "good", "token_type": "Bearer", "expires_in": 60, "refresh_token": "again",
            }),
        ),
        path => panic!("unexpected request to {path}"),
    }
}

fn mcp(base: &str, request: &Request<Bytes>) -> Response<Full<Bytes>> {
    if request
        .headers()
        .get("authorization")
        .is_none_or(|bearer| bearer != "Bearer good")
    {
        let mut refused = reply(401, "text/plain", &json!("no"));
        let challenge = format!("Bearer resource_metadata=\"{base}/meta\", scope=\"mcp\"");
        refused
            .headers_mut()
            .insert("www-authenticate", challenge.parse().unwrap());
        return refused;
    }
    if request.method() == "DELETE" {
        return reply(204, "text/plain", &json!(""));
    }
    let session = request.headers().get("mcp-session-id");
    if request.method() == "GET" {
        assert_eq!(request.headers()["last-event-id"], "7");
        return stream(
            "id: 8\ndata:\n\nid: 9\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\n\n".to_owned(),
        );
    }
    let message: Value = serde_json::from_slice(request.body()).unwrap();
    let result = |result: Value| json!({ "jsonrpc": "2.0", "id": message["id"], "result": result });
    let method = message["method"].as_str().unwrap();
    assert!(session.is_some() || method == "initialize");
    match method {
        "initialize" => {
            let mut opened = reply(
                200,
                "application/json",
                &result(json!({
                    "protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": { "name": "scripted", "version": "1" },
                })),
            );
            if session.is_none() {
                opened.headers_mut().insert("mcp-session-id", "s-1".parse().unwrap());
            }
            opened
        }
        "notifications/initialized" => {
            assert_eq!(request.headers()["mcp-protocol-version"], "2025-11-25");
            reply(202, "text/plain", &json!(""))
        }
        "tools/list" if message["params"]["cursor"] == "2" => {
            reply(200, "application/json", &result(json!({ "tools": [{ "name": "b" }] })))
        }
        "tools/list" => reply(
            200,
            "application/json",
            &result(json!({ "tools": [{ "name": "a" }], "nextCursor": "2" })),
        ),
        "tools/call" if message["params"]["name"] == "bad" => {
            let error =
                json!({ "jsonrpc": "2.0", "id": message["id"], "error": { "code": -32603, "message": "it broke" } });
            reply(200, "application/json", &error)
        }
        "tools/call" => {
            let progress = json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": {} });
            let answer = result(json!({ "content": [{ "type": "text", "text": "alice" }] }));
            stream(format!("id: 1\ndata:\n\ndata: {progress}\n\ndata: {answer}\n\n"))
        }
        other => panic!("unexpected method {other}"),
    }
}

fn reply(status: u16, content_type: &str, body: &Value) -> Response<Full<Bytes>> {
    let body = if content_type == "application/json" {
        body.to_string()
    } else {
        String::new()
    };
    Response::builder()
        .status(status)
        .header("content-type", content_type)
        .body(Full::from(body))
        .unwrap()
}

fn stream(body: String) -> Response<Full<Bytes>> {
    Response::builder()
        .header("content-type", "text/event-stream")
        .body(Full::from(body))
        .unwrap()
}

fn usual() -> Script {
    Script {
        issuer_suffix: "",
        iss: None,
        extra: json!({}),
    }
}

#[tokio::test]
async fn a_whole_session_step_by_step() {
    let (server, client, log) = start(usual()).await;
    client
        .sign_in(&mut Browser::new(), "alice", "unused here")
        .await
        .unwrap();
    assert_eq!(client.initialize().await.unwrap()["serverInfo"]["name"], "scripted");
    assert_eq!(client.session_id().as_deref(), Some("s-1"));
    client.initialized().await.unwrap();
    assert_eq!(client.list_tools().await.unwrap().len(), 2);
    let result = client.call_tool("whoami", json!({})).await.unwrap();
    assert_eq!(result["content"][0]["text"], "alice");
    let (answer, id) = client.request("tools/call", json!({ "name": "whoami" })).await.unwrap();
    assert!(answer.is_stream());
    assert_eq!((answer.messages.len(), answer.response_to(&id).is_some()), (2, true));
    client.refresh().await.unwrap();
    client.delete().await.unwrap();
    assert_eq!(client.session_id(), None);

    let steps: Vec<&str> = client.steps().iter().map(|step| step.name).collect();
    let expected = [
        "probe",
        "discover",
        "register",
        "authorize",
        "exchange",
        "initialize",
        "initialized",
        "tools/list",
        "tools/call",
        "refresh",
        "delete",
    ];
    assert_eq!(steps, expected);
    assert!(client.steps().iter().all(|step| step.passed));
    server.stop().await;
    let log = log.lock().unwrap();
    let (_, exchange) = log.iter().find(|(line, _)| line == "POST /token").unwrap();
    for part in [
        "grant_type=authorization_code",
        "code=c0de",
        "client_id=client-1",
        "resource=",
        "code_verifier=",
    ] {
        assert!(exchange.contains(part), "{part} in {exchange}");
    }
}

#[tokio::test]
async fn sessions_of_one_sign_in_share_tokens_and_not_the_session() {
    let (server, client, _) = start(usual()).await;
    client.sign_in(&mut Browser::new(), "alice", "").await.unwrap();
    client.initialize().await.unwrap();
    let other = client.another_session();
    assert_eq!(
        (other.access_token(), other.session_id()),
        (client.access_token(), None)
    );
    other.initialize().await.unwrap();
    other.set_access_token(Some("bad"));
    let refused = client.call_tool("whoami", json!({})).await.unwrap_err();
    assert_eq!(refused.status(), Some(StatusCode::UNAUTHORIZED));
    assert!(!client.steps().last().unwrap().passed);
    server.stop().await;
}

#[tokio::test]
async fn a_session_survives_a_second_initialize_and_errors_come_as_they_are() {
    let (server, client, _) = start(usual()).await;
    assert!(matches!(client.discover().await, Err(ClientError::TooEarly("probe"))));
    client.sign_in(&mut Browser::new(), "alice", "").await.unwrap();
    client.initialize().await.unwrap();
    client.initialize().await.unwrap();
    assert_eq!(client.session_id().as_deref(), Some("s-1"));
    let error = client.call_tool("bad", json!({})).await.unwrap_err();
    assert!(matches!(error, ClientError::Rpc { code: -32603, .. }), "{error}");
    server.stop().await;
}

#[tokio::test]
async fn the_get_stream_is_read_event_by_event() {
    let (server, client, _) = start(usual()).await;
    client.set_access_token(Some("good"));
    let mut stream = client.listen(Some("7")).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().id.as_deref(), Some("8"));
    assert!(stream.next().await.unwrap().unwrap().data.contains("notifications/x"));
    assert_eq!(stream.next().await.unwrap(), None);
    client.set_access_token(None);
    assert_eq!(
        client.listen(None).await.unwrap_err().status(),
        Some(StatusCode::UNAUTHORIZED)
    );
    server.stop().await;
}

#[tokio::test]
async fn what_a_strict_client_refuses_is_refused() {
    let cases = [
        (
            Script {
                issuer_suffix: "/",
                ..usual()
            },
            "issuer",
        ),
        (
            Script {
                iss: Some("http://elsewhere"),
                ..usual()
            },
            "iss",
        ),
        (
            Script {
                extra: json!({ "client_uri": null }),
                ..usual()
            },
            "nulls",
        ),
    ];
    for (script, word) in cases {
        let (server, client, _) = start(script).await;
        let error = client.sign_in(&mut Browser::new(), "alice", "").await.unwrap_err();
        assert!(
            matches!(&error, ClientError::Unexpected(what) if what.contains(word)),
            "{word}: {error}"
        );
        server.stop().await;
    }
}

#[tokio::test]
async fn a_redirect_with_another_state_or_an_error_is_told_apart() {
    let (server, client, _) = start(usual()).await;
    client.probe().await.unwrap();
    client.discover().await.unwrap();
    client.register().await.unwrap();
    let url = client.authorize_url().unwrap();
    let state = url
        .query_pairs()
        .find(|(name, _)| name == "state")
        .unwrap()
        .1
        .into_owned();
    let issuer = client.sign_in.server().unwrap().issuer;
    let mut redirect: url::Url = client.redirect_uri().parse().unwrap();
    redirect
        .query_pairs_mut()
        .extend_pairs([("error", "access_denied"), ("state", &state), ("iss", &issuer)]);
    let denied = client.accept_redirect(&redirect).unwrap_err();
    assert!(matches!(denied, ClientError::Denied { error, .. } if error == "access_denied"));
    redirect.set_query(Some("code=c&state=other"));
    assert!(matches!(
        client.accept_redirect(&redirect),
        Err(ClientError::Unexpected(_))
    ));
    server.stop().await;
}
