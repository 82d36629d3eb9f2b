//! Handling one request, from its parsed head to the end of its response.
//!
//! Each request runs as its own task, so a panic ends only that request, with 500. The task ends
//! with the connection: hyper then drops the handler.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::Instant;
use tokio_util::task::{AbortOnDropHandle, task_tracker::TaskTrackerToken};
use tracing::Span;

use crate::{
    app_state::AppState,
    cors, health,
    http_error::HttpError,
    mcp, metrics,
    ports::{CompletedRequest, McpAnswer, ResponseBody},
    request_body,
    response::without_body,
    route::{self, Route},
};

/// Maximum characters of a path or of a method in the log.
const MAX_LOGGED_CHARACTERS: usize = 256;

/// Handles a request. Holds `guard` until the response body has been sent, and so `unfinished`, for
/// which a drain waits, unless the response is a stream that only listens. A connection of the
/// reserve serves only health checks.
pub(crate) async fn handle<G: Send + 'static>(
    state: Arc<AppState>,
    request: Request<Incoming>,
    reserved: bool,
    guard: G,
    unfinished: TaskTrackerToken,
) -> Response<ResponseBody> {
    let started = Instant::now();
    let method = request.method().clone();
    let version = request.version();
    let path = request.uri().path().to_owned();
    let (route, inner) = Route::of(&path, state.config.public_url.prefix());
    let target = route::with_path(request.uri(), inner);
    let listens = route == Route::Mcp && method == Method::GET;
    let unfinished = (!listens).then_some(unfinished);

    // Dropping the handle aborts the task, so that it does not outlive the connection.
    let task = state
        .tasks
        .spawn(respond(Arc::clone(&state), route, target, reserved, request));
    let McpAnswer { mut response, span } = AbortOnDropHandle::new(task).await.unwrap_or_else(|error| {
        // The panic hook has logged the place; this logs the consequence.
        tracing::error!(%error, "request handler panicked");
        error_response(HttpError::Panicked, route).into()
    });

    let headers = response.headers_mut();
    let nosniff = HeaderValue::from_static("nosniff");
    headers.entry(header::X_CONTENT_TYPE_OPTIONS).or_insert(nosniff);
    // RFC 9112 section 9.6: announce the close, so that the next request takes another connection.
    // (HTTP/2 has GOAWAY, and forbids the field.)
    if version < Version::HTTP_2 && state.draining.is_cancelled() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let duration = started.elapsed();
    if let Some(endpoint) = &state.metrics {
        endpoint.metrics.request_completed(CompletedRequest {
            route: route.name(),
            status: response.status(),
            duration,
        });
    }
    let span = span.unwrap_or_else(Span::none);
    span.in_scope(|| log(route, &method, &path, response.status(), duration));
    if method == Method::HEAD {
        response = without_body(response);
    }
    response.map(|body| {
        // hyper drops the body once it has ended or the client is gone.
        let guards = (guard, unfinished);
        body.map_frame(move |frame| {
            let _guards = &guards;
            frame
        })
        .boxed_unsync()
    })
}

async fn respond(
    state: Arc<AppState>,
    route: Route,
    target: Uri,
    reserved: bool,
    mut request: Request<Incoming>,
) -> McpAnswer {
    if reserved && !route.is_monitoring() {
        return error_response(HttpError::TooManyConnections, route).into();
    }
    if !route.allows_any_host() {
        let checked = state.host_origin.check_host(request.uri(), request.headers());
        if let Err(error) = checked {
            return error_response(error, route).into();
        }
    }
    // The authority has its own origin rule; the other paths allow any origin.
    let origin = (route == Route::Mcp).then(|| state.host_origin.allowed_origin(request.headers()));
    *request.uri_mut() = target;
    let result = dispatch(&state, route, request).await;
    let mut answer = result.unwrap_or_else(|error| error_response(error, route).into());
    if let Some(origin) = origin.flatten() {
        cors::allow_origin(&mut answer.response, origin);
    }
    answer
}

async fn dispatch(state: &AppState, route: Route, request: Request<Incoming>) -> Result<McpAnswer, HttpError> {
    let response = match route {
        Route::Mcp => return mcp::serve(state, request).await,
        Route::Authority => authority(state, request).await,
        Route::Health => {
            check_read_only(&request)?;
            Ok(health::health(state))
        }
        Route::Ready => {
            check_read_only(&request)?;
            Ok(health::readiness(state).await)
        }
        Route::Index => {
            check_read_only(&request)?;
            Ok(health::index(state))
        }
        Route::Metrics => {
            let endpoint = state.metrics.as_ref().ok_or(HttpError::NotFound)?;
            check_read_only(&request)?;
            metrics::exposition(endpoint, request.headers())
        }
        Route::Unknown => Err(HttpError::NotFound),
    };
    Ok(response?.into())
}

async fn authority(state: &AppState, request: Request<Incoming>) -> Result<Response<ResponseBody>, HttpError> {
    let limits = &state.config.limits;
    let (parts, incoming) = request.into_parts();
    let mut reservation = state.stranger_bodies.reservation(None);
    let body = request_body::read(incoming, limits.oauth_body, limits.body_timeout, &mut reservation).await?;
    // HEAD stays HEAD: only the authority knows which of its paths have no side effects.
    Ok(state.authority.serve(Request::from_parts(parts, body)).await)
}

fn check_read_only(request: &Request<Incoming>) -> Result<(), HttpError> {
    if [Method::GET, Method::HEAD].contains(request.method()) {
        Ok(())
    } else {
        Err(HttpError::MethodNotAllowed("GET, HEAD"))
    }
}

fn error_response(error: HttpError, route: Route) -> Response<ResponseBody> {
    tracing::debug!(reason = error.reason(), "request rejected");
    error.response(route)
}

/// The beginning of a text that a client chose: the log has room for no more.
fn shorten(text: &str) -> &str {
    text.char_indices()
        .nth(MAX_LOGGED_CHARACTERS)
        .map_or(text, |(end, _)| &text[..end])
}

/// Logs one line per request. No header, query or id: they may contain secrets.
fn log(route: Route, method: &Method, path: &str, status: StatusCode, duration: Duration) {
    let (status, milliseconds) = (status.as_u16(), duration.as_millis());
    let (method, path) = (shorten(method.as_str()), shorten(path));
    if route.is_monitoring() {
        // Monitoring systems poll these every few seconds.
        tracing::debug!(method, path, status, milliseconds, "request completed");
    } else {
        tracing::info!(method, path, status, milliseconds, "request completed");
    }
}
