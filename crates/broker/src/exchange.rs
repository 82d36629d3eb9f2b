//! One exchange, from the parsed head to the end of its answer.
//!
//! Each runs as a task of its own, so that a panic ends it with 500 and nothing else. Its task ends with the client's
//! interest: hyper drops the exchange when the connection is gone.

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
    http_error::{ErrorFormat, HttpError},
    mcp, metrics,
    ports::{CompletedRequest, LogSpan, ResponseBody},
    request_body, response as responses,
    route::{self, Route},
};

/// Serves a request, whatever it is. `busy` is held until the body of the answer has been sent, and so is the token that has
/// a drain wait, unless the answer is a stream that only listens.
pub(crate) async fn handle<G: Send + 'static>(
    state: Arc<AppState>,
    request: Request<Incoming>,
    busy: G,
    unfinished: TaskTrackerToken,
) -> Response<ResponseBody> {
    let began = Instant::now();
    let method = request.method().clone();
    let version = request.version();
    let path = request.uri().path().to_owned();
    let (route, inner) = Route::of(&path, state.config.public_url.prefix());
    let target = route::with_path(request.uri(), inner);
    let listens = route == Route::Mcp && method == Method::GET;
    let unfinished = (!listens).then_some(unfinished);

    let exchange = answer(Arc::clone(&state), route, target, request);
    // Dropping the handle ends the task, so that it does not outlive the connection.
    let task = AbortOnDropHandle::new(state.tasks.spawn(exchange));
    let mut response = task.await.unwrap_or_else(|error| {
        // The hook for panics has told where; this tells what came of it.
        tracing::error!(%error, "an exchange did not come to its end");
        error_response(HttpError::Panicked, route)
    });

    let nosniff = HeaderValue::from_static("nosniff");
    response
        .headers_mut()
        .entry(header::X_CONTENT_TYPE_OPTIONS)
        .or_insert(nosniff);
    // RFC 9112 section 9.6: whoever will close says so, so that the next request takes another connection. (HTTP/2 has
    // GOAWAY, and forbids the field.)
    if version < Version::HTTP_2 && state.draining.is_cancelled() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    let duration = began.elapsed();
    if let Some(counted) = &state.counted {
        counted.metrics.request_completed(CompletedRequest {
            route: route.name(),
            status: response.status(),
            duration,
        });
    }
    let span = response.extensions_mut().remove();
    let span = span.map_or_else(Span::none, |LogSpan(span)| span);
    span.in_scope(|| log(route, &method, &path, response.status(), duration));
    if method == Method::HEAD {
        response = responses::head_of(response);
    }
    response.map(|body| {
        // Servers drop a body when it has ended or the client is gone.
        let held = (busy, unfinished);
        body.map_frame(move |frame| {
            let _held = &held;
            frame
        })
        .boxed_unsync()
    })
}

async fn answer(
    state: Arc<AppState>,
    route: Route,
    target: Uri,
    mut request: Request<Incoming>,
) -> Response<ResponseBody> {
    // Whoever watches asks by address.
    if !matches!(route, Route::Health | Route::Ready | Route::Metrics) {
        let checked = state.host_origin.check_host(request.uri(), request.headers());
        if let Err(error) = checked {
            return error_response(error, route);
        }
    }
    let origin = match route {
        Route::Mcp => state.host_origin.allowed_origin(request.headers()),
        // The authority has its own rule; the pages are for whoever has the address.
        Route::Authority | Route::Health | Route::Ready | Route::Metrics | Route::Index | Route::Unknown => None,
    };
    *request.uri_mut() = target;
    let answered = match route {
        Route::Mcp => mcp::serve(&state, request).await,
        Route::Authority => authority(&state, request).await,
        Route::Health | Route::Ready | Route::Index => page(&state, route, request.method()).await,
        Route::Metrics => counted(&state, &request),
        Route::Unknown => Err(HttpError::NotFound),
    };
    let mut response = answered.unwrap_or_else(|error| error_response(error, route));
    if let Some(origin) = origin {
        cors::open(&mut response, origin);
    }
    response
}

async fn authority(state: &AppState, request: Request<Incoming>) -> Result<Response<ResponseBody>, HttpError> {
    let limits = &state.config.limits;
    let (parts, incoming) = request.into_parts();
    let body = request_body::read(incoming, &parts.headers, limits.oauth_body, limits.body_timeout).await?;
    // HEAD stays HEAD: only the authority knows which of its paths change nothing.
    Ok(state.authority.serve(Request::from_parts(parts, body)).await)
}

async fn page(state: &AppState, route: Route, method: &Method) -> Result<Response<ResponseBody>, HttpError> {
    if ![Method::GET, Method::HEAD].contains(method) {
        return Err(HttpError::PageMethod);
    }
    match route {
        Route::Health => Ok(health::health(state).await),
        Route::Ready => Ok(health::readiness(state)),
        Route::Index => Ok(health::index(state)),
        Route::Mcp | Route::Authority | Route::Metrics | Route::Unknown => Err(HttpError::NotFound),
    }
}

fn counted(state: &AppState, request: &Request<Incoming>) -> Result<Response<ResponseBody>, HttpError> {
    if state.counted.is_some() && ![Method::GET, Method::HEAD].contains(request.method()) {
        return Err(HttpError::PageMethod);
    }
    metrics::exposition(state.counted.as_ref(), request.headers())
}

fn error_response(error: HttpError, route: Route) -> Response<ResponseBody> {
    tracing::debug!(reason = error.reason(), "request refused");
    error.answer(if route == Route::Mcp {
        ErrorFormat::JsonRpc
    } else {
        ErrorFormat::Text
    })
}

/// One line for each exchange. No header, no query, no id: they may hold what must not be in a log.
fn log(route: Route, method: &Method, path: &str, status: StatusCode, duration: Duration) {
    let (status, milliseconds) = (status.as_u16(), duration.as_millis());
    match route {
        // Asked every few seconds by whoever watches.
        Route::Health | Route::Ready | Route::Metrics => {
            tracing::debug!(%method, path, status, milliseconds, "answered");
        }
        Route::Mcp | Route::Authority | Route::Index | Route::Unknown => {
            tracing::info!(%method, path, status, milliseconds, "answered");
        }
    }
}
