//! The capabilities that a client declares with a request, and the handshake that a server gets for
//! them.
//!
//! Requests with equal capabilities share a server: many servers decide by them which tools they
//! offer, and a question may only go to a request that has declared it.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::TASKS_EXTENSION;
use crate::{
    jsonrpc::{json::quote, object::Object},
    versions::LATEST,
};

/// The methods with which a server asks its client.
pub(crate) const ELICITATION: &str = "elicitation/create";
pub(crate) const SAMPLING: &str = "sampling/createMessage";
pub(crate) const ROOTS: &str = "roots/list";

/// The capabilities of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientCapabilities {
    /// In the form of 2025-11-25, without those of tasks.
    normal: Value,
    /// The client knows tasks.
    pub(crate) tasks: bool,
}

impl ClientCapabilities {
    /// Reads the capabilities of a request (JSON text); `None` if they are not an object.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let Value::Object(declared) = serde_json::from_str(text).ok()? else {
            return None;
        };
        let object = |value: Option<&Value>| value.and_then(Value::as_object).cloned();
        let mut normal = Map::new();
        if let Some(elicitation) = object(declared.get("elicitation")) {
            let url = elicitation.contains_key("url");
            // An empty object means forms.
            let form = elicitation.contains_key("form") || !url;
            normal.insert("elicitation".into(), flags([("form", form), ("url", url)]));
        }
        if let Some(sampling) = object(declared.get("sampling")) {
            let has = |name| sampling.contains_key(name);
            let sampling = flags([("tools", has("tools")), ("context", has("context"))]);
            normal.insert("sampling".into(), sampling);
        }
        if declared.get("roots").is_some_and(Value::is_object) {
            normal.insert("roots".into(), json!({ "listChanged": false }));
        }
        let mut extensions = object(declared.get("extensions")).unwrap_or_default();
        let tasks = extensions.remove(TASKS_EXTENSION).is_some();
        if !extensions.is_empty() {
            normal.insert("extensions".into(), extensions.into());
        }
        if let Some(experimental) = object(declared.get("experimental")).filter(|map| !map.is_empty()) {
            normal.insert("experimental".into(), experimental.into());
        }
        let normal = normal.into();
        Some(Self { normal, tasks })
    }

    /// Names the set of capabilities: equal sets have equal names in every process.
    pub(crate) fn fingerprint(&self) -> [u8; 16] {
        let hash = Sha256::digest(self.normal.to_string());
        *hash.first_chunk().expect("a SHA-256 has 32 bytes")
    }

    /// The parameters of `initialize` for a server (JSON text).
    pub(crate) fn initialize_params(&self, client_info: Option<&str>) -> String {
        let client_info = client_info.unwrap_or(r#"{"name":"unknown","version":"0"}"#);
        format!(
            r#"{{"protocolVersion":"{LATEST}","capabilities":{},"clientInfo":{client_info}}}"#,
            self.normal
        )
    }

    /// What a question needs and the client has not declared, as an object of capabilities.
    pub(crate) fn missing(&self, method: &str, params: &Object<'_>) -> Option<Value> {
        let text = |name| params.get(name).unwrap_or_default();
        let needed = match method {
            ELICITATION if text("mode") == quote("url") => json!({ "elicitation": { "url": {} } }),
            ELICITATION => json!({ "elicitation": { "form": {} } }),
            SAMPLING if params.get("tools").is_some() => json!({ "sampling": { "tools": {} } }),
            SAMPLING => json!({ "sampling": {} }),
            ROOTS => json!({ "roots": {} }),
            _other => return Some(json!({})),
        };
        if contains(&self.normal, &needed) {
            return None;
        }
        // The form mode is what an empty object means.
        Some(if needed == json!({ "elicitation": { "form": {} } }) {
            json!({ "elicitation": {} })
        } else {
            needed
        })
    }

    /// True if messages of other requests may be part of a sampling request.
    pub(crate) fn has_sampling_context(&self) -> bool {
        contains(&self.normal, &json!({ "sampling": { "context": {} } }))
    }
}

fn flags<const N: usize>(flags: [(&str, bool); N]) -> Value {
    let set = flags.into_iter().filter(|(_, set)| *set);
    set.map(|(name, _)| (name.to_owned(), json!({}))).collect()
}

/// True if every member of `needed` is in `held`.
fn contains(held: &Value, needed: &Value) -> bool {
    let Value::Object(needed) = needed else { return true };
    let mut needed = needed.iter();
    needed.all(|(name, needed)| held.get(name).is_some_and(|held| contains(held, needed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> ClientCapabilities {
        ClientCapabilities::parse(text).expect("an object")
    }

    #[test]
    fn equal_capabilities_have_one_name() {
        let name = |text| parse(text).fingerprint();
        assert_eq!(
            name(r#"{"elicitation":{}}"#),
            name(r#"{"elicitation":{"form":{"x":1}}}"#)
        );
        assert_eq!(
            name(r#"{"roots":{"listChanged":true},"sampling":{}}"#),
            name(r#"{"sampling":{"later":{}},"roots":{}}"#)
        );
        let tasks = r#"{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#;
        assert_eq!(name(tasks), name("{}"));
        assert!(parse(tasks).tasks && !parse("{}").tasks);
        assert_ne!(name(r#"{"elicitation":{"url":{}}}"#), name(r#"{"elicitation":{}}"#));
        assert_ne!(name(r#"{"extensions":{"a/b":{}}}"#), name("{}"));
        assert_eq!(ClientCapabilities::parse("[]"), None);
    }

    #[test]
    fn a_server_gets_the_capabilities_of_its_era() {
        let params = parse(r#"{"elicitation":{},"roots":{}}"#).initialize_params(None);
        let expected = r#"{"protocolVersion":"2025-11-25","capabilities":{"elicitation":{"form":{}},"roots":{"listChanged":false}},"clientInfo":{"name":"unknown","version":"0"}}"#;
        assert_eq!(params, expected);
    }

    #[test]
    fn questions_need_their_capability() {
        let missing = |held, method, params| {
            let missing = parse(held).missing(method, &Object::parse(params).expect("an object"));
            missing.map(|missing| missing.to_string())
        };
        assert_eq!(
            missing(r#"{"elicitation":{}}"#, ELICITATION, r#"{"mode":"form"}"#),
            None
        );
        assert_eq!(
            missing(r#"{"elicitation":{}}"#, ELICITATION, r#"{"mode":"url"}"#).as_deref(),
            Some(r#"{"elicitation":{"url":{}}}"#)
        );
        assert_eq!(
            missing("{}", ELICITATION, "{}").as_deref(),
            Some(r#"{"elicitation":{}}"#)
        );
        assert_eq!(missing("{}", SAMPLING, "{}").as_deref(), Some(r#"{"sampling":{}}"#));
        assert_eq!(
            missing(r#"{"sampling":{}}"#, SAMPLING, r#"{"tools":[]}"#).as_deref(),
            Some(r#"{"sampling":{"tools":{}}}"#)
        );
        assert_eq!(missing(r#"{"roots":{}}"#, ROOTS, "{}"), None);
        assert_eq!(missing(r#"{"roots":{}}"#, "ping", "{}").as_deref(), Some("{}"));
    }
}
