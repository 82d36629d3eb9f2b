//! The settings of a run, read once from the environment, and the commands on standard input.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rmcp::{
    ClientLifecycleMode,
    model::{CallToolRequestParams, ProtocolVersion},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines, Stdin},
    sync::Mutex,
};

/// The settings, as `../README.md` describes them.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) url: String,
    pub(crate) redirect_uri: String,
    pub(crate) client_metadata_url: Option<String>,
    pub(crate) sessions: usize,
    pub(crate) calls: usize,
    pub(crate) tool: String,
    pub(crate) arguments: Value,
    pub(crate) interactive: bool,
    pub(crate) feature_checks: bool,
    pub(crate) sustained_calls: Option<String>,
    pub(crate) questions: bool,
    pub(crate) lifecycle: ClientLifecycleMode,
}

/// The commands on standard input, in their order.
#[derive(Clone, Debug)]
pub(crate) struct Commands(Arc<Mutex<Lines<BufReader<Stdin>>>>);

impl Settings {
    pub(crate) fn read() -> Result<Self> {
        let feature_checks = switch("FEATURE_CHECKS")?;
        let sustained_calls = optional("SUSTAINED_CALLS");
        let needs_tool = !feature_checks && sustained_calls.is_none();
        Ok(Self {
            url: required("MCP_URL")?,
            redirect_uri: required("REDIRECT_URI")?,
            client_metadata_url: optional("CLIENT_METADATA_URL"),
            sessions: count("SESSIONS")?,
            calls: count("CALLS")?,
            tool: if needs_tool { required("TOOL")? } else { String::new() },
            arguments: match optional("ARGUMENTS") {
                Some(arguments) => serde_json::from_str(&arguments).context("ARGUMENTS must be JSON")?,
                None => json!({}),
            },
            interactive: switch("INTERACTIVE")?,
            feature_checks,
            sustained_calls,
            questions: switch("QUESTIONS")?,
            lifecycle: lifecycle()?,
        })
    }
}

impl Commands {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(BufReader::new(tokio::io::stdin()).lines())))
    }

    /// The next command, or `None` once standard input is closed.
    pub(crate) async fn next(&self) -> Result<Option<Value>> {
        let line = self.0.lock().await.next_line().await?;
        line.map(|line| serde_json::from_str(&line).context("a command must be JSON"))
            .transpose()
    }
}

/// A copy in which the numbers replace `{session}` and `{call}`, in every string at any depth.
pub(crate) fn fill_in(value: &Value, session: usize, call: usize) -> Value {
    match value {
        Value::String(text) => text
            .replace("{session}", &session.to_string())
            .replace("{call}", &call.to_string())
            .into(),
        Value::Array(items) => items.iter().map(|item| fill_in(item, session, call)).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, field)| (name.clone(), fill_in(field, session, call)))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

fn optional(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn required(name: &str) -> Result<String> {
    optional(name).with_context(|| format!("{name} is not set"))
}

fn count(name: &str) -> Result<usize> {
    let value = optional(name).unwrap_or_else(|| "1".to_owned());
    value.parse().with_context(|| format!("{name} must be a whole number"))
}

fn switch(name: &str) -> Result<bool> {
    match optional(name).as_deref() {
        None | Some("0") => Ok(false),
        Some("1") => Ok(true),
        Some(_) => bail!("{name} must be 0 or 1"),
    }
}

fn lifecycle() -> Result<ClientLifecycleMode> {
    let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
    match optional("ERA").as_deref() {
        None | Some("legacy") => Ok(ClientLifecycleMode::Initialize),
        Some("discover") => Ok(ClientLifecycleMode::Discover { preferred_versions }),
        Some("auto") => Ok(ClientLifecycleMode::Auto {
            preferred_versions,
            legacy_version: None,
        }),
        Some(_) => bail!("ERA must be legacy, discover or auto"),
    }
}

/// The parameters of a tool call.
pub(crate) fn tool_params(tool: &str, arguments: Value) -> Result<CallToolRequestParams> {
    serde_json::from_value(json!({ "name": tool, "arguments": arguments })).context("invalid tool parameters")
}
