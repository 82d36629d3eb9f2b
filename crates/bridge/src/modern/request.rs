//! One modern request: what it says about itself, checked against its headers, and the request that
//! a server gets for it.

use http::HeaderMap;
use sha2::{Digest, Sha256};

use super::{
    ClientCapabilities, LogLevel, META_CAPABILITIES, META_CLIENT_INFO, META_LOG_LEVEL, META_PREFIX, META_VERSION,
    ModernError, VERSION, headers,
};
use crate::jsonrpc::{Envelope, Id, json, object::Object};

/// The methods that this side serves.
const METHODS: [&str; 13] = [
    "completion/complete",
    "prompts/get",
    "prompts/list",
    "resources/list",
    "resources/read",
    "resources/templates/list",
    "server/discover",
    "subscriptions/listen",
    "tasks/cancel",
    "tasks/get",
    "tasks/update",
    "tools/call",
    "tools/list",
];
/// The largest description of a client and the largest set of capabilities, in bytes: both are
/// stored with the session.
const MAX_CLIENT_BYTES: usize = 16 * 1024;

/// A request that has passed all checks that need no server.
#[derive(Clone, Debug)]
pub(crate) struct ModernRequest {
    pub(crate) id: Id,
    pub(crate) method: Box<str>,
    /// The request for a server: without what only this era has, and with 0 for the id and for the
    /// progress token.
    pub(crate) message: Envelope,
    pub(crate) capabilities: ClientCapabilities,
    /// JSON text.
    pub(crate) client_info: Option<Box<str>>,
    pub(crate) log_level: Option<LogLevel>,
    pub(crate) token: Option<Id>,
    /// The tool, prompt, resource or task that the request names.
    pub(crate) name: Option<Box<str>>,
    /// The answers to questions (JSON text).
    pub(crate) input_responses: Option<Box<str>>,
    pub(crate) request_state: Option<Box<str>>,
    /// The server is asked to run it as a task.
    pub(crate) as_task: bool,
    /// A digest of method, name and arguments. It does not depend on white space and on the order
    /// of members.
    pub(crate) content: [u8; 16],
}

/// The version that a message names in its `_meta`, if it is of this era.
pub(crate) fn meta_version(message: &Envelope) -> Option<String> {
    // Most requests of earlier clients are told without a search for the members: only with a
    // backslash could the name be spelled otherwise.
    message
        .params()
        .filter(|params| params.contains(META_VERSION) || params.contains('\\'))?;
    let meta = message.param("_meta")?;
    json::string(&meta[json::member(meta, META_VERSION)?])
}

impl ModernRequest {
    /// Checks a request in this order: `_meta`, version, mirrored headers, method.
    ///
    /// # Errors
    ///
    /// A [`ModernError`].
    pub(crate) fn check(headers: &HeaderMap, message: &Envelope, id: &Id, method: &str) -> Result<Self, ModernError> {
        let invalid = ModernError::invalid_params;
        let params = Object::parse(message.params().unwrap_or("{}"));
        let params = params.filter(|params| !params.is_ambiguous(&["_meta", "name", "uri", "arguments", "taskId"]));
        let mut params = params.ok_or_else(|| invalid("the params are not an unambiguous object"))?;
        let meta = params.get("_meta").map(str::to_owned).unwrap_or_default();
        let mut meta = Object::parse(&meta).ok_or_else(|| invalid("params._meta is missing"))?;

        let version = meta.get(META_VERSION).and_then(json::string);
        let version = version.ok_or_else(|| invalid("params._meta has no protocol version"))?;
        let capabilities = meta.get(META_CAPABILITIES);
        if capabilities.is_some_and(|capabilities| capabilities.len() > MAX_CLIENT_BYTES) {
            return Err(invalid("the client capabilities are larger than 16 KiB"));
        }
        let capabilities = capabilities.and_then(ClientCapabilities::parse);
        let capabilities = capabilities.ok_or_else(|| invalid("params._meta has no client capabilities"))?;
        let client_info = meta.get(META_CLIENT_INFO).filter(|info| info.starts_with('{'));
        let client_info = client_info.map(Box::<str>::from);
        if client_info.as_ref().map_or(0, |info| info.len()) > MAX_CLIENT_BYTES {
            return Err(invalid("the client info is larger than 16 KiB"));
        }
        let log_level = match meta.get(META_LOG_LEVEL) {
            Some(level) => Some(LogLevel::parse(level).ok_or_else(|| invalid("unknown log level"))?),
            None => None,
        };
        let token = meta.get("progressToken").map(Id::parse);
        if token == Some(None) {
            return Err(invalid("the progress token is no string and no number"));
        }

        headers::require(headers, "mcp-protocol-version", &version)?;
        if version != VERSION {
            return Err(ModernError::version(&version));
        }
        headers::require(headers, "mcp-method", method)?;
        let named_by = match method {
            "tools/call" | "prompts/get" => Some("name"),
            "resources/read" => Some("uri"),
            "tasks/get" | "tasks/update" | "tasks/cancel" => Some("taskId"),
            _other => None,
        };
        let mut name = None;
        if let Some(member) = named_by {
            let named = params.get(member).and_then(json::string);
            let named = named.ok_or_else(|| ModernError::invalid_params(format!("params.{member} is missing")))?;
            headers::require_encoded(headers, "mcp-name", &named)?;
            name = Some(named.into_boxed_str());
        }
        if !METHODS.contains(&method) {
            return Err(ModernError::method_not_found());
        }

        let input_responses = params.take("inputResponses").map(Box::from);
        let request_state = match params.take("requestState") {
            Some(state) => match json::string(&state) {
                Some(state) => Some(state.into_boxed_str()),
                None => return Err(ModernError::request_state(None)),
            },
            None => None,
        };
        params.take("task");
        let content = content(method, name.as_deref(), params.get("arguments"));
        meta.retain(|name| !name.starts_with(META_PREFIX));
        if token.is_some() {
            meta.set("progressToken", "0");
        }
        if meta.is_empty() {
            params.take("_meta");
        } else {
            params.set("_meta", meta.to_string());
        }
        Ok(Self {
            id: id.clone(),
            method: method.into(),
            message: Envelope::request(method, &params.to_string()),
            capabilities,
            client_info,
            log_level,
            token: token.flatten(),
            name,
            input_responses,
            request_state,
            as_task: false,
            content,
        })
    }

    /// The same request as a task with this time to live, in milliseconds.
    pub(crate) fn into_task(mut self, ttl: u64) -> Self {
        let params = self.message.params().and_then(Object::parse);
        if let Some(mut params) = params {
            params.set("task", format!(r#"{{"ttl":{ttl}}}"#));
            self.message = Envelope::request(&self.method, &params.to_string());
            self.as_task = true;
        }
        self
    }

    /// True if a server may answer the request with questions.
    pub(crate) fn may_be_asked(&self) -> bool {
        may_be_asked(&self.method)
    }

    /// The arguments of the request (JSON text).
    pub(crate) fn arguments(&self) -> Option<&str> {
        self.message.param("arguments")
    }
}

/// True if a server may answer requests of this method with questions (MCP 2026-07-28, "Multi
/// Round-Trip Requests").
pub(crate) fn may_be_asked(method: &str) -> bool {
    matches!(method, "tools/call" | "prompts/get" | "resources/read")
}

fn content(method: &str, name: Option<&str>, arguments: Option<&str>) -> [u8; 16] {
    // An object without order; numbers keep their value.
    let text = arguments.unwrap_or("null");
    let value: Result<serde_json::Value, _> = serde_json::from_str(text);
    // What is nested too deep is compared as it is written.
    let arguments = value.map_or_else(|_| text.to_owned(), |value| value.to_string());
    let mut hash = Sha256::new();
    for part in [method, name.unwrap_or_default(), &arguments] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    *hash.finalize().first_chunk().expect("a SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue, StatusCode};

    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            (name, HeaderValue::from_str(value).expect("a value"))
        });
        pairs.collect()
    }

    fn check(pairs: &[(&str, &str)], method: &str, params: &str) -> Result<ModernRequest, ModernError> {
        let text = format!(r#"{{"jsonrpc":"2.0","id":"a","method":"{method}","params":{params}}}"#);
        let message = Envelope::parse(text.as_bytes()).expect("a message");
        let id = Id::parse("\"a\"").expect("an id");
        ModernRequest::check(&headers(pairs), &message, &id, method)
    }

    fn meta(more: &str) -> String {
        format!(r#""_meta":{{"{META_VERSION}":"{VERSION}","{META_CAPABILITIES}":{{}}{more}}}"#)
    }

    const CALL: [(&str, &str); 3] = [
        ("mcp-protocol-version", VERSION),
        ("mcp-method", "tools/call"),
        ("mcp-name", "t"),
    ];

    #[test]
    fn a_server_gets_the_request_without_what_only_this_era_has() {
        let params = format!(
            r#"{{"name":"t","arguments":{{"n":1.0}},"inputResponses":{{}},"task":{{}},{}}}"#,
            meta(r#","progressToken":7,"x/y":[1.50]"#)
        );
        let request = check(&CALL, "tools/call", &params).expect("a request");
        assert_eq!(
            request.message.params(),
            Some(r#"{"name":"t","arguments":{"n":1.0},"_meta":{"progressToken":0,"x/y":[1.50]}}"#)
        );
        assert_eq!(request.token.as_ref().map(Id::raw), Some("7"));
        assert_eq!(request.input_responses.as_deref(), Some("{}"));
        let plain = check(&CALL, "tools/call", &format!(r#"{{"name":"t",{}}}"#, meta(""))).expect("a request");
        assert_eq!(plain.message.params(), Some(r#"{"name":"t"}"#));
    }

    #[test]
    fn checks_come_in_the_order_of_the_revision() {
        let code = |pairs: &[(&str, &str)], method, params: &str| {
            check(pairs, method, params)
                .map(|_| 0)
                .unwrap_or_else(|error| error.code)
        };
        let other = |params: &str| params.replace(VERSION, "2099-01-01");
        let call = format!(r#"{{"name":"t",{}}}"#, meta(""));
        assert_eq!(code(&CALL, "tools/call", &call), 0);
        assert_eq!(code(&[], "tools/call", r#"{"name":"t"}"#), -32602);
        assert_eq!(code(&[], "tools/call", r#"{"name":"t","_meta":{}}"#), -32602);
        let without = format!(r#"{{"name":"t","_meta":{{"{META_VERSION}":"{VERSION}"}}}}"#);
        assert_eq!(code(&[], "tools/call", &without), -32602);
        assert_eq!(code(&[], "tools/call", &call), -32020);
        assert_eq!(code(&CALL, "tools/call", &other(&call)), -32020);
        let newer = [("mcp-protocol-version", "2099-01-01")];
        assert_eq!(code(&newer, "tools/call", &other(&call)), -32022);
        assert_eq!(code(&CALL[..1], "tools/call", &call), -32020);
        assert_eq!(code(&CALL[..2], "tools/call", &call), -32020);
        assert_eq!(code(&CALL, "tools/call", &call.replace("\"t\"", "\"u\"")), -32020);
        assert_eq!(code(&CALL, "tools/call", &format!("{{{}}}", meta(""))), -32602);
        let initialize = [CALL[0], ("mcp-method", "initialize")];
        assert_eq!(code(&initialize, "initialize", &call), -32601);
        let level = format!(r#"{{"name":"t",{}}}"#, meta(&format!(r#","{META_LOG_LEVEL}":"loud""#)));
        assert_eq!(code(&CALL, "tools/call", &level), -32602);
        let twice = format!(r#"{{"name":"t","Name":"u",{}}}"#, meta(""));
        assert_eq!(code(&CALL, "tools/call", &twice), -32602);
    }

    #[test]
    fn an_unsupported_version_is_told_with_the_supported_one() {
        let params = format!("{{{}}}", meta("")).replace(VERSION, "2099-01-01");
        let error = check(&[("mcp-protocol-version", "2099-01-01")], "tools/list", &params).expect_err("a version");
        assert_eq!(error.status, StatusCode::BAD_REQUEST);
        assert_eq!(
            error.data.as_deref(),
            Some(r#"{"supported":["2026-07-28"],"requested":"2099-01-01"}"#)
        );
    }

    #[test]
    fn equal_contents_have_one_digest() {
        let digest = |arguments| content("tools/call", Some("t"), Some(arguments));
        assert_eq!(digest(r#"{"a":1,"b":"x"}"#), digest(r#"{ "b": "\u0078", "a": 1 }"#));
        assert_ne!(digest(r#"{"a":1}"#), digest(r#"{"a":2}"#));
        let deep = |inner| format!("{}{inner}{}", "[".repeat(200), "]".repeat(200));
        assert_ne!(digest(&deep(1)), digest(&deep(2)));
        assert_ne!(content("a", Some("bc"), None), content("ab", Some("c"), None));
    }
}
