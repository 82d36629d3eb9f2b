//! What a run is to do, read once from the environment; and the orders on standard input.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};

/// The settings, as `../README.md` has them.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) url: String,
    pub(crate) redirect_uri: String,
    pub(crate) client_metadata_url: Option<String>,
    pub(crate) sessions: usize,
    pub(crate) calls: usize,
    pub(crate) tool: String,
    pub(crate) arguments: Value,
    pub(crate) hold: bool,
    pub(crate) features: bool,
    pub(crate) endure: Option<String>,
}

/// Lines on standard input, in the order in which they came.
pub(crate) struct Orders(Lines<BufReader<Stdin>>);

impl Settings {
    pub(crate) fn read() -> Result<Self> {
        let features = switch("FEATURES")?;
        let endure = optional("ENDURE");
        let needs_tool = !features && endure.is_none();
        Ok(Self {
            url: required("MCP_URL")?,
            redirect_uri: required("REDIRECT_URI")?,
            client_metadata_url: optional("CLIENT_METADATA_URL"),
            sessions: count("SESSIONS")?,
            calls: count("CALLS")?,
            tool: if needs_tool { required("TOOL")? } else { String::new() },
            arguments: match optional("ARGUMENTS") {
                Some(arguments) => serde_json::from_str(&arguments).context("ARGUMENTS is JSON")?,
                None => json!({}),
            },
            hold: switch("HOLD")?,
            features,
            endure,
        })
    }
}

impl Orders {
    pub(crate) fn new() -> Self {
        Self(BufReader::new(tokio::io::stdin()).lines())
    }

    /// The next order, or `None` once standard input is closed.
    pub(crate) async fn next(&mut self) -> Result<Option<Value>> {
        let line = self.0.next_line().await?;
        line.map(|line| serde_json::from_str(&line).context("an order is JSON"))
            .transpose()
    }
}

/// A copy in which `{session}` and `{call}` are replaced by the numbers, in every string at any depth.
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
        other => other.clone(),
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
