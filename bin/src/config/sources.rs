//! Sources of values: a TOML file, and above it the environment (`BROKER_SERVER__LISTEN` for
//! `server.listen`).
//!
//! Environment values stay text until a key says which kind it needs: guessing a type here would
//! turn an all-digit client secret into a number.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use super::error::ConfigError;

/// The sources that [`load`](super::load()) reads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    /// The configuration file; `None` for defaults and environment alone.
    pub(crate) file: Option<PathBuf>,
    /// The process environment; variables that do not begin with `BROKER_` are ignored.
    pub(crate) environment: Vec<(String, String)>,
}

/// The values of all sources, the environment's over the file's.
#[derive(Debug)]
pub(super) struct Values {
    table: Table,
    file: String,
    /// The keys that the environment sets.
    overridden: BTreeSet<String>,
}

/// The prefix of environment overrides.
const PREFIX: &str = "BROKER_";

impl Sources {
    /// A file and the environment of this process.
    pub(crate) fn process(file: Option<PathBuf>) -> Self {
        // Variables that are not UTF-8 cannot name a key.
        let environment = std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
            .collect();
        Self { file, environment }
    }

    /// Reads and merges the sources.
    pub(super) fn merge(&self) -> Result<Values, ConfigError> {
        let table = self.file.as_deref().map(read).transpose()?;
        let mut values = Values {
            table: table.unwrap_or_default(),
            file: self
                .file
                .as_deref()
                .unwrap_or(Path::new("default"))
                .display()
                .to_string(),
            overridden: BTreeSet::new(),
        };
        for (name, value) in &self.environment {
            // Other programs use this prefix too: a name without a section is not ours.
            if let Some(name) = name.strip_prefix(PREFIX).filter(|name| name.contains("__")) {
                let path: Vec<String> = name.split("__").map(str::to_lowercase).collect();
                insert(&mut values.table, &path, value);
                values.overridden.insert(path.join("."));
            }
        }
        Ok(values)
    }
}

impl Values {
    /// The value of a dotted key.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        let mut names = key.split('.');
        let first = self.table.get(names.next()?)?;
        names.try_fold(first, |value, name| value.as_table()?.get(name))
    }

    /// The place that sets a key, in words.
    pub(super) fn source(&self, key: &str) -> String {
        match self.get(key) {
            Some(_) => self.setter(key),
            None => format!("not set; {} would set it", variable(key)),
        }
    }

    /// The variable that sets a key or a part of its table, else the file.
    pub(super) fn setter(&self, key: &str) -> String {
        let sets = |given: &&String| {
            given
                .strip_prefix(key)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let given = self.overridden.iter().find(sets);
        given.map_or_else(|| self.file.clone(), |given| variable(given))
    }

    pub(super) fn table(&self) -> &Table {
        &self.table
    }
}

fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase().replace('.', "__"))
}

/// Reads a TOML file. The message of a syntax error names the line and does not show it: it may
/// hold a secret.
fn read(path: &Path) -> Result<Table, ConfigError> {
    let error = |reason| ConfigError {
        key: String::new(),
        source: path.display().to_string(),
        reason,
    };
    let text = fs::read_to_string(path).map_err(|cause| error(format!("cannot read the file: {cause}")))?;
    text.parse().map_err(|cause: toml::de::Error| {
        let before = cause.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        error(format!("invalid TOML in line {line}: {}", cause.message()))
    })
}

fn insert(table: &mut Table, path: &[String], value: &str) {
    let Some((name, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        table.insert(name.clone(), Value::from(value));
        return;
    }
    let entry = table.entry(name.clone()).or_insert_with(|| Value::Table(Table::new()));
    if !entry.is_table() {
        *entry = Value::Table(Table::new());
    }
    if let Some(inner) = entry.as_table_mut() {
        insert(inner, rest, value);
    }
}
