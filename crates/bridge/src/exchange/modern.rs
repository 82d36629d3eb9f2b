//! One exchange of a client of 2026-07-28: a POST with a request.

mod tasks;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::time::{Instant, timeout};

use super::{Outcome, response, sse::SseBody};
use crate::{
    config::Config,
    jsonrpc::{self, Envelope, MessageKind, json},
    modern::{ModernError, ModernRequest, error, tools::Tools},
    shared::{Shared, StreamHandle},
    streams::{Reader, ResponseMode},
};

/// Why a request is not served.
enum Unserved {
    Rejected(ModernError),
    /// The answer of the owner.
    Outcome(Outcome),
}

/// Serves a request. Dropping the future, or the body, cancels the request.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    config: &Config,
    headers: &HeaderMap,
    request: ModernRequest,
) -> Outcome {
    config.era_counts.note_modern();
    let id = request.id.clone();
    match post(shared, config, headers, request).await {
        Ok(outcome) | Err(Unserved::Outcome(outcome)) => outcome,
        Err(Unserved::Rejected(error)) => Outcome::Answer(response::modern_rejected(&error, Some(&id))),
    }
}

async fn post(
    shared: &Arc<Shared>,
    config: &Config,
    headers: &HeaderMap,
    request: ModernRequest,
) -> Result<Outcome, Unserved> {
    match &*request.method {
        "tools/call" => check_arguments(shared, headers, &request).await?,
        // What the server announces is known from its handshake.
        "subscriptions/listen" if !shared.step(|machine| machine.handshake.has_result()) => {
            _ = ask(shared, "server/discover", "{}").await?;
        }
        "tasks/get" | "tasks/update" | "tasks/cancel" => return tasks::serve(shared, &request).await,
        _other => {}
    }
    let reader = shared.step(|machine| machine.modern_request(Instant::now(), request))?;
    Ok(answer(shared, config, reader).await)
}

/// Checks the headers that mirror arguments of a tool. The tools are read before the first call.
async fn check_arguments(shared: &Arc<Shared>, headers: &HeaderMap, request: &ModernRequest) -> Result<(), Unserved> {
    let name = request.name.as_deref().unwrap_or_default();
    let checked = || {
        shared.step(|machine| {
            let tools = machine.modern()?.tools()?;
            let tool = tools.get(name);
            Some(tool.map_or(Ok(()), |tool| tool.check(headers, request.arguments())))
        })
    };
    if let Some(checked) = checked() {
        return Ok(checked?);
    }
    // One request reads them, and the others wait for it.
    let _reading = shared.reading_tools.lock().await;
    if let Some(checked) = checked() {
        return Ok(checked?);
    }
    let (mut tools, mut params) = (Tools::default(), "{}".to_owned());
    loop {
        let response = ask(shared, "tools/list", &params).await?;
        let message = Envelope::parse(&response).ok();
        let result = message
            .as_ref()
            .filter(|message| matches!(message.kind(), MessageKind::Response { error: false, .. }));
        let Some(result) = result else {
            let code = message
                .as_ref()
                .and_then(|message| jsonrpc::error_code(message.outcome()));
            // A server without a list has no annotations. After any other error the next call reads
            // the list again.
            if code != Some(error::METHOD_NOT_FOUND.into()) {
                return Ok(());
            }
            break;
        };
        match tools.add(result.outcome()) {
            Some(cursor) => params = format!(r#"{{"cursor":{cursor}}}"#),
            None => break,
        }
    }
    shared.step(|machine| machine.modern().map(|modern| modern.set_tools(tools)));
    Ok(checked().unwrap_or(Ok(()))?)
}

/// The response of a server to a request of the conversation itself.
async fn ask(shared: &Arc<Shared>, method: &str, params: &str) -> Result<Bytes, Unserved> {
    let request = Envelope::request(method, params);
    let reader = shared
        .step(|machine| machine.internal_request(Instant::now(), &request))
        .map_err(|reason| ModernError::rejected(&reason))?;
    match StreamHandle::new(shared, reader).response_mode().await {
        ResponseMode::Json(lines) => Ok(lines.into_iter().next().unwrap_or_default()),
        ResponseMode::Sse => Ok(Bytes::new()),
        ResponseMode::Unserved(why) => Err(Unserved::Outcome(Outcome::Unserved(why))),
    }
}

/// Answers with JSON if the response comes first, and with an event stream after a notification or
/// a delay. The delay begins when there is a server.
async fn answer(shared: &Arc<Shared>, config: &Config, reader: Reader) -> Outcome {
    let handle = StreamHandle::new(shared, reader);
    let mode = loop {
        match timeout(config.modern_sse_upgrade_delay, handle.response_mode()).await {
            Ok(mode) => break mode,
            Err(_elapsed) if handle.is_waiting() => {}
            Err(_elapsed) => break ResponseMode::Sse,
        }
    };
    Outcome::Answer(match mode {
        ResponseMode::Json(lines) => {
            let line = lines.into_iter().next().unwrap_or_default();
            response::json(status(&line), handle.unflushed().track(line))
        }
        ResponseMode::Sse => response::sse(SseBody::new(handle, config)),
        ResponseMode::Unserved(why) => return Outcome::Unserved(why),
    })
}

/// The status of a response, by its error code.
fn status(line: &[u8]) -> StatusCode {
    // Most results are told without a search for the members. No server has written this line, so
    // the name has no escapes.
    let text = std::str::from_utf8(line)
        .ok()
        .filter(|text| text.contains(r#""error""#));
    let code = text.and_then(|text| jsonrpc::error_code(&text[json::member(text, "error")?]));
    code.map_or(StatusCode::OK, error::status)
}

impl From<ModernError> for Unserved {
    fn from(error: ModernError) -> Self {
        Self::Rejected(error)
    }
}
