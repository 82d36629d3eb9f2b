//! The handshake of a session: recorded as it passes, given out as a snapshot, answered again from the record.
//!
//! A bridge never negotiates above [`LATEST`]: an `initialize` that asks for more is lowered before the server sees it,
//! and a server that answers more all the same has not agreed to anything (MCP 2025-11-25, "Version Negotiation").
//! What the client has asked for since is recorded with it.

use super::{
    snapshot::Snapshot,
    wishes::{Wish, Wishes},
};
use crate::{envelope::Envelope, json};

/// The newest protocol version with a handshake.
pub(crate) const LATEST: &str = "2025-11-25";
/// The longest parameters of an `initialize`, in bytes. They are kept, and written down, for as long as the session lives.
const MAX_PARAMS: usize = 64 * 1024;
/// The protocol versions that Streamable HTTP knows.
pub(crate) const SUPPORTED: [&str; 3] = ["2025-03-26", "2025-06-18", LATEST];

/// The state of the handshake.
#[derive(Debug, Default)]
pub(crate) struct Handshake {
    state: State,
    /// Whether the client has confirmed with `notifications/initialized`.
    initialized: bool,
    wishes: Wishes,
}

/// What is to be done with an `initialize` of the client.
#[derive(Debug)]
pub(crate) enum Begin {
    /// It goes to the server.
    Forward,
    /// It is answered with this result: the handshake has been made.
    Recorded(Box<str>),
    /// Another one is under way.
    Busy,
}

/// What has come of an `initialize`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The answer goes to the client as it is.
    Pass,
    /// The server insists on this newer version, which cannot be carried.
    TooNew(String),
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Fresh,
    Asked {
        number: u64,
        params: Box<str>,
    },
    Done {
        params: Box<str>,
        result: Box<str>,
        version: Box<str>,
    },
}

impl Handshake {
    /// What is to be done with an `initialize`.
    pub(crate) fn begin(&self) -> Begin {
        match &self.state {
            State::Fresh => Begin::Forward,
            State::Asked { .. } => Begin::Busy,
            State::Done { result, .. } => Begin::Recorded(result.clone()),
        }
    }

    /// An `initialize` has gone to the server under this number.
    pub(crate) fn asked(&mut self, number: u64, message: &Envelope) {
        self.state = State::Asked {
            number,
            params: message.params().unwrap_or("{}").into(),
        };
    }

    /// Whether the request of this number is the `initialize` that is under way.
    pub(crate) fn is_asked(&self, number: u64) -> bool {
        matches!(&self.state, State::Asked { number: asked, .. } if *asked == number)
    }

    /// The `initialize` under way has been answered. Only a result with a version completes the handshake.
    pub(crate) fn answered(&mut self, error: bool, outcome: &str) -> Outcome {
        let State::Asked { params, .. } = std::mem::take(&mut self.state) else {
            return Outcome::Pass;
        };
        let Some(version) = (!error).then(|| result_version(outcome)).flatten() else {
            return Outcome::Pass;
        };
        if version.as_str() > LATEST {
            return Outcome::TooNew(version);
        }
        self.state = State::Done {
            params,
            result: outcome.into(),
            version: version.into(),
        };
        Outcome::Pass
    }

    /// The `initialize` under way will not be answered any more.
    pub(crate) fn given_up(&mut self) {
        self.state = State::Fresh;
    }

    /// Whether the client has confirmed this handshake before, so that the server need not hear it again.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.initialized
    }

    /// The server hears `notifications/initialized`. Before there is a result it confirms nothing.
    pub(crate) fn confirm(&mut self) {
        self.initialized = matches!(self.state, State::Done { .. });
    }

    /// The version that was negotiated.
    pub(crate) fn version(&self) -> Option<&str> {
        match &self.state {
            State::Done { version, .. } => Some(version),
            State::Fresh | State::Asked { .. } => None,
        }
    }

    /// The server has granted a wish. `false` if there is no room to record it.
    pub(crate) fn grant(&mut self, wish: Wish, max_subscriptions: usize) -> bool {
        self.wishes.grant(wish, max_subscriptions)
    }

    /// The record, once there is a result.
    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        let State::Done {
            params,
            result,
            version,
        } = &self.state
        else {
            return None;
        };
        Snapshot::new(params, result, version, self.initialized, &self.wishes)
    }
}

/// Whether the parameters of an `initialize` are too large to be kept.
pub(crate) fn is_too_large(message: &Envelope) -> bool {
    message.params().is_some_and(|params| params.len() > MAX_PARAMS)
}

/// Makes an `initialize` ask for [`LATEST`] if it asks for anything newer. Versions are dates, or names of drafts, which
/// compare as newer.
pub(crate) fn lower(message: &mut Envelope) {
    let asked = message.param("protocolVersion").and_then(json::string);
    if asked.is_some_and(|asked| asked.as_str() > LATEST) {
        message.set_param("protocolVersion", &json::quote(LATEST));
    }
}

/// The version in an `InitializeResult`.
pub(crate) fn result_version(result: &str) -> Option<String> {
    json::string(&result[json::member(result, "protocolVersion")?])
}

/// The code in a JSON-RPC error object.
pub(crate) fn error_code(error: &str) -> Option<i64> {
    error[json::member(error, "code")?].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn initialize(version: &str) -> Envelope {
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"{version}","x":1.0}}}}"#
        );
        Envelope::parse(text.as_bytes()).expect("a message")
    }

    #[test]
    fn a_version_above_the_latest_is_lowered() {
        for (asked, sent) in [
            ("2026-07-28", LATEST),
            ("DRAFT-2026", LATEST),
            ("2025-11-25", "2025-11-25"),
            ("2025-03-26", "2025-03-26"),
            ("2024-11-05", "2024-11-05"),
        ] {
            let mut message = initialize(asked);
            lower(&mut message);
            assert_eq!(
                message.params(),
                Some(format!(r#"{{"protocolVersion":"{sent}","x":1.0}}"#).as_str())
            );
        }
    }

    #[test]
    fn there_is_a_snapshot_once_there_is_a_result() {
        let mut handshake = Handshake::default();
        assert!(handshake.snapshot().is_none());
        handshake.confirm();
        assert!(!handshake.is_confirmed());
        handshake.asked(1, &initialize("2025-11-25"));
        assert!(handshake.is_asked(1) && !handshake.is_asked(2));
        assert!(matches!(handshake.begin(), Begin::Busy));
        assert!(handshake.snapshot().is_none());
        handshake.answered(false, r#"{"protocolVersion":"2025-06-18","s":2}"#);
        assert!(
            matches!(handshake.begin(), Begin::Recorded(result) if &*result == r#"{"protocolVersion":"2025-06-18","s":2}"#)
        );
        assert_eq!(handshake.version(), Some("2025-06-18"));
        assert!(!handshake.snapshot().expect("done").is_initialized());
        handshake.confirm();
        assert!(handshake.is_confirmed());
        assert!(handshake.snapshot().expect("done").is_initialized());
    }

    #[test]
    fn an_initialize_that_failed_may_be_tried_again() {
        for outcome in ["{}", "3", "{\"protocolVersion\":4}"] {
            let mut handshake = Handshake::default();
            handshake.asked(1, &initialize("2025-11-25"));
            assert_eq!(handshake.answered(false, outcome), Outcome::Pass);
            assert!(matches!(handshake.begin(), Begin::Forward));
        }
        let mut handshake = Handshake::default();
        handshake.asked(1, &initialize("2025-11-25"));
        assert_eq!(
            handshake.answered(true, r#"{"protocolVersion":"2025-11-25"}"#),
            Outcome::Pass
        );
        assert!(matches!(handshake.begin(), Begin::Forward));
    }

    #[test]
    fn a_server_that_answers_a_newer_version_has_agreed_to_nothing() {
        let mut handshake = Handshake::default();
        handshake.asked(1, &initialize("2025-11-25"));
        assert_eq!(
            handshake.answered(false, r#"{"protocolVersion":"2026-07-28"}"#),
            Outcome::TooNew("2026-07-28".into())
        );
        assert!(handshake.snapshot().is_none());
    }
}
