//! How each kind of event is called in a label. The lists are there so that every series exists from the start, with zero in it.

use session::ports::{DetachReason, EndReason, QuotaScope, SpawnFailure, SpawnPurpose};

pub(super) const PURPOSES: [SpawnPurpose; 3] = [SpawnPurpose::Opening, SpawnPurpose::Revival, SpawnPurpose::Rotation];

pub(super) const FAILURES: [SpawnFailure; 4] = [
    SpawnFailure::Credentials,
    SpawnFailure::Unavailable,
    SpawnFailure::Failed,
    SpawnFailure::TimedOut,
];

pub(super) const SLEEPS: [DetachReason; 3] = [DetachReason::Idle, DetachReason::BackendDied, DetachReason::Expired];

pub(super) const CAPS: [QuotaScope; 2] = [QuotaScope::User, QuotaScope::Total];

pub(super) const ENDINGS: [EndReason; 9] = [
    EndReason::Deleted,
    EndReason::BackendDied,
    EndReason::Idle,
    EndReason::Revoked,
    EndReason::NotOpened,
    EndReason::Evicted,
    EndReason::Unrevivable,
    EndReason::Expired,
    EndReason::Shutdown,
];

pub(super) fn purpose(purpose: SpawnPurpose) -> &'static str {
    match purpose {
        SpawnPurpose::Opening => "opening",
        SpawnPurpose::Revival => "revival",
        SpawnPurpose::Rotation => "rotation",
    }
}

pub(super) fn failure(failure: SpawnFailure) -> &'static str {
    match failure {
        SpawnFailure::Credentials => "sign_in_needed",
        SpawnFailure::Unavailable => "unavailable",
        SpawnFailure::Failed => "failed",
        SpawnFailure::TimedOut => "timed_out",
    }
}

pub(super) fn sleep(sleep: DetachReason) -> &'static str {
    match sleep {
        DetachReason::Idle => "idle",
        DetachReason::BackendDied => "child_died",
        DetachReason::Expired => "token_expired",
    }
}

pub(super) fn cap(cap: QuotaScope) -> &'static str {
    match cap {
        QuotaScope::User => "user",
        QuotaScope::Total => "total",
    }
}

pub(super) fn ending(ending: EndReason) -> &'static str {
    match ending {
        EndReason::Deleted => "deleted",
        EndReason::BackendDied => "child_died",
        EndReason::Idle => "idle",
        EndReason::Revoked => "revoked",
        EndReason::NotOpened => "not_opened",
        EndReason::Evicted => "displaced",
        EndReason::Unrevivable => "unrevivable",
        EndReason::Expired => "token_expired",
        EndReason::Shutdown => "stopping",
    }
}
