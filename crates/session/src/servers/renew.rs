//! Renewal of a credential because a server ended at its start. The
//! [`RenewalGate`](crate::state::RenewalGate) has the rules.

use std::sync::Arc;

use tokio::{sync::watch, time::Instant};

use super::start::StartError;
use crate::{
    ports::{CredentialError, Credentials, UserId},
    state::{GateDecision, Generation, RegistryState, RenewalGuard, RenewalOutcome, Session},
};

/// Makes an attempt to start a server of a session, and another one if the first one ended at
/// its start and the credential could be renewed.
pub(crate) async fn retry_after_renewal<T, F>(
    state: &Arc<RegistryState>,
    session: &Session,
    attempt: impl Fn() -> F,
) -> Result<T, StartError>
where
    F: Future<Output = Result<T, StartError>>,
{
    let generation = state.renewal_gate.generation();
    let outcome = attempt().await;
    let (Err(error), Some(caller)) = (&outcome, session.caller()) else {
        return outcome;
    };
    // A session that has ended needs no backend: its end may be the reason for the failure.
    if !error.may_be_revoked_credential() || session.is_revoked() || state.table.is_closed() {
        return outcome;
    }
    match renew(state, &session.user, &caller.credentials, generation).await {
        RenewalOutcome::Renewed => {
            tracing::info!(session = %session.tag, "credential renewed; starting the backend again");
            attempt().await
        }
        // If the user has to sign in again, the session has ended with the user.
        RenewalOutcome::SignInRequired | RenewalOutcome::Unchanged => outcome,
    }
}

/// Renews the credential of a user if that may help the next server to start. A terminal refusal
/// ends the user's sessions.
///
/// If servers renew credentials themselves
/// ([`Host::renews_credentials`](crate::ports::Host::renews_credentials)), only the current
/// credential is checked.
pub(crate) async fn renew(
    state: &Arc<RegistryState>,
    user: &UserId,
    credentials: &Arc<dyn Credentials>,
    started: Generation,
) -> RenewalOutcome {
    if state.host.renews_credentials() {
        return match credentials.current().await {
            Ok(_) => RenewalOutcome::Unchanged,
            Err(error) => refused(state, user, error),
        };
    }
    let pause = state.config.renewal_pause;
    let mut outcome = match state.renewal_gate.decide(user, started, Instant::now(), pause) {
        GateDecision::Known(outcome) => return outcome,
        GateDecision::Wait(outcome) => outcome,
        GateDecision::Renew(sender) => {
            let outcome = sender.subscribe();
            let task = renew_now(Arc::clone(state), user.clone(), Arc::clone(credentials), sender);
            // A task of its own: a client that goes away does not cancel it for the others.
            state.tasks.spawn(task);
            outcome
        }
    };
    let outcome = outcome.wait_for(Option::is_some).await;
    // An error means that the task panicked or was dropped with the runtime.
    outcome
        .ok()
        .and_then(|outcome| *outcome)
        .unwrap_or(RenewalOutcome::Unchanged)
}

async fn renew_now(
    state: Arc<RegistryState>,
    user: UserId,
    credentials: Arc<dyn Credentials>,
    sender: watch::Sender<Option<RenewalOutcome>>,
) {
    let mut guard = RenewalGuard {
        gate: &state.renewal_gate,
        user: &user,
        succeeded: false,
    };
    let outcome = match state.closing.run_until_cancelled(credentials.refresh()).await {
        Some(Ok(_)) => RenewalOutcome::Renewed,
        Some(Err(error)) => refused(&state, &user, error),
        None => RenewalOutcome::Unchanged,
    };
    guard.succeeded = outcome == RenewalOutcome::Renewed;
    // Recorded before it is announced.
    drop(guard);
    sender.send_replace(Some(outcome));
}

fn refused(state: &RegistryState, user: &UserId, error: CredentialError) -> RenewalOutcome {
    match error {
        CredentialError::Terminal(error) => {
            tracing::info!(user = %user.0, error, "backend ended at its start: the user has to sign in again");
            state.end_user(user);
            RenewalOutcome::SignInRequired
        }
        CredentialError::Transient(error) => {
            tracing::warn!(user = %user.0, error, "backend ended at its start: the credential cannot be renewed now");
            RenewalOutcome::Unchanged
        }
    }
}
