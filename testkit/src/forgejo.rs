//! A fake Forgejo: its OAuth2 provider, and as much of its API as a broker and its children use.
//!
//! It is a real HTTP server on loopback that behaves as Forgejo 15 does, oddities included, because it is the oddities
//! that break brokers: the error codes of the token endpoint, the one counter per grant that kills all earlier refresh
//! tokens, the grant whose scope is fixed at the first consent, the empty scope that means everything. Faults, lifetimes
//! and the clock can be turned while it runs, and it counts what it is asked.
//!
//! There are two demo users, `alice` and `bob`, with the passwords `alice-password` and `bob-password`, and one confidential
//! application. Left out: everything that neither signs a user in nor tells who a user is.

mod api;
mod authorize;
mod controls;
mod counters;
mod exchange;
mod faults;
mod oidc;
mod pages;
mod redirects;
mod router;
mod scopes;
mod signin;
mod state;
mod tokens;
mod wire;

use std::{fmt, io, sync::Arc, time::Duration};

pub use self::{
    counters::Counters,
    faults::{Fault, Times},
};
use self::{
    router::Shared,
    state::{Settings, State},
};
use crate::serve::HttpServer;

/// How a fake Forgejo starts.
#[derive(Debug, Clone)]
pub struct Options {
    /// The port on 127.0.0.1; 0 chooses a free one.
    pub port: u16,
    /// The redirect URIs of the default application.
    pub redirect_uris: Vec<String>,
    /// Life of an access token, in whole seconds (1 h).
    pub access_lifetime: Duration,
    /// Life of a refresh token, in whole seconds (730 h).
    pub refresh_lifetime: Duration,
    /// Whether refresh tokens are single-use (true).
    pub invalidate_refresh_tokens: bool,
    /// Whether the message about a bad token repeats the token (true).
    pub echo_tokens: bool,
    /// What `/api/v1/version` says.
    pub version: String,
}

/// An application that was registered.
#[derive(Clone, PartialEq, Eq)]
pub struct Registered {
    /// Its client id.
    pub client_id: String,
    /// Its client secret.
    pub client_secret: String,
}

/// A running fake Forgejo. Dropping it ends the server.
pub struct FakeForgejo {
    server: HttpServer,
    shared: Arc<Shared>,
    url: String,
    application: Registered,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            port: 0,
            redirect_uris: Vec::new(),
            access_lifetime: Duration::from_secs(3600),
            refresh_lifetime: Duration::from_secs(730 * 3600),
            invalidate_refresh_tokens: true,
            echo_tokens: true,
            version: "15.0.0+gitea-1.22.0".to_owned(),
        }
    }
}

impl Options {
    /// The defaults, with one redirect URI for the default application.
    pub fn for_redirect(redirect_uri: &str) -> Self {
        Self {
            redirect_uris: vec![redirect_uri.to_owned()],
            ..Self::default()
        }
    }
}

impl FakeForgejo {
    /// Starts the server.
    ///
    /// # Errors
    ///
    /// When the port cannot be bound.
    pub async fn start(options: Options) -> io::Result<Self> {
        let settings = Settings {
            version: options.version,
            access_lifetime: options.access_lifetime,
            told_lifetime: None,
            refresh_lifetime: options.refresh_lifetime,
            invalidate_refresh_tokens: options.invalidate_refresh_tokens,
            echo_tokens: options.echo_tokens,
            token_window: Duration::ZERO,
            clock_skew: 0,
        };
        let mut state = State::new(String::new(), settings);
        state.add_user("alice", "Alice Example", "alice-password");
        state.add_user("bob", "Bob Example", "bob-password");
        let application = state.add_application("forgejo-mcp-broker", &options.redirect_uris, true);
        let shared = Shared::new(state);
        let for_server = Arc::clone(&shared);
        let handler = Arc::new(move |request| {
            let shared = Arc::clone(&for_server);
            Box::pin(async move { shared.serve(request).await }) as crate::serve::Answer
        });
        let server = HttpServer::start(options.port, handler).await?;
        let url = format!("http://{}", server.address());
        shared.state().base_url.clone_from(&url);
        let application = Registered {
            client_id: application.client_id,
            client_secret: application.secret,
        };
        Ok(Self {
            server,
            shared,
            url,
            application,
        })
    }

    /// The instance's URL, without a trailing slash.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The client id of the default application.
    pub fn client_id(&self) -> &str {
        &self.application.client_id
    }

    /// The client secret of the default application.
    pub fn client_secret(&self) -> &str {
        &self.application.client_secret
    }

    /// Ends the server; returns when its port is free and its tasks have ended.
    ///
    /// # Panics
    ///
    /// When a task of the server panicked: with the same panic.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}

impl fmt::Debug for FakeForgejo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeForgejo")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registered")
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}
