//! The handshake of the machine, made from `server/discover`, and what each request says of the
//! client.

use super::{
    INTERNAL, META_CAPABILITIES, META_CLIENT_INFO, META_LOG_LEVEL, META_SERVER_INFO, META_VERSION, METHOD_NOT_FOUND,
    ModernServer, SentRequest, TASKS_EXTENSION, VERSION, results,
};
use crate::{
    jsonrpc::{
        self, Envelope, json,
        object::{self, Object},
    },
    modern::LogLevel,
    versions::{LATEST, WITH_HANDSHAKE},
};

/// What the requests of the client say of it.
#[derive(Debug)]
pub(super) struct ClientSettings {
    /// The version that the client asked for, if it is one with a handshake.
    version: &'static str,
    /// The capabilities in the form of this era (JSON text).
    capabilities: Box<str>,
    /// JSON text.
    info: Option<Box<str>>,
    /// JSON text.
    log_level: Option<Box<str>>,
}

/// A question that a client may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InputKind {
    Form,
    Url,
    Sampling { tools: bool, context: bool },
    Roots,
}

impl ModernServer {
    /// Begins the handshake of the machine.
    pub(super) fn discover(&mut self, number: u64, message: &Envelope) {
        self.client = ClientSettings::of(message);
        let id = self.next_id();
        let line = self.request(id, "server/discover", "{}", &[]);
        let sent = line.is_some_and(|line| self.send_request(id, SentRequest::Discover(number), line));
        if !sent {
            self.reply_error(
                &number.to_string(),
                jsonrpc::INVALID_PARAMS,
                "`initialize` cannot be translated",
            );
        }
    }

    /// The server has answered `server/discover`.
    pub(super) fn discovered(&mut self, number: u64, error: bool, outcome: &str) {
        let number_text = number.to_string();
        if error {
            self.refuse_era();
            self.replies
                .push(results::error(&number_text, "server/discover", outcome));
            return;
        }
        let parsed = Object::parse(outcome);
        let versions = parsed
            .as_ref()
            .and_then(|result| object::elements(result.get("supportedVersions")?));
        let speaks = |versions: &Vec<&str>| {
            versions
                .iter()
                .any(|version| json::string(version).as_deref() == Some(VERSION))
        };
        let (Some(result), true) = (&parsed, versions.as_ref().is_some_and(speaks)) else {
            self.refuse_era();
            let why = format!("the MCP server does not speak {VERSION}");
            self.reply_error(&number_text, METHOD_NOT_FOUND, &why);
            return;
        };
        let Some(mut capabilities) = Object::parse(result.get("capabilities").unwrap_or("{}")) else {
            self.reply_error(&number_text, INTERNAL, super::INVALID_RESPONSE);
            return;
        };
        let extensions = capabilities.take("extensions").unwrap_or_default();
        if let Some(mut extensions) = Object::parse(&extensions) {
            self.has_tasks = extensions.take(TASKS_EXTENSION).is_some();
            if !extensions.is_empty() {
                capabilities.set("extensions", extensions.to_string());
            }
        }
        self.subscriptions.offered_by(&capabilities);
        let server_info = result.get("_meta").and_then(Object::parse);
        let server_info = server_info.and_then(|meta| meta.get(META_SERVER_INFO).map(str::to_owned));
        let server_info = server_info.unwrap_or_else(|| r#"{"name":"unknown","version":"0"}"#.to_owned());
        let mut initialized = Object::default();
        initialized.set("protocolVersion", json::quote(self.client.version));
        initialized.set("capabilities", capabilities.to_string());
        initialized.set("serverInfo", server_info);
        if let Some(instructions) = result.get("instructions") {
            initialized.set("instructions", instructions);
        }
        self.reply(number, &initialized.to_string());
    }

    pub(super) fn set_log_level(&mut self, number: u64, message: &Envelope) {
        match message.param("level").and_then(LogLevel::parse) {
            Some(level) => {
                self.client.log_level = Some(json::quote(level.name()).into());
                self.reply(number, "{}");
            }
            None => self.reply_error(&number.to_string(), jsonrpc::INVALID_PARAMS, "unknown log level"),
        }
    }

    /// A request with what each one has to say. `None` if the parameters (JSON text) are not an
    /// object.
    pub(super) fn request(&self, id: u64, method: &str, params: &str, more: &[(&'static str, &str)]) -> Option<String> {
        let mut params = Object::parse(params)?;
        for name in ["task", "inputResponses", "requestState"] {
            params.take(name);
        }
        let before = params.take("_meta").unwrap_or_else(|| "{}".into());
        let mut meta = Object::parse(&before).unwrap_or_default();
        meta.set(META_VERSION, json::quote(VERSION));
        meta.set(META_CAPABILITIES, self.capabilities());
        if let Some(info) = &self.client.info {
            meta.set(META_CLIENT_INFO, &**info);
        }
        if let Some(level) = &self.client.log_level {
            meta.set(META_LOG_LEVEL, &**level);
        }
        params.set("_meta", meta.to_string());
        for (name, value) in more {
            params.set(name, *value);
        }
        Some(jsonrpc::request(id, method, params))
    }

    /// True if the client has declared that it answers such questions.
    pub(super) fn may_ask_for(&self, kind: InputKind) -> bool {
        let declared = Object::parse(&self.client.capabilities).unwrap_or_default();
        let member = |name| declared.get(name).and_then(Object::parse);
        match kind {
            InputKind::Form => {
                member("elicitation").is_some_and(|modes| modes.get("form").is_some() || modes.get("url").is_none())
            }
            InputKind::Url => member("elicitation").is_some_and(|modes| modes.get("url").is_some()),
            InputKind::Sampling { tools, context } => member("sampling").is_some_and(|sampling| {
                (!tools || sampling.get("tools").is_some()) && (!context || sampling.get("context").is_some())
            }),
            InputKind::Roots => declared.get("roots").is_some(),
        }
    }

    /// The capabilities of the client. The translator itself knows tasks, if the server has them.
    fn capabilities(&self) -> String {
        let Some(mut capabilities) = Object::parse(&self.client.capabilities) else {
            return "{}".to_owned();
        };
        let before = capabilities.take("extensions").unwrap_or_else(|| "{}".into());
        let mut extensions = Object::parse(&before).unwrap_or_default();
        extensions.take(TASKS_EXTENSION);
        if self.has_tasks {
            extensions.set(TASKS_EXTENSION, "{}");
        }
        if !extensions.is_empty() {
            capabilities.set("extensions", extensions.to_string());
        }
        capabilities.to_string()
    }
}

impl ClientSettings {
    /// The settings in an `initialize`.
    fn of(message: &Envelope) -> Self {
        let asked = message.param("protocolVersion").and_then(json::string);
        let version = WITH_HANDSHAKE
            .into_iter()
            .find(|version| Some(*version) == asked.as_deref());
        let mut capabilities = message
            .param("capabilities")
            .and_then(Object::parse)
            .unwrap_or_default();
        // Tasks of the client do not exist in this era, and changes of its roots are not announced.
        capabilities.take("tasks");
        if capabilities.get("roots").is_some() {
            capabilities.set("roots", "{}");
        }
        Self {
            version: version.unwrap_or(LATEST),
            capabilities: capabilities.to_string().into(),
            info: message.param("clientInfo").map(Box::from),
            log_level: None,
        }
    }
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            version: LATEST,
            capabilities: "{}".into(),
            info: None,
            log_level: None,
        }
    }
}
