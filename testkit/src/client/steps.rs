//! A record of the steps of a client.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::StatusCode;
use tokio::time::Instant;

use super::ClientError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub name: &'static str,
    pub status: Option<StatusCode>,
    pub elapsed: Duration,
    /// Its outcome in a few words and without secrets; the error of a failed step.
    pub detail: String,
    pub passed: bool,
}

pub(super) struct Outcome<T> {
    pub(super) value: T,
    pub(super) status: Option<StatusCode>,
    pub(super) detail: String,
}

/// Steps in the order of their ends. The lock is held only to push or to copy, so a poisoned one is
/// still consistent.
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
    pub(super) async fn record<T>(
        &self,
        name: &'static str,
        step: impl Future<Output = Result<Outcome<T>, ClientError>>,
    ) -> Result<T, ClientError> {
        let started = Instant::now();
        let outcome = step.await;
        let (status, detail) = match &outcome {
            Ok(outcome) => (outcome.status, outcome.detail.clone()),
            Err(error) => (error.status(), error.to_string()),
        };
        let step = Step {
            name,
            status,
            elapsed: started.elapsed(),
            detail,
            passed: outcome.is_ok(),
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(step);
        outcome.map(|outcome| outcome.value)
    }

    pub(super) fn all(&self) -> Vec<Step> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.passed { "ok  " } else { "FAIL" };
        let status = self.status.map_or("-".to_owned(), |status| status.as_u16().to_string());
        let (name, millis, detail) = (self.name, self.elapsed.as_millis(), &self.detail);
        write!(f, "{mark} {name:<12} {status:>3} {millis:>6} ms  {detail}")
    }
}
