//! Requests of clients of 2026-07-28 about a task, by requests of 2025-11-25 to its server.

use std::sync::Arc;

use super::{Unserved, ask};
use crate::{
    exchange::{Outcome, response},
    jsonrpc::{self, Envelope, INVALID_PARAMS, MessageKind, json},
    modern::{ModernError, ModernRequest, error, input::InputResponses, results},
    shared::Shared,
};

/// Serves `tasks/get`, `tasks/update` or `tasks/cancel`.
pub(super) async fn serve(shared: &Arc<Shared>, request: &ModernRequest) -> Result<Outcome, Unserved> {
    let task = shared.step(|machine| machine.requested_task(request))?;
    let params = format!(r#"{{"taskId":{}}}"#, json::quote(&task));
    let outcome = match &*request.method {
        "tasks/get" => get(shared, &params).await?,
        "tasks/cancel" => match self::request(shared, "tasks/cancel", &params).await? {
            // A task that has ended needs no cancellation.
            Err(error) if jsonrpc::error_code(&error) != Some(INVALID_PARAMS.into()) => Err(error),
            _cancelled => Ok(None),
        },
        _update => {
            let answers = InputResponses::parse(request.input_responses.as_deref())?;
            shared.step(|machine| machine.answer_task(&task, &answers));
            Ok(None)
        }
    };
    let server_info = shared.step(|machine| machine.handshake.server_info().map(str::to_owned));
    let id = request.id.raw();
    Ok(Outcome::Answer(match outcome {
        Ok(None) => {
            let result = results::acknowledged(server_info.as_deref());
            response::json(http::StatusCode::OK, jsonrpc::result(id, &result))
        }
        Ok(Some(task)) => {
            let result = results::complete(&request.method, &task, server_info.as_deref()).unwrap_or(task);
            response::json(http::StatusCode::OK, jsonrpc::result(id, &result))
        }
        Err(text) => {
            let text = results::translate_error(&text, None);
            let status = jsonrpc::error_code(&text).map_or(http::StatusCode::OK, error::status);
            response::json(status, jsonrpc::error_text(id, &text))
        }
    }))
}

/// The task with its outcome, as `tasks/get` returns it, or the error of the server (JSON texts).
async fn get(shared: &Arc<Shared>, params: &str) -> Result<Result<Option<String>, String>, Unserved> {
    let task = match request(shared, "tasks/get", params).await? {
        Ok(task) => task,
        Err(error) => return Ok(Err(error)),
    };
    let status = json::member(&task, "status").and_then(|at| json::string(&task[at]));
    let described = shared.step(|machine| machine.describe_task(&task));
    let Some(described) = described else {
        return Err(ModernError::unknown_task().into());
    };
    if !matches!(status.as_deref(), Some("completed" | "failed")) {
        return Ok(Ok(Some(described)));
    }
    let (error, outcome) = match request(shared, "tasks/result", params).await? {
        Ok(result) => (false, result),
        Err(error) => (true, error),
    };
    let ended = shared.step(|machine| machine.with_outcome(&described, error, &outcome));
    Ok(Ok(Some(ended.unwrap_or(described))))
}

/// The result or the error of a server (JSON texts).
async fn request(shared: &Arc<Shared>, method: &str, params: &str) -> Result<Result<String, String>, Unserved> {
    let response = ask(shared, method, params).await?;
    let Ok(response) = Envelope::parse(&response) else {
        return Err(ModernError::unknown_task().into());
    };
    let outcome = response.outcome().to_owned();
    let error = matches!(response.kind(), MessageKind::Response { error: true, .. });
    Ok(if error { Err(outcome) } else { Ok(outcome) })
}
