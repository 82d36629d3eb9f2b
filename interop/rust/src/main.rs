//! A client on the official Rust SDK, driven by a test with one JSON object a line.
//!
//! The course of a run, the settings and the events are those of the other clients; `../README.md`
//! describes them. The SDK does discovery, registration, PKCE, code exchange and refresh. All
//! sessions share one sign-in. Cargo builds the client as a program of `testkit`.
#![expect(deprecated, reason = "the next revision of MCP deprecates features of this one")]
#![expect(clippy::print_stdout, reason = "the events of the protocol")]
#![expect(
    clippy::needless_pass_by_value,
    reason = "callers pass values that they have just made"
)]

mod feature_checks;
mod host;
mod session;
mod settings;
mod sustained_calls;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use futures_util::future::try_join_all;
use host::Host;
use rmcp::transport::auth::{AuthClient, AuthorizationRequest, OAuthState};
use serde_json::{Value, json};
use session::Session;
use settings::{Commands, Settings};

const NAME: &str = "interop-rust";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // reqwest requires TLS, which this client never uses.
    let _ = rustls::crypto::ring::default_provider().install_default();
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
    let commands = Commands::new();
    let http = sign_in(&settings, &commands).await?;
    if let Some(prefix) = &settings.sustained_calls {
        return sustained_calls::run(http, prefix, &settings, &commands).await;
    }
    let open = |number| {
        let questions = settings.questions.then(|| commands.clone());
        Session::open(number, Host::new(number, questions), http.clone(), &settings)
    };
    // The first session opens alone, so that the order of events is that of the other clients.
    let mut sessions = vec![open(0).await?];
    sessions.extend(try_join_all((1..settings.sessions).map(open)).await?);
    try_join_all(sessions.iter().map(Session::list_tools)).await?;
    try_join_all(sessions.iter().map(|session| session.round(&settings))).await?;
    if settings.interactive {
        repeat_on_command(&sessions, &settings, &commands).await?;
    }
    try_join_all(sessions.into_iter().map(Session::close)).await?;
    Ok(())
}

/// Repeats the calls or the checks once per command, until the command to end or the end of the
/// input.
async fn repeat_on_command(sessions: &[Session], settings: &Settings, commands: &Commands) -> Result<()> {
    loop {
        emit(&json!({ "event": "ready" }));
        let Some(command) = commands.next().await? else {
            return Ok(());
        };
        if command["end"] == true {
            return Ok(());
        }
        if command["call"] != true {
            bail!("expected a command to call or to end");
        }
        try_join_all(sessions.iter().map(|session| session.round(settings))).await?;
    }
}

/// Signs in with the SDK. The reader of the `authorize` event plays the browser.
async fn sign_in(settings: &Settings, commands: &Commands) -> Result<AuthClient<reqwest::Client>> {
    let mut oauth = OAuthState::new(settings.url.as_str(), None).await?;
    let mut request = AuthorizationRequest::new(settings.redirect_uri.as_str()).with_client_name(NAME);
    if let Some(url) = &settings.client_metadata_url {
        request = request.with_client_metadata_url(url);
    }
    oauth.start_authorization(request).await?;
    emit(&json!({ "event": "authorize", "url": oauth.get_authorization_url().await? }));
    let command = commands.next().await?;
    let command = command.context("stdin was closed during a sign-in")?;
    let redirect = command["redirect"]
        .as_str()
        .context("expected a redirect command after an authorize event")?;
    oauth.handle_callback_url(redirect).await?;
    let manager = oauth
        .into_authorization_manager()
        .context("the sign-in is not complete")?;
    Ok(AuthClient::new(reqwest::Client::new(), manager))
}
