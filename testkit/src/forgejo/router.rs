//! The routes, and the counters and faults that each request passes first.

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{Next, from_fn_with_state},
    response::Response,
    routing::{get, post},
};
use http::StatusCode;
use tokio::time::sleep;

use super::{api, authorize, exchange, faults::Fault, introspection, shared::Shared, sign_in, wire};

const BODY_LIMIT: usize = 1 << 20;

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
        .route("/login/oauth/introspect", post(introspection::introspect))
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
    let mut replaced = None;
    for fault in plan {
        match fault {
            Fault::Delay(delay) => sleep(delay).await,
            Fault::Status(status) => replaced = Some(status),
        }
    }
    let response = match replaced {
        Some(status) => wire::text(status, "the test injected this fault"),
        None => next.run(request).await,
    };
    shared.changed.notify_waiters();
    response
}
