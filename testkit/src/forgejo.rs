//! A fake Forgejo: its OAuth2 provider, and as much of its API as a broker and its children use.
//!
//! It is an HTTP server on loopback that behaves as Forgejo 15 does. It keeps the oddities, because
//! oddities break brokers: the error codes of the token endpoint, the one counter per grant that
//! invalidates all earlier refresh tokens, the grant whose scope is fixed at the first consent, and
//! the empty scope that allows everything. A test can change faults, lifetimes and the clock while
//! it runs, and read its counters.
//!
//! There are two demo users, `alice` and `bob`, with the passwords `alice-password` and
//! `bob-password`, and one confidential application. Left out: everything that neither signs a user
//! in nor says who a user is.

mod api;
mod authorize;
mod controls;
mod exchange;
mod faults;
mod instance;
mod introspection;
mod pages;
mod redirects;
mod router;
mod saved_state;
mod scopes;
mod shared;
mod sign_in;
mod tokens;
mod wire;

use std::{fmt, io, sync::Arc};

pub use self::{
    controls::Counters,
    faults::{Fault, Times},
    saved_state::SavedState,
};
use self::{
    instance::{Application, Instance},
    shared::Shared,
};
use crate::http_server::HttpServer;

#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The port on 127.0.0.1; 0 chooses a free one.
    pub port: u16,
    pub redirect_uris: Vec<String>,
}

pub struct Registered {
    pub client_id: String,
    pub client_secret: String,
}

/// A running fake Forgejo. Dropping it ends the server.
pub struct FakeForgejo {
    server: HttpServer,
    shared: Arc<Shared>,
    url: String,
    application: Registered,
}

impl Options {
    pub fn for_redirect(redirect_uri: &str) -> Self {
        Self {
            redirect_uris: vec![redirect_uri.to_owned()],
            ..Self::default()
        }
    }
}

impl FakeForgejo {
    pub async fn start(options: Options) -> io::Result<Self> {
        let mut instance = Instance::default();
        instance.add_user("alice", "Alice Example", "alice-password");
        instance.add_user("bob", "Bob Example", "bob-password");
        let application = instance.add_application("forgejo-mcp-broker", &options.redirect_uris, true);
        let shared = Shared::new(instance);
        let server = HttpServer::start(options.port, router::router(&shared)).await?;
        let url = format!("http://{}", server.address());
        shared.instance().base_url.clone_from(&url);
        Ok(Self {
            server,
            shared,
            url,
            application: application.into(),
        })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn client_id(&self) -> &str {
        &self.application.client_id
    }

    pub fn client_secret(&self) -> &str {
        &self.application.client_secret
    }

    /// Stops the server; returns when its port is free and its tasks have ended. Passes on a panic
    /// of one of them.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}

impl From<Application> for Registered {
    fn from(application: Application) -> Self {
        Self {
            client_id: application.client_id,
            client_secret: application.secret,
        }
    }
}

/// Without the secret of the default application.
impl fmt::Debug for FakeForgejo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeForgejo")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}
