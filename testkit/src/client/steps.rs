//! A record of what a client did, step by step.

use std::{fmt, future::Future, sync::Mutex, sync::PoisonError, time::Duration};

use http::StatusCode;
use tokio::time::Instant;

use super::ClientError;

/// One step that a client took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it was, such as `initialize`.
    pub name: &'static str,
    /// The HTTP status that came back, if any did.
    pub status: Option<StatusCode>,
    /// How long it took.
    pub elapsed: Duration,
    /// What came of it, in a few words and without secrets; for a failed step the error.
    pub detail: String,
    /// Whether it was as it should be.
    pub passed: bool,
}

/// What a step that went well comes to.
pub(super) struct Outcome<T> {
    pub(super) value: T,
    pub(super) status: Option<StatusCode>,
    pub(super) detail: String,
}

/// Steps in the order of their ends. The lock is held only to push or to copy, so a poisoned one is still whole.
#[derive(Debug, Default)]
pub(super) struct Steps(Mutex<Vec<Step>>);

impl<T> Outcome<T> {
    pub(super) fn new(value: T, status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            value,
            status: Some(status),
            detail: detail.into(),
        }
    }
}

impl Steps {
    /// Runs a step and records it, passed or failed.
    pub(super) async fn take<T>(
        &self,
        name: &'static str,
        step: impl Future<Output = Result<Outcome<T>, ClientError>>,
    ) -> Result<T, ClientError> {
        let started = Instant::now();
        let outcome = step.await;
        let elapsed = started.elapsed();
        let (status, detail, passed) = match &outcome {
            Ok(outcome) => (outcome.status, outcome.detail.clone(), true),
            Err(error) => (error.status(), error.to_string(), false),
        };
        let step = Step {
            name,
            status,
            elapsed,
            detail,
            passed,
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(step);
        outcome.map(|outcome| outcome.value)
    }

    pub(super) fn all(&self) -> Vec<Step> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Display for Step {
    /// One line: mark, name, status, time, detail.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.passed { "ok  " } else { "FAIL" };
        let status = self.status.map_or("-".to_owned(), |status| status.as_u16().to_string());
        let millis = self.elapsed.as_millis();
        write!(
            f,
            "{mark} {:<12} {status:>3} {millis:>6} ms  {}",
            self.name, self.detail
        )
    }
}
