//! The official Rust SDK as a client that another program drives, one JSON object a line.
//!
//! It signs in by the SDK's own OAuth code, opens a session and takes the tour of all features; or, with `ENDURE`, opens some and makes
//! calls without end. The settings and the events are those of the other clients; `../README.md` has them.
#![expect(deprecated, reason = "the next revision of MCP drops much of what this one has")]

mod endure;
mod host;
mod tour;

use std::process::ExitCode;

use anyhow::{Context, Result};
use host::Host;
use rmcp::{
    ServiceExt,
    transport::{
        StreamableHttpClientTransport,
        auth::{AuthClient, AuthorizationRequest, OAuthState},
        streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

const NAME: &str = "interop-rust";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => {
            emit(&json!({ "event": "done" }));
            ExitCode::SUCCESS
        }
        Err(error) => {
            emit(&json!({ "event": "error", "message": format!("{error:#}") }));
            ExitCode::FAILURE
        }
    }
}

/// Prints one event.
fn emit(event: &Value) {
    println!("{event}");
}

async fn run() -> Result<()> {
    let url = setting("MCP_URL")?;
    let http = sign_in(&url, &setting("REDIRECT_URI")?).await?;
    if let Ok(name) = setting("ENDURE") {
        return endure::run(http, &url, &name, setting("SESSIONS")?.parse()?).await;
    }
    let config = StreamableHttpClientTransportConfig::with_uri(url);
    let host = Host::default();
    let heard = host.heard.clone();
    let client = host
        .serve(StreamableHttpClientTransport::with_client(http, config))
        .await?;
    let server = client.peer_info().context("an open session has a server")?;
    let name = server.server_info.as_ref().map(|server| server.name.clone());
    emit(&json!({ "event": "session", "session": 0, "protocol": server.protocol_version, "server": name }));

    let tools = client.list_all_tools().await?;
    emit(&json!({ "event": "tools", "session": 0, "count": tools.len() }));
    tour::take(&client, &heard).await?;
    client.cancel().await?;
    Ok(())
}

fn setting(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set"))
}

/// Discovery, registration, PKCE and the code exchange are the SDK's; the browser is whoever reads the `authorize` event.
async fn sign_in(url: &str, redirect_uri: &str) -> Result<AuthClient<reqwest::Client>> {
    let mut oauth = OAuthState::new(url, None).await?;
    oauth
        .start_authorization(AuthorizationRequest::new(redirect_uri).with_client_name(NAME))
        .await?;
    emit(&json!({ "event": "authorize", "url": oauth.get_authorization_url().await? }));
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    let order = orders
        .next_line()
        .await?
        .context("stdin was closed while a sign-in was under way")?;
    let order: Value = serde_json::from_str(&order)?;
    let redirect = order["redirect"]
        .as_str()
        .context("an authorize event is answered by a line with a redirect")?;
    oauth.handle_callback_url(redirect).await?;
    let manager = oauth.into_authorization_manager().context("the sign-in is over")?;
    Ok(AuthClient::new(reqwest::Client::new(), manager))
}
