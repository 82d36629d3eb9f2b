//! The authorization server: its endpoints, and the guard for the protected resource.
//!
//! [`AuthorizationServer::serve`] answers every path under `/oauth/` and `/.well-known/`; the modules below hold one
//! endpoint each. Paths are taken with and without the prefix of `public_url`, since a proxy may strip it or not.

mod approvals;
mod authorize;
mod callback;
mod client_auth;
mod client_lookup;
mod connections;
mod cookie;
mod guard;
mod metadata;
mod pages;
mod params;
mod rate_limits;
mod register;
mod response;
mod revoke;
mod same_origin;
mod scope;
mod sign_in;
mod token;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use tokio_util::task::TaskTracker;

use crate::{
    access_token_cache::AccessTokenCache,
    access_tokens::AccessTokens,
    account::Accounts,
    cimd::ClientDocuments,
    code_exchanges::CodeExchanges,
    config::{Config, ConfigError, ConfigErrors, Settings},
    fetch::Fetch,
    ports::{ClientStore, Clock, GrantEvents, GrantStore, MaintenanceStore, Store, StoreError, Upstream},
    revocation::Revocations,
    seal::Sealer,
};

use rate_limits::RateLimits;

pub use guard::Caller;

/// What may go wrong while a response body is produced.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a response.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// The authorization server and the guard. Clones are the same server.
#[derive(Clone, Debug)]
pub struct AuthorizationServer {
    inner: Arc<ServerState>,
}

/// What the endpoints share.
#[derive(Debug)]
struct ServerState {
    settings: Settings,
    clients: Arc<dyn ClientStore>,
    grants: Arc<dyn GrantStore>,
    maintenance: Arc<dyn MaintenanceStore>,
    revocations: Revocations,
    access_tokens: AccessTokens,
    accounts: Arc<Accounts>,
    code_exchanges: CodeExchanges,
    sealer: Sealer,
    upstream: Arc<dyn Upstream>,
    clock: Arc<dyn Clock>,
    events: Arc<dyn GrantEvents>,
    /// Owns sign-ins, renewals and revocations, which run to their end even if the request is dropped.
    tasks: TaskTracker,
    /// Where clients that are described by documents are found. `None`: there are no such clients.
    documents: Option<ClientDocuments>,
    rate_limits: RateLimits,
}

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    ResourceMetadata,
    ServerMetadata,
    Register,
    Registration,
    Authorize,
    Callback,
    Connections,
    Token,
    Revoke,
}

/// The longest body of a request, in bytes.
const MAX_BODY: usize = 64 * 1024;

impl AuthorizationServer {
    /// A server on a store and an upstream. Nothing is asked yet. `fetch` reads the documents of clients; without it, there
    /// are no clients that are described by documents.
    ///
    /// # Errors
    ///
    /// All faults of the configuration at once.
    pub fn new(
        config: Config,
        store: Arc<dyn Store>,
        sealer: Sealer,
        upstream: Arc<dyn Upstream>,
        clock: Arc<dyn Clock>,
        events: Arc<dyn GrantEvents>,
        fetch: Option<Arc<dyn Fetch>>,
    ) -> Result<Self, ConfigErrors> {
        let settings = config.into_settings()?;
        if !settings.allowed_orgs.is_empty() && !upstream.sees_organizations() {
            return Err(ConfigErrors(vec![ConfigError {
                key: "forgejo.allowed_orgs",
                fault: "needs \"read:organization\" in forgejo.scopes to see who is a member".to_owned(),
            }]));
        }
        let tasks = TaskTracker::new();
        let documents = fetch.map(|fetch| ClientDocuments::new(fetch, Arc::clone(&clock)));
        let rate_limits = RateLimits::new(&settings);
        let cache = Arc::<AccessTokenCache>::default();
        let revocations = Revocations::new(
            Arc::<dyn Store>::clone(&store),
            Arc::clone(&cache),
            Arc::clone(&events),
            tasks.clone(),
        );
        let accounts = Accounts::new(
            &store,
            revocations.clone(),
            sealer.clone(),
            Arc::clone(&upstream),
            Arc::clone(&clock),
            tasks.clone(),
            settings.refresh_lead,
        );
        let code_exchanges = CodeExchanges::new(
            &store,
            revocations.clone(),
            sealer.clone(),
            Arc::clone(&upstream),
            Arc::clone(&clock),
        );
        let grants: Arc<dyn GrantStore> = Arc::<dyn Store>::clone(&store);
        Ok(Self {
            inner: Arc::new(ServerState {
                settings,
                clients: Arc::<dyn Store>::clone(&store),
                grants: Arc::clone(&grants),
                maintenance: store,
                access_tokens: AccessTokens::new(grants, cache, revocations.clone()),
                revocations,
                accounts: Arc::new(accounts),
                code_exchanges,
                sealer,
                upstream,
                clock,
                events,
                tasks,
                documents,
                rate_limits,
            }),
        })
    }

    /// Serves one request under `/oauth/` or `/.well-known/`, with 404 for a path that is not its own.
    ///
    /// Dropping the future leaves a sign-in or a renewal that has begun to its end.
    pub async fn serve(&self, request: Request<Bytes>) -> Response<Body> {
        let inner = &self.inner;
        let Some(endpoint) = inner.route(request.uri().path()) else {
            return response::plain(StatusCode::NOT_FOUND, "There is nothing here.\n");
        };
        let cross_origin = endpoint.is_for_programs();
        let method = request.method();
        let allowed = endpoint.methods();
        let mut response = if cross_origin && method == Method::OPTIONS {
            response::preflight(allowed)
        } else if !allowed.split(", ").any(|name| name == method.as_str()) {
            let mut response = response::plain(StatusCode::METHOD_NOT_ALLOWED, "This method is not for this path.\n");
            response
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static(allowed));
            response
        } else if request.body().len() > MAX_BODY {
            response::plain(StatusCode::PAYLOAD_TOO_LARGE, "The body is too long.\n")
        } else {
            inner.dispatch(endpoint, &request).await
        };
        if cross_origin {
            // Clients in browsers call these from anywhere. Nothing here goes by cookies, so any origin will do.
            let headers = response.headers_mut();
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            headers.insert(
                header::ACCESS_CONTROL_EXPOSE_HEADERS,
                HeaderValue::from_static("www-authenticate, retry-after"),
            );
        }
        response
    }

    /// Finds out who sends a request to the protected resource, by its bearer (RFC 6750 section 2.1).
    ///
    /// # Errors
    ///
    /// A ready answer: 401 with `WWW-Authenticate`, or 503 when the store cannot be asked.
    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, Response<Body>> {
        guard::authenticate(&self.inner, headers).await
    }

    /// The `WWW-Authenticate` for a caller who got past the guard and then lost the account behind the bearer (RFC 6750
    /// section 3, RFC 9728 section 5.1). `None` only if `public_url` cannot stand in a header.
    #[must_use]
    pub fn challenge(&self) -> Option<HeaderValue> {
        guard::challenge(&self.inner)
    }

    /// Whether the store answers.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn probe(&self) -> Result<(), StoreError> {
        self.inner.maintenance.probe().await
    }

    /// Forgets what has expired. To be called from time to time.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn purge_expired(&self) -> Result<(), StoreError> {
        self.inner.maintenance.purge(self.inner.clock.now()).await
    }

    /// Hears which grants other processes on the store have ended since the last call, and tells the
    /// [`GrantEvents`] of them. To be called every second or so: what runs on such a grant ends that much later.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn poll_revocations(&self) -> Result<(), StoreError> {
        self.inner.revocations.poll().await
    }

    /// Writes down when grants were last used. To be called every minute or so, and before the end.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn record_uses(&self) -> Result<(), StoreError> {
        self.inner.access_tokens.record_uses().await
    }

    /// Seals anew the upstream tokens that older keys have sealed, and says how many accounts that were. To be called
    /// once at start: from then on the older keys open nothing that is needed.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn reseal_accounts(&self) -> Result<usize, StoreError> {
        self.inner.accounts.reseal().await
    }

    /// Waits until sign-ins and renewals under way have ended: each is at its end within the time limits of the
    /// upstream. To be called when no more requests come, before the store is closed.
    pub async fn drain(&self) {
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

impl ServerState {
    fn route(&self, path: &str) -> Option<Endpoint> {
        let prefix = self.settings.prefix.as_str();
        let local = path
            .strip_prefix(prefix)
            .filter(|rest| rest.starts_with('/'))
            .unwrap_or(path);
        match local {
            "/oauth/register" => Some(Endpoint::Register),
            "/oauth/authorize" => Some(Endpoint::Authorize),
            "/oauth/callback" => Some(Endpoint::Callback),
            "/oauth/connections" => Some(Endpoint::Connections),
            "/oauth/token" => Some(Endpoint::Token),
            "/oauth/revoke" => Some(Endpoint::Revoke),
            _ if local
                .strip_prefix("/oauth/register/")
                .is_some_and(|id| !id.is_empty() && !id.contains('/')) =>
            {
                Some(Endpoint::Registration)
            }
            _ => self.route_metadata(local.strip_prefix("/.well-known/")?),
        }
    }

    /// What a well-known path leads to. Its suffix names the issuer or the resource (RFC 8414 section 3.1, RFC 9728
    /// section 3.1). Some clients look for the server's metadata under the resource's path.
    fn route_metadata(&self, path: &str) -> Option<Endpoint> {
        let (document, suffix) = path.split_at(path.find('/').unwrap_or(path.len()));
        let prefix = self.settings.prefix.as_str();
        if ![prefix, "", "/mcp"].contains(&suffix) && suffix.strip_suffix("/mcp") != Some(prefix) {
            return None;
        }
        match document {
            "oauth-protected-resource" => Some(Endpoint::ResourceMetadata),
            "oauth-authorization-server" | "openid-configuration" => Some(Endpoint::ServerMetadata),
            _ => None,
        }
    }

    async fn dispatch(self: &Arc<Self>, endpoint: Endpoint, request: &Request<Bytes>) -> Response<Body> {
        match endpoint {
            Endpoint::ResourceMetadata => metadata::resource(&self.settings),
            Endpoint::ServerMetadata => metadata::server(&self.settings, self.reads_documents()),
            Endpoint::Register => register::register(self, request).await,
            Endpoint::Registration => register::manage(self, request).await,
            Endpoint::Authorize if request.method() == Method::POST => authorize::decide(self, request).await,
            Endpoint::Authorize => authorize::ask(self, request).await,
            Endpoint::Callback => callback::callback(self, request).await,
            Endpoint::Connections if request.method() == Method::POST => connections::act(self, request).await,
            Endpoint::Connections => connections::show(self, request).await,
            Endpoint::Token => token::token(self, request).await,
            Endpoint::Revoke => revoke::revoke(self, request).await,
        }
    }

    /// Whether a user whose login was once allowed is still so, as far as the configuration alone tells.
    fn still_allowed(&self, login: &str) -> bool {
        let settings = &self.settings;
        settings.allowed_users.is_empty() || !settings.allowed_orgs.is_empty() || self.is_listed(login)
    }

    /// Whether a login is on the list. Forgejo's logins differ in more than case.
    fn is_listed(&self, login: &str) -> bool {
        self.settings
            .allowed_users
            .iter()
            .any(|listed| listed.eq_ignore_ascii_case(login))
    }

    /// Whether `resource` names the protected resource (RFC 8707 section 2): absent, exact, or with one slash more.
    fn is_resource(&self, resource: Option<&str>) -> bool {
        resource.is_none_or(|resource| resource.strip_suffix('/').unwrap_or(resource) == self.settings.resource)
    }

    /// Where users see their connections.
    fn connections_uri(&self) -> String {
        format!("{}/oauth/connections", self.settings.issuer)
    }

    /// Where Forgejo sends the browser back to.
    fn callback_uri(&self) -> String {
        format!("{}/oauth/callback", self.settings.issuer)
    }
}

impl Endpoint {
    /// Whether programs call it, from pages of other origins too, and not the user's browser by itself.
    fn is_for_programs(self) -> bool {
        match self {
            Self::Authorize | Self::Callback | Self::Connections => false,
            Self::ResourceMetadata
            | Self::ServerMetadata
            | Self::Register
            | Self::Registration
            | Self::Token
            | Self::Revoke => true,
        }
    }

    fn methods(self) -> &'static str {
        match self {
            Self::ResourceMetadata | Self::ServerMetadata => "GET, HEAD",
            // Not HEAD: it spends the state.
            Self::Callback => "GET",
            Self::Authorize | Self::Connections => "GET, HEAD, POST",
            Self::Registration => "GET, PUT, DELETE",
            Self::Register | Self::Token | Self::Revoke => "POST",
        }
    }
}
