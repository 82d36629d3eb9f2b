//! The handshake of a session: recorded as it passes, exported as a snapshot, and answered again
//! from the record.
//!
//! A bridge never negotiates above [`LATEST`]. It lowers an `initialize` that requests more before
//! the server sees it, and a server that answers with more has not agreed on a version (MCP
//! 2025-11-25, "Version Negotiation"). The record includes the client's settings.

use super::{
    client_settings::{ClientSetting, ClientSettings},
    snapshot::Snapshot,
};
use crate::jsonrpc::{Envelope, json};

/// The newest protocol version with a handshake.
pub(crate) const LATEST: &str = "2025-11-25";
/// The largest parameters of an `initialize`, in bytes. They are stored for the life of a session.
const MAX_PARAMS_BYTES: usize = 64 * 1024;
/// The protocol versions of Streamable HTTP.
pub(crate) const SUPPORTED: [&str; 3] = ["2025-03-26", "2025-06-18", LATEST];

#[derive(Debug, Default)]
pub(crate) struct Handshake {
    state: HandshakeState,
    /// The client has sent `notifications/initialized`.
    initialized: bool,
    settings: ClientSettings,
}

#[derive(Debug, Default)]
enum HandshakeState {
    #[default]
    NotStarted,
    Pending {
        number: u64,
        params: Box<str>,
    },
    Complete(Record),
}

#[derive(Debug)]
struct Record {
    params: Box<str>,
    result: Box<str>,
    version: Box<str>,
}

impl Handshake {
    /// Records that an `initialize` has gone to the server under this number.
    pub(super) fn begin(&mut self, number: u64, message: &Envelope) {
        self.state = HandshakeState::Pending {
            number,
            params: message.params().unwrap_or("{}").into(),
        };
    }

    pub(super) fn is_in_progress(&self) -> bool {
        matches!(self.state, HandshakeState::Pending { .. })
    }

    /// True if the request of this number is the pending `initialize`.
    pub(super) fn is_pending(&self, number: u64) -> bool {
        matches!(&self.state, HandshakeState::Pending { number: pending, .. } if *pending == number)
    }

    /// Records the answer to the pending `initialize`. Only a result with a supported version
    /// completes the handshake. Returns the version of the server if it is too new.
    pub(super) fn complete(&mut self, error: bool, outcome: &str) -> Option<String> {
        let HandshakeState::Pending { params, .. } = std::mem::take(&mut self.state) else {
            return None;
        };
        let version = (!error).then(|| result_version(outcome)).flatten()?;
        if version.as_str() > LATEST {
            return Some(version);
        }
        self.state = HandshakeState::Complete(Record {
            params,
            result: outcome.into(),
            version: version.into(),
        });
        None
    }

    pub(super) fn abort(&mut self) {
        self.state = HandshakeState::NotStarted;
    }

    /// True if the client has confirmed this handshake, so that the server needs no confirmation.
    pub(super) fn is_confirmed(&self) -> bool {
        self.initialized
    }

    /// Records `notifications/initialized`. Before there is a result it confirms nothing.
    pub(super) fn confirm(&mut self) {
        self.initialized = self.record().is_some();
    }

    pub(crate) fn version(&self) -> Option<&str> {
        self.record().map(|record| &*record.version)
    }

    /// The recorded `InitializeResult`.
    pub(super) fn result(&self) -> Option<&str> {
        self.record().map(|record| &*record.result)
    }

    /// Records a setting that the server has accepted. `false` if it does not fit.
    pub(super) fn apply_setting(&mut self, setting: ClientSetting, max_subscriptions: usize) -> bool {
        self.settings.apply(setting, max_subscriptions)
    }

    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        let record = self.record()?;
        Snapshot::new(
            &record.params,
            &record.result,
            &record.version,
            self.initialized,
            &self.settings,
        )
    }

    fn record(&self) -> Option<&Record> {
        match &self.state {
            HandshakeState::Complete(record) => Some(record),
            HandshakeState::NotStarted | HandshakeState::Pending { .. } => None,
        }
    }
}

/// True if the parameters of an `initialize` are too large to store.
pub(super) fn is_too_large(message: &Envelope) -> bool {
    message.params().is_some_and(|params| params.len() > MAX_PARAMS_BYTES)
}

/// Lowers the version that an `initialize` requests to [`LATEST`]. Versions are dates, or draft
/// names, which compare as newer.
pub(super) fn lower_version(message: &mut Envelope) {
    let requested = message.param("protocolVersion").and_then(json::string);
    if requested.is_some_and(|requested| requested.as_str() > LATEST) {
        message.set_param("protocolVersion", &json::quote(LATEST));
    }
}

pub(crate) fn result_version(result: &str) -> Option<String> {
    json::string(&result[json::member(result, "protocolVersion")?])
}

pub(crate) fn error_code(error: &str) -> Option<i64> {
    error[json::member(error, "code")?].parse().ok()
}

/// The `data` of an error about an unsupported version (JSON text).
pub(crate) fn unsupported_version(requested: &str) -> String {
    let supported = SUPPORTED.map(json::quote).join(",");
    let requested = json::quote(requested);
    format!(r#"{{"supported":[{supported}],"requested":{requested}}}"#)
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

    fn is_not_started(handshake: &Handshake) -> bool {
        !handshake.is_in_progress() && handshake.result().is_none()
    }

    #[test]
    fn a_version_above_the_latest_is_lowered() {
        for (requested, sent) in [
            ("2026-07-28", LATEST),
            ("DRAFT-2026", LATEST),
            ("2025-11-25", "2025-11-25"),
            ("2025-03-26", "2025-03-26"),
            ("2024-11-05", "2024-11-05"),
        ] {
            let mut message = initialize(requested);
            lower_version(&mut message);
            assert_eq!(
                message.params(),
                Some(format!(r#"{{"protocolVersion":"{sent}","x":1.0}}"#).as_str())
            );
        }
    }

    #[test]
    fn a_snapshot_needs_a_result() {
        let mut handshake = Handshake::default();
        assert!(handshake.snapshot().is_none());
        handshake.confirm();
        assert!(!handshake.is_confirmed());
        handshake.begin(1, &initialize("2025-11-25"));
        assert!(handshake.is_pending(1) && !handshake.is_pending(2));
        assert!(handshake.is_in_progress());
        assert!(handshake.snapshot().is_none());
        handshake.complete(false, r#"{"protocolVersion":"2025-06-18","s":2}"#);
        assert_eq!(handshake.result(), Some(r#"{"protocolVersion":"2025-06-18","s":2}"#));
        assert_eq!(handshake.version(), Some("2025-06-18"));
        assert!(!handshake.snapshot().expect("done").is_initialized());
        handshake.confirm();
        assert!(handshake.is_confirmed());
        assert!(handshake.snapshot().expect("done").is_initialized());
    }

    #[test]
    fn a_failed_initialize_may_be_retried() {
        for outcome in ["{}", "3", "{\"protocolVersion\":4}"] {
            let mut handshake = Handshake::default();
            handshake.begin(1, &initialize("2025-11-25"));
            assert_eq!(handshake.complete(false, outcome), None);
            assert!(is_not_started(&handshake));
        }
        let mut handshake = Handshake::default();
        handshake.begin(1, &initialize("2025-11-25"));
        assert_eq!(handshake.complete(true, r#"{"protocolVersion":"2025-11-25"}"#), None);
        assert!(is_not_started(&handshake));
    }

    #[test]
    fn a_result_with_a_newer_version_does_not_complete_the_handshake() {
        let mut handshake = Handshake::default();
        handshake.begin(1, &initialize("2025-11-25"));
        assert_eq!(
            handshake.complete(false, r#"{"protocolVersion":"2026-07-28"}"#),
            Some("2026-07-28".into())
        );
        assert!(handshake.snapshot().is_none());
    }
}
