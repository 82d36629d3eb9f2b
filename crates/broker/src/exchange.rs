//! One exchange, from the parsed head to the end of its answer.
//!
//! Each runs as a task of its own, so that a panic ends it with 500 and nothing else. Its task ends with the client's
//! interest: hyper drops the exchange when the connection is gone.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::Instant;
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker, task_tracker::TaskTrackerToken},
};
use tracing::Span;

use crate::{
    admission::Admission,
    body,
    config::Config,
    cors, health, mcp,
    metrics::{self, Counted},
    ports::{Answered, Authority, Body, LogSpan, McpService, Probe},
    refusal::{Form, Refusal},
    route::{self, Route},
};

/// What all exchanges share.
#[derive(Debug)]
pub(crate) struct Face {
    pub(crate) config: Config,
    pub(crate) admission: Admission,
    pub(crate) authority: Arc<dyn Authority>,
    pub(crate) mcp: Arc<dyn McpService>,
    pub(crate) probes: Vec<Arc<dyn Probe>>,
    /// What `/metrics` shows, if it is served.
    pub(crate) counted: Option<Counted>,
    /// Cancelled when nothing new is begun any more.
    pub(crate) draining: CancellationToken,
    /// The exchanges that a shutdown lets finish: all but streams that only listen.
    pub(crate) unfinished: TaskTracker,
    /// All tasks: connections and exchanges.
    pub(crate) tasks: TaskTracker,
}

/// Serves a request, whatever it is. `busy` is held until the body of the answer has been sent, and so is the token that has
/// a drain wait, unless the answer is a stream that only listens.
pub(crate) async fn handle<G: Send + 'static>(
    face: Arc<Face>,
    request: Request<Incoming>,
    busy: G,
    unfinished: TaskTrackerToken,
) -> Response<Body> {
    let began = Instant::now();
    let method = request.method().clone();
    let version = request.version();
    let path = request.uri().path().to_owned();
    let (route, inner) = Route::of(&path, face.config.public_url.prefix());
    let target = route::with_path(request.uri(), inner);
    let listens = route == Route::Mcp && method == Method::GET;
    let unfinished = (!listens).then_some(unfinished);

    let exchange = answer(Arc::clone(&face), route, target, request);
    // Dropping the handle ends the task, so that it does not outlive the connection.
    let task = AbortOnDropHandle::new(face.tasks.spawn(exchange));
    let mut response = task.await.unwrap_or_else(|error| {
        // The hook for panics has told where; this tells what came of it.
        tracing::error!(%error, "an exchange did not come to its end");
        refuse(Refusal::Panicked, route)
    });

    let nosniff = HeaderValue::from_static("nosniff");
    response
        .headers_mut()
        .entry(header::X_CONTENT_TYPE_OPTIONS)
        .or_insert(nosniff);
    // RFC 9112 section 9.6: whoever will close says so, so that the next request takes another connection. (HTTP/2 has
    // GOAWAY, and forbids the field.)
    if version < Version::HTTP_2 && face.draining.is_cancelled() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    let took = began.elapsed();
    if let Some(counted) = &face.counted {
        counted.metrics.answered(Answered {
            route: route.name(),
            status: response.status(),
            took,
        });
    }
    let span = response.extensions_mut().remove();
    let span = span.map_or_else(Span::none, |LogSpan(span)| span);
    span.in_scope(|| log(route, &method, &path, response.status(), took));
    if method == Method::HEAD {
        response = body::head_of(response);
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

async fn answer(face: Arc<Face>, route: Route, target: Uri, mut request: Request<Incoming>) -> Response<Body> {
    // Whoever watches asks by address.
    if !matches!(route, Route::Health | Route::Ready | Route::Metrics) {
        let checked = face.admission.check_host(request.uri(), request.headers());
        if let Err(refusal) = checked {
            return refuse(refusal, route);
        }
    }
    let origin = match route {
        Route::Mcp => face.admission.allowed_origin(request.headers()),
        // The authority has its own rule; the pages are for whoever has the address.
        Route::Authority | Route::Health | Route::Ready | Route::Metrics | Route::Index | Route::Unknown => None,
    };
    *request.uri_mut() = target;
    let answered = match route {
        Route::Mcp => mcp::serve(&face, request).await,
        Route::Authority => authority(&face, request).await,
        Route::Health | Route::Ready | Route::Index => page(&face, route, request.method()).await,
        Route::Metrics => counted(&face, &request),
        Route::Unknown => Err(Refusal::NotFound),
    };
    let mut response = answered.unwrap_or_else(|refusal| refuse(refusal, route));
    if let Some(origin) = origin {
        cors::open(&mut response, origin);
    }
    response
}

async fn authority(face: &Face, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    let limits = &face.config.limits;
    let (parts, incoming) = request.into_parts();
    let body = body::read(incoming, &parts.headers, limits.oauth_body, limits.body_timeout).await?;
    // HEAD stays HEAD: only the authority knows which of its paths change nothing.
    Ok(face.authority.serve(Request::from_parts(parts, body)).await)
}

async fn page(face: &Face, route: Route, method: &Method) -> Result<Response<Body>, Refusal> {
    if ![Method::GET, Method::HEAD].contains(method) {
        return Err(Refusal::PageMethod);
    }
    match route {
        Route::Health => Ok(health::health(face).await),
        Route::Ready => Ok(health::readiness(face)),
        Route::Index => Ok(health::index(face)),
        Route::Mcp | Route::Authority | Route::Metrics | Route::Unknown => Err(Refusal::NotFound),
    }
}

fn counted(face: &Face, request: &Request<Incoming>) -> Result<Response<Body>, Refusal> {
    if face.counted.is_some() && ![Method::GET, Method::HEAD].contains(request.method()) {
        return Err(Refusal::PageMethod);
    }
    metrics::exposition(face.counted.as_ref(), request.headers())
}

fn refuse(refusal: Refusal, route: Route) -> Response<Body> {
    tracing::debug!(reason = refusal.reason(), "request refused");
    refusal.answer(if route == Route::Mcp { Form::JsonRpc } else { Form::Text })
}

/// One line for each exchange. No header, no query, no id: they may hold what must not be in a log.
fn log(route: Route, method: &Method, path: &str, status: StatusCode, took: Duration) {
    let (status, milliseconds) = (status.as_u16(), took.as_millis());
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
