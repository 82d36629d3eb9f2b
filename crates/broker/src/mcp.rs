//! The checks of `/mcp`.
//!
//! Their order matters: host and origin before anything is looked up, the bearer before any detail
//! of the request is rejected, then the limit of the sender's exchanges, and the body last.

use http::{HeaderMap, Method, Request, Response, StatusCode, header, request::Parts};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::{
    app_state::AppState,
    cors,
    exchange_limiter::ExchangeGuard,
    http_error::HttpError,
    media_type::{EVENT_STREAM, JSON, names_html},
    ports::{McpAnswer, ResponseBody},
    request_body, response,
};

/// Serves a request whose host has been checked.
///
/// # Errors
///
/// The check that the request failed. The authority's own response is not an error here.
pub(crate) async fn serve(state: &AppState, request: Request<Incoming>) -> Result<McpAnswer, HttpError> {
    let (mut parts, incoming) = request.into_parts();
    state.host_origin.check_origin(&parts.headers)?;
    // Before the authentication, since browsers send no bearer with a preflight.
    if let Some(response) = cors::preflight(&parts) {
        return Ok(response.into());
    }
    let grant = match state.authority.authenticate(&mut parts).await {
        Ok(grant) => grant,
        Err(challenge) => return Ok(for_browser(state, &parts, challenge).into()),
    };
    // Before the body: unfinished ones count, too.
    let exchange = state.exchanges.begin(grant.clone())?;
    let mut reservation = state.user_bodies.reservation(Some(grant));
    let limits = &state.config.limits;
    let body = match parts.method {
        Method::POST => {
            check_post(&parts.headers)?;
            request_body::read(incoming, limits.mcp_body, limits.body_timeout, &mut reservation).await?
        }
        Method::GET if EVENT_STREAM.is_acceptable(&parts.headers) => bytes::Bytes::new(),
        Method::GET => return Err(HttpError::GetNotAcceptable),
        // The body of a DELETE has no meaning (RFC 9110 section 9.3.5).
        Method::DELETE => bytes::Bytes::new(),
        _ => return Err(HttpError::MethodNotAllowed(cors::ALLOWED_METHODS)),
    };
    let mut answer = state.mcp.serve(Request::from_parts(parts, body)).await;
    drop(reservation);
    answer.response = answer.response.map(|body| held_by(body, exchange));
    Ok(answer)
}

/// The body, which drops the guard at its end.
fn held_by(body: ResponseBody, exchange: ExchangeGuard) -> ResponseBody {
    let hold = move |frame| {
        let _exchange = &exchange;
        frame
    };
    body.map_frame(hold).boxed_unsync()
}

/// The challenge with a page as its body, if the user has opened the URL in a browser.
fn for_browser(state: &AppState, parts: &Parts, challenge: Response<ResponseBody>) -> Response<ResponseBody> {
    let is_page = matches!(parts.method, Method::GET | Method::HEAD)
        && challenge.status() == StatusCode::UNAUTHORIZED
        && !parts.headers.contains_key(header::AUTHORIZATION)
        && names_html(&parts.headers);
    if !is_page {
        return challenge;
    }
    let page = response::html(StatusCode::UNAUTHORIZED, sign_in_page(state.config.public_url.prefix()));
    let (page, body) = page.into_parts();
    let (mut head, _) = challenge.into_parts();
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.extend(page.headers);
    Response::from_parts(head, body)
}

/// `prefix` is part of a valid URI, so it needs no escaping apart from `&` and `'`.
fn sign_in_page(prefix: &str) -> String {
    let prefix = prefix.replace('&', "&amp;").replace('\'', "&#39;");
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>MCP endpoint</title>\n\
         <h1>This address is for MCP clients</h1>\n\
         <p>Add it to your MCP client, which then asks you to sign in. \
         <a href=\"{prefix}/\">About this server</a></p>\n</html>\n"
    )
}

/// MCP 2025-11-25, transports, "Sending Messages to the Server": the response may have either type,
/// so the client must accept both.
fn check_post(headers: &HeaderMap) -> Result<(), HttpError> {
    if !(JSON.is_acceptable(headers) && EVENT_STREAM.is_acceptable(headers)) {
        return Err(HttpError::PostNotAcceptable);
    }
    let encoding = headers.get(header::CONTENT_ENCODING);
    let encoded = encoding.is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"));
    if encoded || !JSON.is_content_of(headers) {
        return Err(HttpError::UnsupportedMediaType);
    }
    Ok(())
}
