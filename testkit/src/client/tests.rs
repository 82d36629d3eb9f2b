//! The client against a scripted server that is its authorization server too.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    response::{IntoResponse as _, Redirect, Response},
};
use http::{
    HeaderMap, Method, StatusCode, Uri,
    header::{CONTENT_TYPE, HOST},
};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::{Client, ClientError};
use crate::{browser::Browser, http_server::HttpServer};

/// The deviations of the server, and the form that its token endpoint received.
#[derive(Debug, Clone, Default)]
struct Script {
    issuer_suffix: &'static str,
    iss: Option<&'static str>,
    registration: Value,
    token_form: Arc<Mutex<String>>,
}

async fn start(script: Script) -> (HttpServer, Client) {
    let router = Router::new().fallback(answer).with_state(script);
    let server = HttpServer::start(0, router).await.unwrap();
    let client = Client::new(format!("http://{}/mcp", server.address()).parse().unwrap());
    (server, client)
}

async fn answer(State(script): State<Script>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let base = format!("http://{}", headers[HOST].to_str().unwrap());
    let body = String::from_utf8_lossy(&body).into_owned();
    let metadata = match uri.path() {
        "/mcp"
            if headers
                .get("authorization")
                .is_none_or(|bearer| bearer != "Bearer good") =>
        {
            let challenge = format!("Bearer resource_metadata=\"{base}/meta\", scope=\"mcp\"");
            return (StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)]).into_response();
        }
        "/mcp" if method == Method::DELETE => return StatusCode::NO_CONTENT.into_response(),
        "/mcp" if method == Method::GET => {
            assert_eq!(headers["last-event-id"], "7");
            return stream("id: 8\ndata:\n\nid: 9\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\n\n");
        }
        "/mcp" => return mcp(&headers, &serde_json::from_str(&body).unwrap()),
        "/meta" => json!({
            "resource": format!("{base}/mcp"), "authorization_servers": [base], "scopes_supported": ["mcp"],
        }),
        "/.well-known/oauth-authorization-server" => json!({
            "issuer": format!("{base}{}", script.issuer_suffix),
            "authorization_endpoint": format!("{base}/authorize"),
            "token_endpoint": format!("{base}/token"),
            "registration_endpoint": format!("{base}/register"),
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": true,
        }),
        "/register" => {
            let mut body = json!({ "client_id": "client-1" });
            let extra = script.registration.as_object().cloned();
            body.as_object_mut().unwrap().extend(extra.unwrap_or_default());
            return (StatusCode::CREATED, reply(&body)).into_response();
        }
        "/authorize" => {
            let query = form_urlencoded::parse(uri.query().unwrap().as_bytes()).into_owned();
            let query: HashMap<String, String> = query.collect();
            assert_eq!(query["resource"], format!("{base}/mcp"));
            assert_eq!((&*query["scope"], &*query["code_challenge_method"]), ("mcp", "S256"));
            let iss = script.iss.unwrap_or(&base);
            let answer = form_urlencoded::Serializer::new(String::new())
                .extend_pairs([("code", "c0de"), ("state", &query["state"]), ("iss", iss)])
                .finish();
            return Redirect::to(&format!("{}?{answer}", query["redirect_uri"])).into_response();
        }
        "/token" => {
            *script.token_form.lock().unwrap() = body;
            json!({ "access_token": "good", "token_type": "Bearer", "expires_in": 60, "refresh_token": "again" })
        }
        other => panic!("unexpected path {other}"),
    };
    reply(&metadata)
}

fn mcp(headers: &HeaderMap, message: &Value) -> Response {
    let session = headers.get("mcp-session-id");
    let result = |result: Value| json!({ "jsonrpc": "2.0", "id": message["id"], "result": result });
    let method = message["method"].as_str().unwrap();
    assert!(session.is_some() || method == "initialize");
    reply(&match method {
        "initialize" => {
            let server = json!({ "name": "scripted", "version": "1" });
            let body = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": server });
            let mut opened = reply(&result(body));
            if session.is_none() {
                opened.headers_mut().insert("mcp-session-id", "s-1".parse().unwrap());
            }
            return opened;
        }
        "notifications/initialized" => {
            assert_eq!(headers["mcp-protocol-version"], "2025-11-25");
            return StatusCode::ACCEPTED.into_response();
        }
        "tools/list" if message["params"]["cursor"] == "2" => result(json!({ "tools": [{ "name": "b" }] })),
        "tools/list" => result(json!({ "tools": [{ "name": "a" }], "nextCursor": "2" })),
        "tools/call" if message["params"]["name"] == "bad" => {
            let error = json!({ "code": -32603, "message": "it broke" });
            json!({ "jsonrpc": "2.0", "id": message["id"], "error": error })
        }
        "tools/call" => {
            let progress = json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": {} });
            let answer = result(json!({ "content": [{ "type": "text", "text": "alice" }] }));
            return stream(format!("id: 1\ndata:\n\ndata: {progress}\n\ndata: {answer}\n\n"));
        }
        other => panic!("unexpected method {other}"),
    })
}

fn reply(body: &Value) -> Response {
    ([(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn stream(body: impl Into<String>) -> Response {
    ([(CONTENT_TYPE, "text/event-stream")], body.into()).into_response()
}

#[tokio::test]
async fn whole_session_passes_step_by_step() {
    let script = Script::default();
    let (server, client) = start(script.clone()).await;
    client.sign_in(&mut Browser::new(), "alice", "unused").await.unwrap();
    assert_eq!(client.initialize().await.unwrap()["serverInfo"]["name"], "scripted");
    assert_eq!(client.session_id().as_deref(), Some("s-1"));
    let exchange = script.token_form.lock().unwrap().clone();
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

    server.stop().await;
    let parts = "grant_type=authorization_code code=c0de client_id=client-1 resource= code_verifier=";
    for part in parts.split(' ') {
        assert!(exchange.contains(part), "{part} in {exchange}");
    }
}

#[tokio::test]
async fn sessions_of_one_sign_in_share_tokens_but_not_the_session() {
    let (server, client) = start(Script::default()).await;
    client.sign_in(&mut Browser::new(), "alice", "").await.unwrap();
    client.initialize().await.unwrap();
    let other = client.another_session();
    assert_eq!(other.access_token(), client.access_token());
    assert_eq!(other.session_id(), None);
    other.initialize().await.unwrap();
    other.set_access_token(Some("bad"));
    let refused = client.call_tool("whoami", json!({})).await.unwrap_err();
    assert_eq!(refused.status(), Some(StatusCode::UNAUTHORIZED));
    server.stop().await;
}

#[tokio::test]
async fn session_survives_a_second_initialize_and_rpc_errors_are_returned() {
    let (server, client) = start(Script::default()).await;
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
async fn get_stream_is_read_event_by_event() {
    let (server, client) = start(Script::default()).await;
    client.set_access_token(Some("good"));
    let mut stream = client.listen(Some("7")).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().id.as_deref(), Some("8"));
    assert!(stream.next().await.unwrap().unwrap().data.contains("notifications/x"));
    assert_eq!(stream.next().await.unwrap(), None);
    client.set_access_token(None);
    let refused = client.listen(None).await.err().unwrap();
    assert_eq!(refused.status(), Some(StatusCode::UNAUTHORIZED));
    server.stop().await;
}

#[tokio::test]
async fn deviations_from_the_specifications_are_refused() {
    let (mut issuer, mut iss, mut nulls) = (Script::default(), Script::default(), Script::default());
    issuer.issuer_suffix = "/";
    iss.iss = Some("http://elsewhere");
    nulls.registration = json!({ "client_uri": null });
    for (script, word) in [(issuer, "issuer"), (iss, "iss"), (nulls, "nulls")] {
        let (server, client) = start(script).await;
        let error = client.sign_in(&mut Browser::new(), "alice", "").await.unwrap_err();
        let expected = matches!(&error, ClientError::Unexpected(what) if what.contains(word));
        assert!(expected, "{word}: {error}");
        server.stop().await;
    }
}

#[tokio::test]
async fn redirect_with_error_and_redirect_with_another_state_differ() {
    let (server, client) = start(Script::default()).await;
    client.probe().await.unwrap();
    client.discover().await.unwrap();
    client.register().await.unwrap();
    let url = client.authorize_url().unwrap();
    let query: HashMap<_, _> = url.query_pairs().collect();
    let issuer = client.sign_in.server().unwrap().issuer;
    let mut redirect: url::Url = client.redirect_uri().parse().unwrap();
    redirect
        .query_pairs_mut()
        .extend_pairs([("error", "access_denied"), ("state", &query["state"]), ("iss", &issuer)]);
    let denied = client.accept_redirect(&redirect).unwrap_err();
    assert!(matches!(denied, ClientError::Denied { error, .. } if error == "access_denied"));
    redirect.set_query(Some("code=c&state=other"));
    let refused = client.accept_redirect(&redirect);
    assert!(matches!(refused, Err(ClientError::Unexpected(_))));
    server.stop().await;
}
