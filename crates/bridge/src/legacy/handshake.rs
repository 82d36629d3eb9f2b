//! The handshake of a session: recorded as it passes, given out as a snapshot, answered again from the record.
//!
//! A bridge never negotiates above [`LATEST`]: an `initialize` that asks for more is lowered before the server sees it,
//! and a server that answers more all the same has not agreed to anything (MCP 2025-11-25, "Version Negotiation").
//! Logging level and subscriptions are not part of the record.

use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{envelope::Envelope, error::SnapshotError, json};

/// The newest protocol version with a handshake.
pub(crate) const LATEST: &str = "2025-11-25";
/// The protocol versions that Streamable HTTP knows.
pub(crate) const SUPPORTED: [&str; 3] = ["2025-03-26", "2025-06-18", LATEST];

/// The form of snapshots that this version writes and reads.
const FORM: u32 = 1;

/// What a fresh server must be told to stand in for the one before it.
///
/// Its bytes are JSON, but only a bridge reads them. `Debug` shows no content.
#[derive(Clone)]
pub struct Snapshot(Record);

/// The state of the handshake.
#[derive(Debug, Default)]
pub(crate) struct Handshake {
    state: State,
    /// Whether the client has confirmed with `notifications/initialized`.
    initialized: bool,
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

#[derive(Clone, Deserialize)]
struct Record {
    form: u32,
    /// The `params` of `initialize`, as the client wrote them but for the version.
    params: Box<RawValue>,
    /// The version that the client was told.
    version: String,
    initialized: bool,
}

impl Snapshot {
    /// The snapshot as bytes, to be kept and given to [`from_bytes`](Self::from_bytes).
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let Record {
            form,
            params,
            version,
            initialized,
        } = &self.0;
        let version = json::quote(version);
        format!(r#"{{"form":{form},"params":{params},"version":{version},"initialized":{initialized}}}"#).into()
    }

    /// Reads what [`to_bytes`](Self::to_bytes) made.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Malformed`] and [`SnapshotError::UnknownForm`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let record: Record = serde_json::from_slice(bytes).map_err(SnapshotError::Malformed)?;
        if record.form == FORM {
            Ok(Self(record))
        } else {
            Err(SnapshotError::UnknownForm(record.form))
        }
    }

    /// The version that the client holds.
    pub(crate) fn version(&self) -> &str {
        &self.0.version
    }

    /// Whether the client has confirmed the handshake.
    pub(crate) fn is_initialized(&self) -> bool {
        self.0.initialized
    }

    /// The `initialize` to replay. It asks for the version that the client holds, not for the one it once asked for.
    pub(crate) fn initialize(&self, id: &str) -> Option<Envelope> {
        let params = self.0.params.get();
        let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"initialize","params":{params}}}"#);
        let mut message = Envelope::parse(text.as_bytes()).ok()?;
        message.set_param("protocolVersion", &json::quote(&self.0.version));
        Some(message)
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("version", &self.0.version)
            .finish_non_exhaustive()
    }
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

    /// The record, once there is a result.
    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        let State::Done { params, version, .. } = &self.state else {
            return None;
        };
        let params = RawValue::from_string(params.to_string()).ok()?;
        Some(Snapshot(Record {
            form: FORM,
            params,
            version: version.to_string(),
            initialized: self.initialized,
        }))
    }
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

    fn done() -> Handshake {
        let mut handshake = Handshake::default();
        handshake.asked(1, &initialize("2025-11-25"));
        assert_eq!(
            handshake.answered(false, r#"{"protocolVersion":"2025-06-18"}"#),
            Outcome::Pass
        );
        handshake
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

    #[test]
    fn a_snapshot_survives_its_bytes_and_replays_what_the_client_holds() {
        let snapshot = done().snapshot().expect("done");
        let snapshot = Snapshot::from_bytes(&snapshot.to_bytes()).expect("a snapshot");
        assert_eq!(snapshot.version(), "2025-06-18");
        let replay = snapshot.initialize("9").expect("a message");
        assert_eq!(replay.params(), Some(r#"{"protocolVersion":"2025-06-18","x":1.0}"#));
        assert_eq!(format!("{snapshot:?}"), r#"Snapshot { version: "2025-06-18", .. }"#);
    }

    #[test]
    fn foreign_bytes_are_no_snapshot() {
        assert!(matches!(Snapshot::from_bytes(b"{}"), Err(SnapshotError::Malformed(_))));
        let newer = br#"{"form":2,"params":{},"version":"2025-11-25","initialized":true}"#;
        assert!(matches!(
            Snapshot::from_bytes(newer),
            Err(SnapshotError::UnknownForm(2))
        ));
    }
}
