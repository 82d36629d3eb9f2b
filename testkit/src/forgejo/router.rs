//! The routes, and the counters and faults that each request passes first.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use http::StatusCode;
use tokio::{sync::Notify, time::sleep};

use super::{
    api, authorize, exchange,
    instance::{Instance, seconds},
    oidc, sign_in, wire,
};
use crate::http_server::NoAnswer;

/// The largest request body, in bytes.
const BODY_LIMIT: usize = 1 << 20;

/// The state of the handle and the server.
pub(super) struct Shared {
    /// Each endpoint keeps the instance consistent at every point that could panic, so a poisoned lock is used on: the
    /// panic surfaces when the server stops. Never held across an await.
    instance: Mutex<Instance>,
    /// Notified when a request arrives, and again when it took effect.
    pub(super) changed: Notify,
}

impl Shared {
    pub(super) fn new(instance: Instance) -> Arc<Self> {
        Arc::new(Self {
            instance: Mutex::new(instance),
            changed: Notify::new(),
        })
    }

    pub(super) fn instance(&self) -> MutexGuard<'_, Instance> {
        self.instance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time of this server's clock, in seconds since the epoch.
    pub(super) fn now(&self) -> i64 {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the double's own clock, read here only and passed on as an argument"
        )]
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        seconds(elapsed).saturating_add(self.instance().clock_skew)
    }
}

pub(super) fn router(shared: &Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(sign_in::home))
        .route("/user/login", get(sign_in::login).post(sign_in::submit))
        .route(
            "/login/oauth/authorize",
            get(authorize::authorize).post(authorize::authorize),
        )
        .route("/login/oauth/grant", post(authorize::grant))
        .route("/login/oauth/access_token", post(exchange::access_token))
        .route("/login/oauth/userinfo", get(oidc::userinfo).post(oidc::userinfo))
        .route("/login/oauth/introspect", post(oidc::introspect))
        .route("/login/oauth/keys", get(oidc::keys))
        .route("/.well-known/openid-configuration", get(oidc::discovery))
        .nest("/api/v1", api::router())
        .fallback(async || wire::text(StatusCode::NOT_FOUND, "Not found."))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(from_fn_with_state(Arc::clone(shared), with_faults))
        .with_state(Arc::clone(shared))
}

async fn with_faults(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let plan = {
        let (path, mut instance) = (request.uri().path(), shared.instance());
        *instance.counters.requests.entry(path.to_owned()).or_default() += 1;
        instance.faults.plan(path)
    };
    shared.changed.notify_waiters();
    if let Some(delay) = plan.delay {
        sleep(delay).await;
    }
    let no_answer = || axum::Extension(NoAnswer).into_response();
    let response = if plan.drop_before {
        no_answer()
    } else if let Some(status) = plan.status {
        wire::text(status, "the test injected this fault")
    } else {
        next.run(request).await
    };
    shared.changed.notify_waiters();
    if plan.drop_after { no_answer() } else { response }
}
