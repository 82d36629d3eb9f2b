//! Where values come from: a TOML file, and above it the environment (`BROKER_SERVER__LISTEN` for `server.listen`).
//!
//! Environment values stay text until a key says what it wants of them: guessing a type here would turn an
//! all-digit client secret into a number.

use std::path::{Path, PathBuf};

use figment::{
    Figment, Metadata, Profile, Provider,
    providers::{Format, Toml},
    value::{Dict, Map, Value},
};

use super::fault::Fault;

/// What [`load`](super::load()) reads.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The configuration file; `None` for defaults and environment alone.
    pub file: Option<PathBuf>,
    /// The process environment; variables that do not begin with `BROKER_` are passed over.
    pub environment: Vec<(String, String)>,
}

/// The prefix of environment overrides.
const PREFIX: &str = "BROKER_";

/// The name that values of the environment carry in figment's metadata.
pub(super) const ENVIRONMENT: &str = "environment";

struct Environment(Vec<(Vec<String>, String)>);

impl Sources {
    /// A file and the environment of this process.
    #[must_use]
    pub fn process(file: Option<PathBuf>) -> Self {
        // Variables that are not UTF-8 cannot name a key of ours.
        let environment = std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
            .collect();
        Self { file, environment }
    }

    /// Reads and merges the sources.
    pub(super) fn merge(&self) -> Result<Figment, Fault> {
        let mut figment = Figment::new();
        if let Some(path) = &self.file {
            let file = Toml::file_exact(path);
            file.data().map_err(|error| unreadable(path, &error))?;
            figment = figment.merge(file);
        }
        Ok(figment.merge(Environment(overrides(&self.environment))))
    }
}

/// The environment variable that overrides a key.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase().replace('.', "__"))
}

fn unreadable(path: &Path, error: &figment::Error) -> Fault {
    Fault {
        key: String::new(),
        source: path.display().to_string(),
        reason: error.kind.to_string().trim().to_owned(),
    }
}

fn overrides(environment: &[(String, String)]) -> Vec<(Vec<String>, String)> {
    environment
        .iter()
        .filter_map(|(name, value)| {
            let path = name.strip_prefix(PREFIX)?;
            // A name without a section is nothing of ours: other programs use such a prefix too.
            path.contains("__")
                .then(|| (path.split("__").map(str::to_lowercase).collect(), value.clone()))
        })
        .collect()
}

impl Provider for Environment {
    fn metadata(&self) -> Metadata {
        Metadata::named(ENVIRONMENT)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut root = Dict::new();
        for (path, value) in &self.0 {
            insert(&mut root, path, value);
        }
        Ok(Profile::default().collect(root))
    }
}

fn insert(dict: &mut Dict, path: &[String], value: &str) {
    let Some((name, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        dict.insert(name.clone(), Value::from(value));
        return;
    }
    let entry = dict.entry(name.clone()).or_insert_with(|| Value::from(Dict::new()));
    if !matches!(entry, Value::Dict(..)) {
        *entry = Value::from(Dict::new());
    }
    if let Value::Dict(_, inner) = entry {
        insert(inner, rest, value);
    }
}
