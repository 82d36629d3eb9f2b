//! The authorization server: its endpoints, and the guard for the protected resource.
//!
//! [`AuthorizationServer::serve`] answers every path under `/oauth/` and `/.well-known/`.
//! `endpoint` maps paths to endpoints, and each endpoint has a module below.

mod approvals;
mod authorization_response;
mod authorize;
mod blocked_clients;
mod browser_session;
mod callback;
mod client_auth;
mod client_lookup;
mod connections;
mod cookie;
mod csrf;
mod endpoint;
mod guard;
mod metadata;
mod oauth_error;
mod pages;
mod params;
mod rate_limits;
mod register;
mod resource;
mod response;
mod revoke;
mod scope;
mod sign_in;
mod signed_user;
mod state;
mod token;
mod unix_time;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use tokio_util::task::TaskTracker;

use crate::{
    access_token_cache::AccessTokenCache,
    access_tokens::AccessTokens,
    account::{Accounts, KeyCheckError},
    allowed_users::AllowedUsers,
    cimd::ClientDocuments,
    code_exchanges::CodeExchanges,
    config::{Config, ConfigError, ConfigErrors},
    fetch::Fetch,
    ports::{Clock, GrantEvents, GrantStore, Store, StoreError, Upstream},
    revocation::Revocations,
    seal::Sealer,
};
use authorize::AuthorizeError;
use endpoint::Endpoint;
use oauth_error::OAuthError;
use pages::ErrorPage;
use rate_limits::RateLimits;
use state::ServerState;

pub use guard::Caller;

/// An error while a response body is produced.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a response.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// The authorization server and the guard. Clones are the same server.
#[derive(Clone, Debug)]
pub struct AuthorizationServer {
    state: Arc<ServerState>,
}

/// The longest body of a request, in bytes.
const MAX_BODY: usize = 64 * 1024;

impl AuthorizationServer {
    /// A server on a store and an upstream, neither of which is asked yet. `fetch` reads the
    /// metadata documents of clients; without it, no client can be described by a document.
    ///
    /// # Errors
    ///
    /// All errors of the configuration at once.
    pub fn new(
        config: Config,
        store: Arc<dyn Store>,
        sealer: Sealer,
        upstream: Arc<dyn Upstream>,
        clock: Arc<dyn Clock>,
        events: Arc<dyn GrantEvents>,
        fetch: Option<Arc<dyn Fetch>>,
    ) -> Result<Self, ConfigErrors> {
        let settings = Arc::new(config.into_settings()?);
        if !settings.config.allowed_orgs.is_empty() && !upstream.reads_organizations() {
            return Err(ConfigErrors(vec![ConfigError::new(
                "forgejo.allowed_orgs",
                "needs \"read:organization\" in forgejo.scopes to read memberships",
            )]));
        }
        let tasks = TaskTracker::new();
        let cache = Arc::<AccessTokenCache>::default();
        let revocations = Revocations::new(
            Arc::<dyn Store>::clone(&store),
            Arc::clone(&cache),
            Arc::clone(&events),
            tasks.clone(),
        );
        let accounts = Accounts::new(
            &store,
            Arc::clone(&settings),
            revocations.clone(),
            sealer.clone(),
            Arc::clone(&upstream),
            Arc::clone(&clock),
            tasks.clone(),
        );
        let code_exchanges = CodeExchanges::new(
            &store,
            revocations.clone(),
            sealer.clone(),
            Arc::clone(&upstream),
            Arc::clone(&clock),
        );
        let grants: Arc<dyn GrantStore> = Arc::<dyn Store>::clone(&store);
        let state = ServerState {
            clients: Arc::<dyn Store>::clone(&store),
            grants: Arc::clone(&grants),
            store,
            access_tokens: AccessTokens::new(grants, cache, revocations.clone()),
            revocations,
            accounts: Arc::new(accounts),
            code_exchanges,
            documents: fetch.map(|fetch| ClientDocuments::new(fetch, Arc::clone(&clock))),
            rate_limits: RateLimits::new(&settings.config, Arc::clone(&clock)),
            allowed_users: AllowedUsers::new(Arc::clone(&settings), Arc::clone(&upstream)),
            settings,
            sealer,
            upstream,
            clock,
            events,
            tasks,
        };
        Ok(Self { state: Arc::new(state) })
    }

    /// Serves a request under `/oauth/` or `/.well-known/`, with 404 for a path without an
    /// endpoint.
    ///
    /// Dropping the future does not stop a sign-in or a renewal that has begun.
    pub async fn serve(&self, request: Request<Bytes>) -> Response<Body> {
        let Some(endpoint) = Endpoint::of_path(request.uri().path(), &self.state.settings.prefix) else {
            return response::plain(StatusCode::NOT_FOUND, "There is nothing here.\n");
        };
        let cross_origin = endpoint.is_cross_origin();
        let method = request.method();
        let allowed = endpoint.methods();
        let mut response = if cross_origin && method == Method::OPTIONS {
            response::preflight(allowed)
        } else if !allowed.split(", ").any(|name| name == method.as_str()) {
            let response = response::plain(StatusCode::METHOD_NOT_ALLOWED, "This method is not allowed here.\n");
            response::with_header(response, header::ALLOW, HeaderValue::from_static(allowed))
        } else if request.body().len() > MAX_BODY {
            response::plain(StatusCode::PAYLOAD_TOO_LARGE, "The body is too long.\n")
        } else {
            self.dispatch(endpoint, &request).await
        };
        if cross_origin {
            // Clients in browsers call these from any origin, and none of these endpoints uses
            // cookies.
            let headers = response.headers_mut();
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            headers.insert(
                header::ACCESS_CONTROL_EXPOSE_HEADERS,
                HeaderValue::from_static("www-authenticate, retry-after"),
            );
        }
        response
    }

    async fn dispatch(&self, endpoint: Endpoint, request: &Request<Bytes>) -> Response<Body> {
        let state = &self.state;
        let is_post = request.method() == Method::POST;
        let json = OAuthError::into_response;
        let page = ErrorPage::into_response;
        let refused = AuthorizeError::into_response;
        match endpoint {
            Endpoint::ResourceMetadata => metadata::resource(&state.settings),
            Endpoint::ServerMetadata => metadata::server(&state.settings, state.allows_documents()),
            Endpoint::Register => register::register(state, request).await.unwrap_or_else(json),
            Endpoint::Registration => register::manage(state, request).await.unwrap_or_else(json),
            Endpoint::Authorize if is_post => authorize::decide(state, request).await.unwrap_or_else(refused),
            Endpoint::Authorize => authorize::show(state, request).await.unwrap_or_else(refused),
            Endpoint::Callback => callback::callback(state, request).await.unwrap_or_else(page),
            Endpoint::Connections if is_post => connections::act(state, request).await.unwrap_or_else(page),
            Endpoint::Connections => connections::show(state, request).await,
            Endpoint::Token => token::token(state, request).await.unwrap_or_else(json),
            Endpoint::Revoke => revoke::revoke(state, request).await.unwrap_or_else(json),
        }
    }

    /// Identifies the sender of a request to the protected resource by its access token (RFC 6750
    /// section 2.1).
    ///
    /// # Errors
    ///
    /// A ready response: 401 with `WWW-Authenticate`, or 503 if the store does not answer.
    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, Response<Body>> {
        guard::authenticate(&self.state, headers).await
    }

    /// The `WWW-Authenticate` header for a caller that passed the guard and then lost the account
    /// behind the token (RFC 6750 section 3, RFC 9728 section 5.1). `None` only if `public_url` is
    /// not a valid header value.
    #[must_use]
    pub fn challenge(&self) -> Option<HeaderValue> {
        guard::AuthenticateError::InvalidToken.challenge(&self.state.settings)
    }

    /// Checks that the store answers.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn probe(&self) -> Result<(), StoreError> {
        self.state.store.probe().await
    }

    /// Deletes expired records. The program calls it now and then.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn purge_expired(&self) -> Result<(), StoreError> {
        self.state.store.purge(self.state.clock.now()).await
    }

    /// Reads which grants other processes on the store have ended since the last call, and notifies
    /// the [`GrantEvents`]. The program calls it about every second; sessions on such a grant end
    /// that much later.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn poll_revocations(&self) -> Result<(), StoreError> {
        self.state.revocations.poll().await
    }

    /// Stores when grants were last used. The program calls it about every minute, and before it
    /// exits.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn record_uses(&self) -> Result<(), StoreError> {
        self.state.access_tokens.record_uses().await
    }

    /// Checks that the keys are those of the database. The program calls it at its start, before it
    /// listens.
    ///
    /// # Errors
    ///
    /// Any [`KeyCheckError`].
    pub async fn check_keys(&self) -> Result<(), KeyCheckError> {
        self.state.accounts.check_keys().await
    }

    /// Seals the upstream tokens with the newest key that older keys have sealed, and returns the
    /// number of accounts. The program calls it once at start; afterwards no token needs the older
    /// keys.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn reseal_accounts(&self) -> Result<usize, StoreError> {
        self.state.accounts.reseal().await
    }

    /// Ends the grants of clients that the configuration blocks, and returns their number. The
    /// program calls it once at start.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn end_blocked_clients(&self) -> Result<usize, StoreError> {
        blocked_clients::end_grants(&self.state).await
    }

    /// Waits for the sign-ins and renewals under way, each of which ends within the timeouts of the
    /// upstream. The program calls it once no more requests come, before it closes the store.
    pub async fn finish_sign_ins(&self) {
        self.state.tasks.close();
        self.state.tasks.wait().await;
    }
}
