//! The handshake of a session: recorded as it passes, replayed to each new server, and answered
//! again from the record.
//!
//! A conversation never negotiates above [`LATEST`]. It lowers an `initialize` that requests more
//! before the server sees it, and a server that answers with more has not agreed on a version (MCP
//! 2025-11-25, "Version Negotiation"). The record includes the client's settings. A new server must
//! agree on the client's version and have each capability that the client was promised.

use std::ops::Range;

use bytes::Bytes;
use serde_json::Value;

use super::snapshot::{self, Snapshot};
use crate::{
    error::ConnectError,
    jsonrpc::{self, Envelope, json},
    tables::{
        lists::Lists,
        settings::{ClientSetting, ClientSettings},
    },
    versions::{LATEST, SUPPORTED, WITH_HANDSHAKE},
};

/// The largest parameters of an `initialize`, in bytes. They are stored for the life of a session.
const MAX_PARAMS_BYTES: usize = 64 * 1024;
/// The largest result of an `initialize` that is stored.
const MAX_RESULT_BYTES: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Handshake {
    state: HandshakeState,
    /// The client has sent `notifications/initialized`.
    initialized: bool,
    /// The record comes from an earlier instance.
    restored: bool,
    /// The clients are of 2026-07-28.
    modern: bool,
    settings: ClientSettings,
    /// Grows with each change of the snapshot.
    revision: u64,
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
    /// The parameters of the client's `initialize`.
    params: Box<str>,
    /// The result of the newest server. Unknown until the first replay if an earlier instance has
    /// not recorded it.
    result: Option<InitializeResult>,
    /// The version that the client has.
    version: Box<str>,
    /// The capabilities that the client was promised.
    capabilities: Value,
    /// No client knows the version and the capabilities of a server yet, so any server fits that
    /// speaks a supported version.
    negotiable: bool,
}

/// The result of an `initialize`.
#[derive(Debug)]
struct InitializeResult {
    text: Box<str>,
    /// Where the text has `serverInfo`, which goes with every response to a client of 2026-07-28.
    server_info: Option<Range<usize>>,
}

impl Handshake {
    /// The handshake of an earlier instance.
    pub(super) fn restored(snapshot: &Snapshot) -> Self {
        Self {
            state: HandshakeState::Complete(Record {
                params: snapshot.params().into(),
                result: snapshot.result().map(InitializeResult::new),
                version: snapshot.version().into(),
                capabilities: snapshot.capabilities().clone(),
                negotiable: snapshot.is_negotiable(),
            }),
            initialized: snapshot.is_initialized(),
            restored: true,
            modern: snapshot.is_modern(),
            settings: snapshot.settings(),
            revision: 0,
        }
    }

    /// Records that an `initialize` is in flight under this number.
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
            result: Some(InitializeResult::new(outcome)),
            version: version.into(),
            capabilities: snapshot::capabilities(outcome),
            negotiable: false,
        });
        None
    }

    pub(super) fn abort(&mut self) {
        self.state = HandshakeState::NotStarted;
    }

    /// True once a server has accepted the client's `initialize`.
    pub(crate) fn has_record(&self) -> bool {
        self.record().is_some()
    }

    /// The recorded `initialize` for a new server, under this number. It requests the version that
    /// the client has, not the one that the client requested.
    pub(super) fn initialize(&self, number: u64) -> Option<Bytes> {
        let record = self.record()?;
        let text = jsonrpc::request(number, "initialize", &record.params);
        let mut message = Envelope::parse(text.as_bytes()).ok()?;
        message.set_param("protocolVersion", &json::quote(&record.version));
        Some(message.into_line())
    }

    /// Checks the answer of a new server to the recorded `initialize`, and records it. True if the
    /// record has changed.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Refused`], [`ConnectError::Unusable`], [`ConnectError::VersionChanged`] and
    /// [`ConnectError::CapabilityMissing`].
    pub(super) fn check_replay(&mut self, error: bool, outcome: &str) -> Result<bool, ConnectError> {
        if error {
            let code = jsonrpc::error_code(outcome).ok_or(ConnectError::Unusable)?;
            return Err(ConnectError::Refused { code });
        }
        let negotiated = result_version(outcome).ok_or(ConnectError::Unusable)?;
        let HandshakeState::Complete(record) = &mut self.state else {
            return Err(ConnectError::Unusable);
        };
        let offered = snapshot::capabilities(outcome);
        if record.negotiable && WITH_HANDSHAKE.contains(&&*negotiated) {
            record.negotiable = false;
            record.version = negotiated.into();
            record.capabilities = offered;
            record.result = Some(InitializeResult::new(outcome));
            return Ok(true);
        }
        if negotiated.as_str() != &*record.version {
            return Err(ConnectError::VersionChanged {
                held: record.version.to_string(),
                negotiated,
            });
        }
        if let Some(capability) = snapshot::missing_capability(&record.capabilities, &offered) {
            return Err(ConnectError::CapabilityMissing { capability });
        }
        let changed = record.result.as_ref().is_none_or(|result| &*result.text != outcome);
        record.result = Some(InitializeResult::new(outcome));
        Ok(changed)
    }

    /// True if the client has confirmed this handshake, so that the server needs no confirmation.
    pub(super) fn is_confirmed(&self) -> bool {
        self.initialized
    }

    /// Records `notifications/initialized`. Before there is a result it confirms nothing. True if
    /// the record has changed.
    pub(super) fn confirm(&mut self) -> bool {
        let changed = self.has_record() && !self.initialized;
        self.initialized |= changed;
        changed
    }

    /// Notes a message that a client sends after its confirmation only. True if the record of an
    /// earlier instance lacks the confirmation.
    pub(super) fn prove_confirmed(&mut self) -> bool {
        self.restored && self.confirm()
    }

    /// The version that the client has.
    pub(crate) fn version(&self) -> Option<&str> {
        self.record().map(|record| &*record.version)
    }

    /// True if the capabilities of the servers are known.
    pub(crate) fn is_negotiated(&self) -> bool {
        self.record().is_some_and(|record| !record.negotiable)
    }

    /// True if a server has answered the handshake, if only one before a restart.
    pub(crate) fn has_result(&self) -> bool {
        self.result().is_some()
    }

    /// The recorded `InitializeResult`.
    pub(super) fn result(&self) -> Option<&str> {
        Some(&self.record()?.result.as_ref()?.text)
    }

    /// The capabilities of the server.
    pub(super) fn capabilities(&self) -> Option<&Value> {
        self.record().map(|record| &record.capabilities)
    }

    /// The capabilities that the server knows of its client (JSON text).
    pub(super) fn client_capabilities(&self) -> Option<&str> {
        let params = &self.record()?.params;
        Some(&params[json::member(params, "capabilities")?])
    }

    /// True if the server has this capability.
    pub(super) fn has_capability(&self, name: &str) -> bool {
        let capability = self.capabilities().and_then(|capabilities| capabilities.get(name));
        capability.is_some_and(Value::is_object)
    }

    /// What the server says about itself (JSON text).
    pub(crate) fn server_info(&self) -> Option<&str> {
        let result = self.record()?.result.as_ref()?;
        Some(&result.text[result.server_info.clone()?])
    }

    pub(super) fn settings(&self) -> &ClientSettings {
        &self.settings
    }

    /// Records a setting that a server has granted. `false` if it does not fit.
    pub(super) fn apply_setting(&mut self, setting: ClientSetting, max_subscriptions: usize) -> bool {
        self.settings.apply(setting, max_subscriptions)
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn grow_revision(&mut self) {
        self.revision += 1;
    }

    pub(super) fn snapshot(&self, lists: &Lists) -> Option<Snapshot> {
        let record = self.record()?;
        let result = self.result().filter(|result| result.len() <= MAX_RESULT_BYTES);
        Snapshot::new(&snapshot::Parts {
            params: &record.params,
            result,
            version: &record.version,
            initialized: self.initialized,
            capabilities: &record.capabilities,
            settings: &self.settings,
            lists: lists.digests(),
            modern: self.modern,
            negotiable: record.negotiable,
        })
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

impl InitializeResult {
    fn new(text: &str) -> Self {
        Self {
            text: text.into(),
            server_info: json::member(text, "serverInfo"),
        }
    }
}

pub(crate) fn result_version(result: &str) -> Option<String> {
    json::string(&result[json::member(result, "protocolVersion")?])
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
        assert!(handshake.snapshot(&Lists::default()).is_none());
        handshake.confirm();
        assert!(!handshake.is_confirmed());
        handshake.begin(1, &initialize("2025-11-25"));
        assert!(handshake.is_pending(1) && !handshake.is_pending(2));
        assert!(handshake.is_in_progress());
        assert!(handshake.snapshot(&Lists::default()).is_none());
        handshake.complete(false, r#"{"protocolVersion":"2025-06-18","s":2}"#);
        assert_eq!(handshake.result(), Some(r#"{"protocolVersion":"2025-06-18","s":2}"#));
        assert_eq!(handshake.version(), Some("2025-06-18"));
        assert!(!handshake.snapshot(&Lists::default()).expect("done").is_initialized());
        handshake.confirm();
        assert!(handshake.is_confirmed());
        assert!(handshake.snapshot(&Lists::default()).expect("done").is_initialized());
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
        assert!(handshake.snapshot(&Lists::default()).is_none());
    }
}
