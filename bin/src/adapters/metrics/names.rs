//! Label values of `session`'s events. The lists exist so that every series is exported from the
//! start, with zero.

use session::ports::{DetachReason, EndReason, QuotaScope, SpawnFailure, SpawnPurpose};

/// The list of all variants of an enum, and the label of each.
macro_rules! labels {
    ($list:ident, $label:ident, $type:ident: $($variant:ident = $text:literal),+ $(,)?) => {
        pub(super) const $list: &[$type] = &[$($type::$variant),+];

        pub(super) fn $label(value: $type) -> &'static str {
            match value {
                $($type::$variant => $text,)+
            }
        }
    };
}

labels!(PURPOSES, purpose, SpawnPurpose: Opening = "opening", Revival = "revival", Rotation = "rotation");
labels!(FAILURES, failure, SpawnFailure:
    Credentials = "sign_in_needed",
    Unavailable = "unavailable",
    Failed = "failed",
    TimedOut = "timed_out",
);
labels!(DETACH_REASONS, detach_reason, DetachReason: Idle = "idle", BackendDied = "child_died", Expired = "token_expired");
labels!(QUOTA_SCOPES, quota_scope, QuotaScope: User = "user", Total = "total");
labels!(END_REASONS, end_reason, EndReason:
    Deleted = "deleted",
    BackendDied = "child_died",
    Idle = "idle",
    Revoked = "revoked",
    NotOpened = "not_opened",
    Evicted = "displaced",
    Unrevivable = "unrevivable",
    Expired = "token_expired",
    Shutdown = "stopping",
);
