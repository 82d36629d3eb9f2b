//! The answers of a client to questions, as a retry carries them.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    CALL_HINT, KEY_HINT, ModernError,
    capabilities::{ELICITATION, ROOTS, SAMPLING},
};
use crate::jsonrpc::{self, Envelope, MessageKind, json, object::Object};

/// The beginning of [`KEY_HINT`] and [`CALL_HINT`].
const HINT_PREFIX: &str = "forgejo-mcp-broker/";

/// The answers of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct InputResponses {
    /// By key, each as its JSON text.
    pub(crate) answers: BTreeMap<Box<str>, Box<str>>,
    /// Tells equal answers.
    pub(crate) digest: [u8; 16],
}

impl InputResponses {
    /// Reads answers (JSON text).
    ///
    /// # Errors
    ///
    /// A [`ModernError`] unless they are an object of objects.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, ModernError> {
        let invalid = || ModernError::invalid_params("params.inputResponses is not an object of objects");
        let Some(text) = text else { return Ok(Self::default()) };
        let answers = Object::parse(text).ok_or_else(invalid)?;
        if answers.iter().any(|(_, answer)| !answer.starts_with('{')) {
            return Err(invalid());
        }
        let value: Value = serde_json::from_str(text).unwrap_or_default();
        let hash = Sha256::digest(value.to_string());
        Ok(Self {
            answers: answers
                .iter()
                .map(|(key, answer)| (key.into(), answer.into()))
                .collect(),
            digest: *hash.first_chunk().expect("a SHA-256 has 32 bytes"),
        })
    }
}

/// True if an answer (JSON text) has the form that the method of its question asks for.
pub(crate) fn is_valid(method: &str, answer: &str) -> bool {
    let Some(answer) = Object::parse(answer) else {
        return false;
    };
    let starts = |name, start: char| answer.get(name).is_some_and(|value: &str| value.starts_with(start));
    match method {
        ELICITATION => {
            let action = answer.get("action").and_then(json::string);
            let content = answer.get("content").is_none() || starts("content", '{');
            content && matches!(action.as_deref(), Some("accept" | "decline" | "cancel"))
        }
        SAMPLING => starts("role", '"') && (starts("content", '{') || starts("content", '[')),
        ROOTS => starts("roots", '['),
        _other => false,
    }
}

/// The parameters of a question for a client of this era: without what belongs to the server's own
/// request. `None` if there are none.
pub(crate) fn question_params(params: &Object<'_>, context: bool) -> Option<String> {
    let mut params = params.clone();
    for own in ["task", "_meta", "elicitationId"] {
        params.take(own);
    }
    if !context && params.get("includeContext").is_some_and(|value| value != "\"none\"") {
        params.take("includeContext");
    }
    (!params.is_empty()).then(|| params.to_string())
}

/// A question (a request of a server) without the hints for this era; `None` if it has none.
pub(crate) fn without_hints(question: &Envelope) -> Option<Envelope> {
    let meta = question.param("_meta").filter(|meta| meta.contains(HINT_PREFIX))?;
    let mut meta = Object::parse(meta)?;
    meta.retain(|name| name != KEY_HINT && name != CALL_HINT);
    let mut params = Object::parse(question.params()?)?;
    if meta.is_empty() {
        params.take("_meta");
    } else {
        params.set("_meta", meta.to_string());
    }
    let MessageKind::Request { id, method } = question.kind() else {
        return None;
    };
    Envelope::parse(jsonrpc::request(id.raw(), method, params).as_bytes()).ok()
}

/// A question as clients of this era get it, with the parameters from [`question_params`] (JSON
/// text).
pub(crate) fn question(method: &str, params: Option<&str>) -> String {
    let params = params.map(|params| format!(r#","params":{params}"#));
    let (method, params) = (json::quote(method), params.unwrap_or_default());
    format!(r#"{{"method":{method}{params}}}"#)
}

/// The key of a question: the server's own, or the next one of its kind.
pub(crate) fn key<'k>(hint: Option<&'k str>, method: &str, number: usize) -> Cow<'k, str> {
    let kind = match method {
        ELICITATION => "elicitation",
        SAMPLING => "sampling",
        _other => "roots",
    };
    hint.map_or_else(|| format!("{kind}-{number}").into(), Cow::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_an_object_of_objects() {
        let read = InputResponses::parse(Some(r#"{"a":{"action":"accept"},"b":{}}"#)).expect("answers");
        assert_eq!(read.answers.len(), 2);
        assert_eq!(InputResponses::parse(None).expect("none").answers.len(), 0);
        for wrong in ["null", "[]", r#"{"a":1}"#, r#"{"a":null}"#, r#"{"a":{},"a":{}}"#] {
            assert!(InputResponses::parse(Some(wrong)).is_err(), "{wrong}");
        }
        let digest = |text| InputResponses::parse(Some(text)).expect("answers").digest;
        assert_eq!(digest(r#"{"a":{"x":1,"y":2}}"#), digest(r#"{ "a":{"y":2,"x":1}}"#));
        assert_ne!(digest(r#"{"a":{}}"#), digest(r#"{"b":{}}"#));
    }

    #[test]
    fn answers_have_the_form_of_their_kind() {
        for (method, answer, valid) in [
            (ELICITATION, r#"{"action":"accept","content":{}}"#, true),
            (ELICITATION, r#"{"action":"decline"}"#, true),
            (ELICITATION, r#"{"action":"accept","content":3}"#, false),
            (ELICITATION, r#"{"action":"maybe"}"#, false),
            (ELICITATION, "{}", false),
            (SAMPLING, r#"{"role":"assistant","content":{},"model":"m"}"#, true),
            (SAMPLING, r#"{"role":"assistant"}"#, false),
            (ROOTS, r#"{"roots":[]}"#, true),
            (ROOTS, r#"{"roots":{}}"#, false),
            ("ping", "{}", false),
        ] {
            assert_eq!(is_valid(method, answer), valid, "{method} {answer}");
        }
    }

    #[test]
    fn hints_are_for_this_side_only() {
        let question = |meta: &str| {
            let text = format!(r#"{{"jsonrpc":"2.0","id":7,"method":"roots/list","params":{{{meta}}}}}"#);
            let question = Envelope::parse(text.as_bytes()).expect("a message");
            without_hints(&question).map(|question| question.params().unwrap_or_default().to_owned())
        };
        let hints = r#""forgejo-mcp-broker/call":"1","forgejo-mcp-broker/input-key":"k""#;
        assert_eq!(question(&format!(r#""_meta":{{{hints}}}"#)).as_deref(), Some("{}"));
        assert_eq!(
            question(&format!(r#""a":1.0,"_meta":{{"x":1,{hints}}}"#)).as_deref(),
            Some(r#"{"a":1.0,"_meta":{"x":1}}"#)
        );
        assert_eq!(question(r#""_meta":{"x":1}"#), None);
    }

    #[test]
    fn a_question_loses_what_belongs_to_its_request() {
        let params = r#"{"message":"m","_meta":{"a":1},"task":{},"elicitationId":"e","includeContext":"allServers"}"#;
        let params = Object::parse(params).expect("an object");
        assert_eq!(question_params(&params, false).as_deref(), Some(r#"{"message":"m"}"#));
        assert!(question_params(&params, true).expect("some").contains("allServers"));
        assert_eq!(question_params(&Object::default(), false), None);
    }
}
