//! The official Rust SDK as a client that another program drives, one JSON object a line.
//!
//! The course of a run, the settings and the events are those of the other clients; `../README.md` has them. Discovery,
//! registration, PKCE, code exchange and refresh are the SDK's own. All sessions share one sign-in.
#![expect(deprecated, reason = "the next revision of MCP drops much of what this one has")]

mod endure;
mod host;
mod session;
mod settings;
mod tour;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use futures::future::try_join_all;
use rmcp::transport::auth::{AuthClient, AuthorizationRequest, OAuthState};
use serde_json::{Value, json};
use session::Session;
use settings::{Orders, Settings};

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
    let settings = Settings::read()?;
    let mut orders = Orders::new();
    let http = sign_in(&settings, &mut orders).await?;
    if let Some(name) = &settings.endure {
        return endure::run(http, name, &settings, &mut orders).await;
    }
    loop {
        let open = |number| Session::open(number, http.clone(), &settings.url);
        // The first alone, so that the order of events is that of the other clients.
        let mut sessions = vec![open(0).await?];
        sessions.extend(try_join_all((1..settings.sessions).map(open)).await?);
        try_join_all(sessions.iter().map(Session::list_tools)).await?;
        if settings.features {
            try_join_all(sessions.iter().map(Session::take_tour)).await?;
        } else {
            try_join_all(sessions.iter().map(|session| session.call_all(&settings))).await?;
        }
        let again = settings.hold && obey(&sessions, &settings, &mut orders).await?;
        try_join_all(sessions.into_iter().map(Session::close)).await?;
        if !again {
            return Ok(());
        }
    }
}

/// Repeats the calls once per order, until told to end or standard input is closed; `true`: open all sessions anew.
async fn obey(sessions: &[Session], settings: &Settings, orders: &mut Orders) -> Result<bool> {
    loop {
        emit(&json!({ "event": "ready" }));
        let Some(order) = orders.next().await? else {
            return Ok(false);
        };
        let ordered = |what: &str| order[what] == true;
        if ordered("end") || ordered("reopen") {
            return Ok(ordered("reopen"));
        }
        if !ordered("call") {
            bail!("expected an order to call, to reopen or to end");
        }
        try_join_all(sessions.iter().map(|session| session.call_all(settings))).await?;
    }
}

/// The SDK signs in; the browser is whoever reads the `authorize` event.
async fn sign_in(settings: &Settings, orders: &mut Orders) -> Result<AuthClient<reqwest::Client>> {
    let mut oauth = OAuthState::new(settings.url.as_str(), None).await?;
    let mut request = AuthorizationRequest::new(settings.redirect_uri.as_str()).with_client_name(NAME);
    if let Some(url) = &settings.client_metadata_url {
        request = request.with_client_metadata_url(url);
    }
    oauth.start_authorization(request).await?;
    emit(&json!({ "event": "authorize", "url": oauth.get_authorization_url().await? }));
    let order = orders.next().await?;
    let order = order.context("stdin was closed while a sign-in was under way")?;
    let redirect = order["redirect"]
        .as_str()
        .context("an authorize event is answered by a line with a redirect")?;
    oauth.handle_callback_url(redirect).await?;
    let manager = oauth.into_authorization_manager().context("the sign-in is over")?;
    Ok(AuthClient::new(reqwest::Client::new(), manager))
}
