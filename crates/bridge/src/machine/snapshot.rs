//! The record of a conversation that a later instance is made from, and the check that a server
//! still fits it.
//!
//! A snapshot is written in one format and read in that format and the one before. Its bytes come
//! from outside the crate, so they are validated like any input.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use crate::{
    error::SnapshotError,
    jsonrpc::json,
    tables::{lists::Lists, settings::ClientSettings},
};

/// The format that this version writes. It reads all formats from 1.
const FORMAT: u32 = 4;

/// The state of a conversation that outlives its process: the handshake, the client's settings,
/// and digests of the lists that it has fetched.
///
/// The bytes are JSON, but only a conversation reads them. `Debug` shows no content.
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
    /// The result of the newest server, unless it is too large. Missing before format 3.
    #[serde(default)]
    result: Option<Box<RawValue>>,
    /// The digests of the lists that the client has fetched. Missing before format 3.
    #[serde(default)]
    lists: BTreeMap<Box<str>, u64>,
    /// The clients are of 2026-07-28. Missing before format 4.
    #[serde(default)]
    modern: bool,
    /// No server has answered the handshake, or the client knows of no answer. Missing before
    /// format 4.
    #[serde(default)]
    negotiable: bool,
}

/// What a snapshot is made of. The texts are JSON.
pub(super) struct Parts<'a> {
    pub(super) params: &'a str,
    pub(super) result: Option<&'a str>,
    pub(super) version: &'a str,
    pub(super) initialized: bool,
    pub(super) capabilities: &'a Value,
    pub(super) settings: &'a ClientSettings,
    pub(super) lists: &'a BTreeMap<Box<str>, u64>,
    pub(super) modern: bool,
    pub(super) negotiable: bool,
}

impl Snapshot {
    /// `None` if the texts are not JSON.
    pub(super) fn new(parts: &Parts<'_>) -> Option<Self> {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).ok();
        Some(Self(Record {
            format: FORMAT,
            params: raw(parts.params)?,
            result: match parts.result {
                Some(result) => Some(raw(result)?),
                None => None,
            },
            version: parts.version.to_owned(),
            initialized: parts.initialized,
            capabilities: parts.capabilities.clone(),
            level: parts.settings.log_level.clone(),
            subscriptions: parts.settings.subscriptions.clone(),
            lists: parts.lists.clone(),
            modern: parts.modern,
            negotiable: parts.negotiable,
        }))
    }

    /// The state of a conversation whose handshake no client makes: the conversation makes it with
    /// its first server, with these parameters (JSON text).
    pub(crate) fn without_handshake(params: &str, version: &str, modern: bool) -> Option<Self> {
        Self::new(&Parts {
            params,
            result: None,
            version,
            initialized: true,
            capabilities: &Value::Null,
            settings: &ClientSettings::default(),
            lists: &BTreeMap::new(),
            modern,
            negotiable: true,
        })
    }

    /// The state for a conversation whose client would not notice another server: any version and
    /// any capabilities will do.
    #[must_use]
    pub fn renegotiable(mut self) -> Self {
        self.0.initialized = true;
        self.0.negotiable = true;
        self
    }

    pub(crate) fn is_modern(&self) -> bool {
        self.0.modern
    }

    pub(super) fn is_negotiable(&self) -> bool {
        self.0.negotiable
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

    pub(super) fn params(&self) -> &str {
        self.0.params.get()
    }

    pub(super) fn result(&self) -> Option<&str> {
        self.0.result.as_ref().map(|result| result.get())
    }

    pub(super) fn capabilities(&self) -> &Value {
        &self.0.capabilities
    }

    pub(super) fn settings(&self) -> ClientSettings {
        if self.0.modern {
            // They belong to requests and streams, none of which is left.
            return ClientSettings::default();
        }
        ClientSettings {
            log_level: self.0.level.clone(),
            subscriptions: self.0.subscriptions.clone(),
        }
    }

    pub(super) fn lists(&self) -> Lists {
        Lists::recorded(self.0.lists.clone())
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
pub(super) fn capabilities(result: &str) -> Value {
    let found = json::member(result, "capabilities").map(|at| &result[at]);
    found
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

/// The path of a capability that is in `held` and not in `offered`.
///
/// A capability is present as an object or as `true`. Other values are details of a capability and
/// are not compared.
pub(super) fn missing_capability(held: &Value, offered: &Value) -> Option<String> {
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
    use crate::tables::settings::ClientSetting;

    #[test]
    fn a_snapshot_roundtrips() {
        let mut settings = ClientSettings::default();
        settings.apply(ClientSetting::LogLevel("debug".into()), 9);
        settings.apply(ClientSetting::Subscribe("a:\"1\"".into()), 9);
        let lists = BTreeMap::from([("tools/list".into(), u64::MAX)]);
        let result = r#"{"capabilities":{"tools":{}}}"#;
        let snapshot = Snapshot::new(&Parts {
            params: r#"{"x":1.0}"#,
            result: Some(result),
            version: "2025-06-18",
            initialized: true,
            capabilities: &capabilities(result),
            settings: &settings,
            lists: &lists,
            modern: false,
            negotiable: false,
        });
        let bytes = snapshot.expect("JSON").to_bytes();
        let snapshot = Snapshot::from_bytes(&bytes).expect("a snapshot");
        assert_eq!(snapshot.version(), "2025-06-18");
        assert!(snapshot.is_initialized());
        assert_eq!((snapshot.params(), snapshot.result()), (r#"{"x":1.0}"#, Some(result)));
        assert_eq!(snapshot.settings(), settings);
        assert_eq!(*snapshot.lists().digests(), lists);
        assert_eq!(snapshot.to_bytes(), bytes);
        assert_eq!(format!("{snapshot:?}"), r#"Snapshot { version: "2025-06-18", .. }"#);
    }

    #[test]
    fn earlier_formats_are_readable() {
        let old = br#"{"form":1,"params":{"x":1.0},"version":"2025-11-25","initialized":true}"#;
        let snapshot = Snapshot::from_bytes(old).expect("a snapshot");
        assert_eq!(snapshot.settings(), ClientSettings::default());
        assert_eq!(missing_capability(snapshot.capabilities(), &Value::Null), None);
        let text = String::from_utf8(snapshot.to_bytes().into()).expect("text");
        assert!(
            text.contains(r#""form":4"#) && text.contains(r#""params":{"x":1.0}"#),
            "{text}"
        );
        let old = br#"{"form":2,"params":{},"version":"2025-11-25","initialized":true,"capabilities":{"tools":{}},"level":"debug","subscriptions":["a:b"]}"#;
        let snapshot = Snapshot::from_bytes(old).expect("a snapshot");
        assert_eq!(snapshot.settings().iter().count(), 2);
        assert_eq!(snapshot.result(), None);
    }

    #[test]
    fn invalid_bytes_are_rejected() {
        for bytes in [&b"{}"[..], b"", b"{\"form\":2}", b"[2]"] {
            assert!(matches!(Snapshot::from_bytes(bytes), Err(SnapshotError::Malformed(_))));
        }
        for form in [0, 5] {
            let newer = format!(r#"{{"form":{form}}}"#);
            let read = Snapshot::from_bytes(newer.as_bytes());
            assert!(matches!(read, Err(SnapshotError::UnknownFormat(read)) if read == form));
        }
    }

    #[test]
    fn a_server_fits_if_it_has_all_promised_capabilities() {
        let held = r#"{"capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":true,"listChanged":false},"experimental":{"x":{"v":1}}}}"#;
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
            let missing = missing_capability(&capabilities(held), &capabilities(offered));
            assert_eq!(missing.as_deref(), lacks, "{offered}");
        }
    }
}
