//! What is handed from one server to the next, and whether the next one is fit to take it.
//!
//! A snapshot is written in one form and read in that and the one before it. Its bytes are kept by somebody else, so what is read
//! is checked like anything that comes from outside.

use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::wishes::Wishes;
use crate::{envelope::Envelope, error::SnapshotError, json};

/// The form of snapshots that this version writes. It reads all from 1.
const FORM: u32 = 2;

/// What a fresh server must be told to stand in for the one before it.
///
/// Its bytes are JSON, but only a bridge reads them. `Debug` shows no content.
#[derive(Clone)]
pub struct Snapshot(Record);

#[derive(Clone, Deserialize)]
struct Record {
    form: u32,
    /// The `params` of `initialize`, as the client wrote them but for the version.
    params: Box<RawValue>,
    /// The version that the client was told.
    version: String,
    initialized: bool,
    /// The capabilities that the client was told of. Not in form 1.
    #[serde(default)]
    capabilities: Value,
    /// The log level that was set last. Not in form 1.
    #[serde(default)]
    level: Option<String>,
    /// The URIs that are subscribed to. Not in form 1.
    #[serde(default)]
    subscriptions: Vec<Box<str>>,
}

impl Snapshot {
    /// A snapshot of a handshake and of what was asked for since. `None` if the parts are not what a server and a client have said.
    pub(crate) fn new(params: &str, result: &str, version: &str, initialized: bool, wishes: &Wishes) -> Option<Self> {
        Some(Self(Record {
            form: FORM,
            params: RawValue::from_string(params.to_owned()).ok()?,
            version: version.to_owned(),
            initialized,
            capabilities: capabilities(result),
            level: wishes.level.as_deref().and_then(json::string),
            subscriptions: wishes.subscriptions.iter().cloned().collect(),
        }))
    }

    /// The snapshot as bytes, to be kept and given to [`from_bytes`](Self::from_bytes).
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let Record {
            form,
            params,
            version,
            initialized,
            capabilities,
            level,
            subscriptions,
        } = &self.0;
        let (version, level) = (json::quote(version), Value::from(level.as_deref()));
        let subscriptions: Vec<_> = subscriptions.iter().map(|uri| json::quote(uri)).collect();
        let subscriptions = subscriptions.join(",");
        // Written by hand so that the parameters stay as they are, byte for byte.
        let head = format!(r#""form":{form},"params":{params},"version":{version},"initialized":{initialized}"#);
        let rest = format!(r#""capabilities":{capabilities},"level":{level},"subscriptions":[{subscriptions}]"#);
        format!("{{{head},{rest}}}").into()
    }

    /// Reads what [`to_bytes`](Self::to_bytes) made, now or in an earlier version.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Malformed`] and [`SnapshotError::UnknownForm`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SnapshotError> {
        #[derive(Deserialize)]
        struct Form {
            form: u32,
        }
        let Form { form } = serde_json::from_slice(bytes).map_err(SnapshotError::Malformed)?;
        if !(1..=FORM).contains(&form) {
            return Err(SnapshotError::UnknownForm(form));
        }
        let record: Record = serde_json::from_slice(bytes).map_err(SnapshotError::Malformed)?;
        Ok(Self(Record { form: FORM, ..record }))
    }

    /// The version that the client holds.
    pub(crate) fn version(&self) -> &str {
        &self.0.version
    }

    /// Whether the client has confirmed the handshake.
    #[must_use]
    pub fn is_initialized(&self) -> bool {
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

    /// What the client has asked for since.
    pub(crate) fn wishes(&self) -> Wishes {
        Wishes {
            level: self.0.level.as_deref().map(|level| json::quote(level).into()),
            subscriptions: self.0.subscriptions.iter().cloned().collect(),
        }
    }

    /// A capability that the client was told of and that a server with this `InitializeResult` does not have.
    pub(crate) fn missing_in(&self, result: &str) -> Option<String> {
        missing(&self.0.capabilities, &capabilities(result))
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

/// The path of a capability that is in `held` and not in `offered`. A capability is an object that is there, with
/// sub-capabilities that are there or true; anything else in it says how, not whether.
fn missing(held: &Value, offered: &Value) -> Option<String> {
    let Value::Object(held) = held else { return None };
    held.iter().find_map(|(name, held)| {
        let offered = offered.get(name).unwrap_or(&Value::Null);
        let is_held = held.is_object() || *held == Value::Bool(true);
        let is_offered = offered.is_object() || *offered == Value::Bool(true);
        if is_held && !is_offered {
            return Some(name.clone());
        }
        missing(held, offered).map(|inner| format!("{name}.{inner}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::legacy::wishes::Wish;

    fn snapshot(result: &str, wishes: &Wishes) -> Snapshot {
        let params = r#"{"protocolVersion":"2025-11-25","x":1.0}"#;
        Snapshot::new(params, result, "2025-06-18", true, wishes).expect("a snapshot")
    }

    #[test]
    fn a_snapshot_survives_its_bytes_and_replays_what_the_client_holds() {
        let mut wishes = Wishes::default();
        wishes.grant(Wish::Level("\"debug\"".into()), 9);
        wishes.grant(Wish::Subscribe("a:\"1\"".into()), 9);
        let snapshot = snapshot("{}", &wishes);
        let snapshot = Snapshot::from_bytes(&snapshot.to_bytes()).expect("a snapshot");
        assert_eq!(snapshot.version(), "2025-06-18");
        assert!(snapshot.is_initialized());
        let replay = snapshot.initialize("9").expect("a message");
        assert_eq!(replay.params(), Some(r#"{"protocolVersion":"2025-06-18","x":1.0}"#));
        assert_eq!(snapshot.wishes(), wishes);
        assert_eq!(format!("{snapshot:?}"), r#"Snapshot { version: "2025-06-18", .. }"#);
    }

    #[test]
    fn the_form_before_is_read() {
        let old = br#"{"form":1,"params":{"x":1.0},"version":"2025-11-25","initialized":true}"#;
        let snapshot = Snapshot::from_bytes(old).expect("a snapshot");
        assert_eq!(snapshot.wishes(), Wishes::default());
        assert_eq!(snapshot.missing_in("{}"), None);
        let text = String::from_utf8(snapshot.to_bytes().into()).expect("text");
        assert!(
            text.contains(r#""form":2"#) && text.contains(r#""params":{"x":1.0}"#),
            "{text}"
        );
    }

    #[test]
    fn foreign_bytes_are_no_snapshot() {
        for bytes in [&b"{}"[..], b"", b"{\"form\":2}", b"[2]"] {
            assert!(matches!(Snapshot::from_bytes(bytes), Err(SnapshotError::Malformed(_))));
        }
        for form in [0, 3] {
            let newer = format!(r#"{{"form":{form}}}"#);
            let read = Snapshot::from_bytes(newer.as_bytes());
            assert!(matches!(read, Err(SnapshotError::UnknownForm(read)) if read == form));
        }
    }

    #[test]
    fn a_server_fits_if_it_has_what_the_client_was_told_of() {
        let held = r#"{"capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":true,"listChanged":false},"experimental":{"x":{"v":1}}}}"#;
        let snapshot = snapshot(held, &Wishes::default());
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
