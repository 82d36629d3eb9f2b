//! The record that one server passes to the next, and the check that the next one fits.
//!
//! A snapshot is written in one format and read in that format and the one before. Its bytes come
//! from outside the crate, so they are validated like any input.

use std::{collections::BTreeSet, fmt};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use super::client_settings::ClientSettings;
use crate::{
    error::SnapshotError,
    jsonrpc::{Envelope, json},
};

/// The format that this version writes. It reads all formats from 1.
const FORMAT: u32 = 2;

/// The state that a fresh server needs to replace the one before it.
///
/// The bytes are JSON, but only a bridge reads them. `Debug` shows no content.
#[derive(Clone)]
pub struct Snapshot(Record);

#[derive(Clone, Deserialize, Serialize)]
struct Record {
    #[serde(rename = "form")]
    format: u32,
    /// The client's `params` of `initialize`; only their version may have changed.
    params: Box<RawValue>,
    /// The version that the client has.
    version: String,
    initialized: bool,
    /// The capabilities that the client was promised. Missing in format 1.
    #[serde(default)]
    capabilities: Value,
    /// The log level that was set last. Missing in format 1.
    #[serde(default)]
    level: Option<Box<str>>,
    /// The URIs of the subscriptions. Missing in format 1.
    #[serde(default)]
    subscriptions: BTreeSet<Box<str>>,
}

impl Snapshot {
    /// A snapshot of a handshake and the settings since. `None` if `params` is not JSON.
    pub(super) fn new(
        params: &str,
        result: &str,
        version: &str,
        initialized: bool,
        settings: &ClientSettings,
    ) -> Option<Self> {
        Some(Self(Record {
            format: FORMAT,
            params: RawValue::from_string(params.to_owned()).ok()?,
            version: version.to_owned(),
            initialized,
            capabilities: capabilities(result),
            level: settings.log_level.clone(),
            subscriptions: settings.subscriptions.clone(),
        }))
    }

    /// Encodes the snapshot for [`from_bytes`](Self::from_bytes).
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "a record always serializes")]
    pub fn to_bytes(&self) -> Bytes {
        let json = serde_json::to_vec(&self.0).expect("its keys are strings and its values are JSON");
        json.into()
    }

    /// Decodes the output of [`to_bytes`](Self::to_bytes) of this version or an earlier one.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Malformed`] and [`SnapshotError::UnknownFormat`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SnapshotError> {
        #[derive(Deserialize)]
        struct Header {
            form: u32,
        }
        let Header { form } = serde_json::from_slice(bytes).map_err(SnapshotError::Malformed)?;
        if !(1..=FORMAT).contains(&form) {
            return Err(SnapshotError::UnknownFormat(form));
        }
        let record: Record = serde_json::from_slice(bytes).map_err(SnapshotError::Malformed)?;
        Ok(Self(Record {
            format: FORMAT,
            ..record
        }))
    }

    pub(crate) fn version(&self) -> &str {
        &self.0.version
    }

    /// True if the client has confirmed the handshake.
    #[must_use]
    pub fn is_initialized(&self) -> bool {
        self.0.initialized
    }

    /// The `initialize` to replay. It requests the version that the client has, not the one that
    /// the client requested.
    pub(super) fn initialize(&self, id: &str) -> Option<Envelope> {
        let params = self.0.params.get();
        let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"initialize","params":{params}}}"#);
        let mut message = Envelope::parse(text.as_bytes()).ok()?;
        message.set_param("protocolVersion", &json::quote(&self.0.version));
        Some(message)
    }

    pub(super) fn settings(&self) -> ClientSettings {
        ClientSettings {
            log_level: self.0.level.clone(),
            subscriptions: self.0.subscriptions.clone(),
        }
    }

    /// A capability that the client was promised and that a server with this `InitializeResult`
    /// lacks.
    pub(crate) fn missing_in(&self, result: &str) -> Option<String> {
        missing_capability(&self.0.capabilities, &capabilities(result))
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("version", &self.0.version)
            .finish_non_exhaustive()
    }
}

/// The capabilities in an `InitializeResult`; `null` if there are none.
fn capabilities(result: &str) -> Value {
    let found = json::member(result, "capabilities").map(|at| &result[at]);
    found
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

/// The path of a capability that is in `held` and not in `offered`.
///
/// A capability is present as an object or as `true`. Other values are details of a capability and
/// are not compared.
fn missing_capability(held: &Value, offered: &Value) -> Option<String> {
    let is_present = |value: &Value| value.is_object() || *value == Value::Bool(true);
    let Value::Object(held) = held else { return None };
    held.iter().find_map(|(name, held)| {
        let offered = offered.get(name).unwrap_or(&Value::Null);
        if is_present(held) && !is_present(offered) {
            return Some(name.clone());
        }
        missing_capability(held, offered).map(|inner| format!("{name}.{inner}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::legacy::client_settings::ClientSetting;

    fn snapshot(result: &str, settings: &ClientSettings) -> Snapshot {
        let params = r#"{"protocolVersion":"2025-11-25","x":1.0}"#;
        Snapshot::new(params, result, "2025-06-18", true, settings).expect("a snapshot")
    }

    #[test]
    fn a_snapshot_roundtrips_and_replays_the_state_of_the_client() {
        let mut settings = ClientSettings::default();
        settings.apply(ClientSetting::LogLevel("debug".into()), 9);
        settings.apply(ClientSetting::Subscribe("a:\"1\"".into()), 9);
        let snapshot = snapshot("{}", &settings);
        let snapshot = Snapshot::from_bytes(&snapshot.to_bytes()).expect("a snapshot");
        assert_eq!(snapshot.version(), "2025-06-18");
        assert!(snapshot.is_initialized());
        let replay = snapshot.initialize("9").expect("a message");
        assert_eq!(replay.params(), Some(r#"{"protocolVersion":"2025-06-18","x":1.0}"#));
        assert_eq!(snapshot.settings(), settings);
        assert_eq!(format!("{snapshot:?}"), r#"Snapshot { version: "2025-06-18", .. }"#);
    }

    #[test]
    fn the_previous_format_is_readable() {
        let old = br#"{"form":1,"params":{"x":1.0},"version":"2025-11-25","initialized":true}"#;
        let snapshot = Snapshot::from_bytes(old).expect("a snapshot");
        assert_eq!(snapshot.settings(), ClientSettings::default());
        assert_eq!(snapshot.missing_in("{}"), None);
        let text = String::from_utf8(snapshot.to_bytes().into()).expect("text");
        assert!(
            text.contains(r#""form":2"#) && text.contains(r#""params":{"x":1.0}"#),
            "{text}"
        );
    }

    #[test]
    fn invalid_bytes_are_rejected() {
        for bytes in [&b"{}"[..], b"", b"{\"form\":2}", b"[2]"] {
            assert!(matches!(Snapshot::from_bytes(bytes), Err(SnapshotError::Malformed(_))));
        }
        for form in [0, 3] {
            let newer = format!(r#"{{"form":{form}}}"#);
            let read = Snapshot::from_bytes(newer.as_bytes());
            assert!(matches!(read, Err(SnapshotError::UnknownFormat(read)) if read == form));
        }
    }

    #[test]
    fn a_server_fits_if_it_has_all_promised_capabilities() {
        let held = r#"{"capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":true,"listChanged":false},"experimental":{"x":{"v":1}}}}"#;
        let snapshot = snapshot(held, &ClientSettings::default());
        for (offered, lacks) in [
            (held, None),
            (
                r#"{"capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":true,"more":true},"experimental":{"x":{"v":2}},"logging":{}}}"#,
                None,
            ),
            (
                r#"{"capabilities":{"tools":{},"resources":{"subscribe":true},"experimental":{"x":{}}}}"#,
                Some("tools.listChanged"),
            ),
            (
                r#"{"capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":false},"experimental":{"x":{}}}}"#,
                Some("resources.subscribe"),
            ),
            (
                r#"{"capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":true},"experimental":{}}}"#,
                Some("experimental.x"),
            ),
            (r#"{"capabilities":[]}"#, Some("experimental")),
            ("{}", Some("experimental")),
        ] {
            assert_eq!(snapshot.missing_in(offered).as_deref(), lacks, "{offered}");
        }
    }
}
