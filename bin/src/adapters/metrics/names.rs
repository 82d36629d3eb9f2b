//! How each kind of event is called in a label. The lists are there so that every series exists from the start, with zero in it.

use session::ports::{Cap, Ending, Failure, Purpose, Sleep};

pub(super) const PURPOSES: [Purpose; 3] = [Purpose::Opening, Purpose::Revival, Purpose::Rotation];

pub(super) const FAILURES: [Failure; 4] = [
    Failure::Credentials,
    Failure::Unavailable,
    Failure::Failed,
    Failure::TimedOut,
];

pub(super) const SLEEPS: [Sleep; 3] = [Sleep::Idle, Sleep::BackendDied, Sleep::Expired];

pub(super) const CAPS: [Cap; 2] = [Cap::User, Cap::Total];

pub(super) const ENDINGS: [Ending; 9] = [
    Ending::Deleted,
    Ending::BackendDied,
    Ending::Idle,
    Ending::Revoked,
    Ending::NotOpened,
    Ending::Displaced,
    Ending::Unrevivable,
    Ending::Expired,
    Ending::Stopping,
];

pub(super) fn purpose(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Opening => "opening",
        Purpose::Revival => "revival",
        Purpose::Rotation => "rotation",
    }
}

pub(super) fn failure(failure: Failure) -> &'static str {
    match failure {
        Failure::Credentials => "sign_in_needed",
        Failure::Unavailable => "unavailable",
        Failure::Failed => "failed",
        Failure::TimedOut => "timed_out",
    }
}

pub(super) fn sleep(sleep: Sleep) -> &'static str {
    match sleep {
        Sleep::Idle => "idle",
        Sleep::BackendDied => "child_died",
        Sleep::Expired => "token_expired",
    }
}

pub(super) fn cap(cap: Cap) -> &'static str {
    match cap {
        Cap::User => "user",
        Cap::Total => "total",
    }
}

pub(super) fn ending(ending: Ending) -> &'static str {
    match ending {
        Ending::Deleted => "deleted",
        Ending::BackendDied => "child_died",
        Ending::Idle => "idle",
        Ending::Revoked => "revoked",
        Ending::NotOpened => "not_opened",
        Ending::Displaced => "displaced",
        Ending::Unrevivable => "unrevivable",
        Ending::Expired => "token_expired",
        Ending::Stopping => "stopping",
    }
}
