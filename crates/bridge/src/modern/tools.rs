//! What has to be known of the server's tools before one is called: which arguments a client has to
//! mirror into headers, and which tools run as tasks.

use std::collections::HashMap;

use http::HeaderMap;
use serde_json::Value;

use super::{ModernError, headers};

/// The number of tools that are known, and of pages that are read. A tool beyond it has no mirrored
/// arguments here.
const MAX_TOOLS: usize = 4096;
const MAX_PAGES: usize = 64;
/// The depth to which schemas are searched.
const MAX_DEPTH: usize = 16;
/// The largest integer that every reader of JSON knows exactly.
const MAX_SAFE_INTEGER: f64 = 9_007_199_254_740_991.0;

/// The tools of a server, by their names.
#[derive(Debug, Default)]
pub(crate) struct Tools {
    tools: HashMap<Box<str>, Tool>,
    pages: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Tool {
    mirrored: Vec<MirroredArgument>,
    pub(crate) task_support: TaskSupport,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TaskSupport {
    #[default]
    Forbidden,
    Optional,
    Required,
}

/// An argument that has an `x-mcp-header` annotation.
#[derive(Debug)]
struct MirroredArgument {
    /// The name of its header.
    header: String,
    path: Vec<String>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Integer,
    Text,
    Boolean,
}

impl Tools {
    /// Adds a page of the list. Returns the cursor of the next page (JSON text).
    pub(crate) fn add(&mut self, result: &str) -> Option<String> {
        let Ok(Value::Object(page)) = serde_json::from_str(result) else {
            return None;
        };
        self.pages += 1;
        for tool in page.get("tools").and_then(Value::as_array).into_iter().flatten() {
            let Some(name) = tool.get("name").and_then(Value::as_str) else {
                continue;
            };
            if self.tools.len() < MAX_TOOLS {
                self.tools.insert(name.into(), Tool::read(tool));
            }
        }
        let cursor = page.get("nextCursor").filter(|cursor| cursor.is_string());
        cursor.filter(|_| self.pages < MAX_PAGES).map(Value::to_string)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Tool> {
        self.tools.get(name)
    }
}

impl Tool {
    fn read(tool: &Value) -> Self {
        let support = tool.pointer("/execution/taskSupport").and_then(Value::as_str);
        let mut mirrored = Vec::new();
        let valid = tool
            .get("inputSchema")
            .is_none_or(|schema| find(schema, &mut Vec::new(), &mut mirrored));
        let mut names: Vec<_> = mirrored.iter().map(|argument| &argument.header).collect();
        names.sort_unstable();
        // Clients leave out a tool with an annotation that is not valid, or that comes twice.
        if !valid || names.windows(2).any(|pair| pair[0] == pair[1]) {
            mirrored.clear();
        }
        Self {
            mirrored,
            task_support: match support {
                Some("required") => TaskSupport::Required,
                Some("optional") => TaskSupport::Optional,
                _other => TaskSupport::Forbidden,
            },
        }
    }

    /// Checks that each mirrored argument has a header with its value, and no header another.
    ///
    /// # Errors
    ///
    /// A [`ModernError`] otherwise.
    pub(crate) fn check(&self, headers: &HeaderMap, arguments: Option<&str>) -> Result<(), ModernError> {
        if self.mirrored.is_empty() {
            return Ok(());
        }
        let arguments: Value = arguments
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        for argument in &self.mirrored {
            let mut value = Some(&arguments);
            for name in &argument.path {
                value = value.and_then(|value| value.get(name));
            }
            let sent = headers::encoded(headers, &argument.header)?;
            let matches = match (value.filter(|value| !value.is_null()), &sent) {
                (None, None) => true,
                (Some(value), Some(sent)) => argument.kind.matches(value, sent),
                _ => false,
            };
            if !matches {
                let header = &argument.header;
                return Err(ModernError::header(format!(
                    "the header {header} differs from the body"
                )));
            }
        }
        Ok(())
    }
}

impl Kind {
    fn matches(self, value: &Value, sent: &str) -> bool {
        match self {
            Self::Text => value.as_str() == Some(sent),
            Self::Boolean => value.as_bool().is_some_and(|value| value.to_string() == sent),
            Self::Integer => {
                let sent: Option<f64> = sent.parse().ok().filter(|sent: &f64| sent.abs() <= MAX_SAFE_INTEGER);
                value.as_f64().is_some() && value.as_f64() == sent
            }
        }
    }
}

/// Finds the annotated arguments that are reachable through `properties` alone. False if an
/// annotation is not valid.
fn find(schema: &Value, path: &mut Vec<String>, found: &mut Vec<MirroredArgument>) -> bool {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return true;
    };
    properties.iter().all(|(name, schema)| {
        path.push(name.clone());
        let valid = path.len() > MAX_DEPTH || (annotation(schema, path, found) && find(schema, path, found));
        path.pop();
        valid
    })
}

fn annotation(schema: &Value, path: &[String], found: &mut Vec<MirroredArgument>) -> bool {
    let Some(name) = schema.get("x-mcp-header") else {
        return true;
    };
    let kind = match schema.get("type").and_then(Value::as_str) {
        Some("integer") => Kind::Integer,
        Some("string") => Kind::Text,
        Some("boolean") => Kind::Boolean,
        _other => return false,
    };
    let name = name.as_str().filter(|name| is_token(name));
    found.extend(name.map(|name| MirroredArgument {
        header: format!("mcp-param-{}", name.to_ascii_lowercase()),
        path: path.to_owned(),
        kind,
    }));
    name.is_some()
}

/// RFC 9110 section 5.6.2.
fn is_token(name: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn tool(properties: &str) -> Tool {
        let text = format!(r#"{{"name":"t","inputSchema":{{"type":"object","properties":{properties}}}}}"#);
        Tool::read(&serde_json::from_str(&text).expect("JSON"))
    }

    fn check(tool: &Tool, pairs: &[(&str, &str)], arguments: &str) -> bool {
        let pairs = pairs.iter().map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            (name, HeaderValue::from_str(value).expect("a value"))
        });
        tool.check(&pairs.collect(), Some(arguments)).is_ok()
    }

    #[test]
    fn mirrored_arguments_equal_their_headers() {
        let tool = tool(
            r#"{"n":{"type":"integer","x-mcp-header":"N"},"b":{"type":"boolean","x-mcp-header":"B"},
            "o":{"properties":{"s":{"type":"string","x-mcp-header":"S"}}},"free":{"type":"string"}}"#,
        );
        assert!(check(&tool, &[], "{}"));
        assert!(check(&tool, &[], r#"{"n":null,"free":"x"}"#));
        assert!(check(&tool, &[("mcp-param-n", "42")], r#"{"n":42.0}"#));
        assert!(check(&tool, &[("mcp-param-n", "42.0")], r#"{"n":42}"#));
        assert!(check(&tool, &[("mcp-param-b", "true")], r#"{"b":true}"#));
        assert!(check(
            &tool,
            &[("mcp-param-s", "=?base64?w6k=?=")],
            r#"{"o":{"s":"é"}}"#
        ));
        assert!(check(&tool, &[("mcp-param-other", "x")], "{}"));
        for (header, arguments) in [
            (None, r#"{"n":42}"#),
            (Some(("mcp-param-n", "43")), r#"{"n":42}"#),
            (Some(("mcp-param-n", "x")), r#"{"n":42}"#),
            (Some(("mcp-param-n", "42")), r#"{"n":null}"#),
            (Some(("mcp-param-n", "42")), "{}"),
            (Some(("mcp-param-b", "True")), r#"{"b":true}"#),
            (Some(("mcp-param-s", "=?base64?w6k?=")), r#"{"o":{"s":"é"}}"#),
        ] {
            let pairs: Vec<_> = header.into_iter().collect();
            assert!(!check(&tool, &pairs, arguments), "{header:?} {arguments}");
        }
    }

    #[test]
    fn a_tool_with_an_invalid_annotation_has_none() {
        for properties in [
            r#"{"a":{"type":"number","x-mcp-header":"A"}}"#,
            r#"{"a":{"type":"string","x-mcp-header":"a b"}}"#,
            r#"{"a":{"type":"string","x-mcp-header":""}}"#,
            r#"{"a":{"type":"string","x-mcp-header":"X"},"b":{"type":"string","x-mcp-header":"x"}}"#,
        ] {
            assert!(tool(properties).mirrored.is_empty(), "{properties}");
        }
    }

    #[test]
    fn pages_add_up() {
        let mut tools = Tools::default();
        let first = r#"{"tools":[{"name":"a","execution":{"taskSupport":"required"}}],"nextCursor":"x"}"#;
        assert_eq!(tools.add(first).as_deref(), Some("\"x\""));
        assert_eq!(tools.add(r#"{"tools":[{"name":"b"}]}"#), None);
        let support = |name| tools.get(name).map(|tool| tool.task_support);
        assert_eq!(
            (support("a"), support("b"), support("c")),
            (Some(TaskSupport::Required), Some(TaskSupport::Forbidden), None)
        );
    }
}
