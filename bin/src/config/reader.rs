//! Reads values of the merged sources key by key, and collects errors instead of stopping at the
//! first.
//!
//! A stand-in replaces a value in error, so that reading goes on and other checks can run; it is
//! never used, since a reader with errors gives no configuration.

use toml::Table;

use super::{
    error::{ConfigError, ConfigErrors},
    key::{ConfigKey, join},
    kinds::{self, Kind},
    sources::Values,
};

#[derive(Debug)]
pub(crate) struct Reader {
    values: Values,
    errors: Vec<ConfigError>,
}

impl Reader {
    /// A reader of these values, which reports all that are not `keys`.
    pub(super) fn new(values: Values, keys: &[ConfigKey]) -> Self {
        let mut unknown = Vec::new();
        report_unknown("", values.table(), keys, &mut unknown);
        let error = |(key, reason): (String, String)| ConfigError {
            source: values.setter(&key),
            key,
            reason,
        };
        let errors = unknown.into_iter().map(error).collect();
        Self { values, errors }
    }

    pub(super) fn finish<T>(self, config: T) -> Result<T, ConfigErrors> {
        if self.errors.is_empty() {
            Ok(config)
        } else {
            Err(ConfigErrors(self.errors))
        }
    }

    /// True if a source sets the key.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.values.get(key).is_some()
    }

    pub(super) fn report(&mut self, key: &str, reason: impl Into<String>) {
        self.errors.push(ConfigError {
            key: key.to_owned(),
            source: self.values.source(key),
            reason: reason.into(),
        });
    }

    /// Adds an error unless the key has one already: the value may be a stand-in.
    pub(super) fn report_first(&mut self, key: &str, reason: impl Into<String>) {
        if !self.errors.iter().any(|error| error.key == key) {
            self.report(key, reason);
        }
    }

    /// The value of a key, its default (TOML, `required` or `unset`), or a stand-in.
    pub(super) fn read<K: Kind>(&mut self, key: &str, default: &str) -> K::Value {
        let given = self.given::<K>(key);
        if let Ok(Some(value)) = given {
            return value;
        }
        let default = kinds::literal(default).and_then(|value| K::read(&value).ok());
        let default = default.or_else(K::unset);
        if let Err((key, reason)) = given {
            self.report(&key, reason);
        } else if default.is_none() {
            let twin = if K::SECRET {
                format!(", or {key}_file")
            } else {
                String::new()
            };
            self.report(key, format!("required{twin}"));
        }
        default.unwrap_or_else(K::stand_in)
    }

    /// The value that a source gives to a key, or the content of the file that its `_file` twin
    /// names.
    fn given<K: Kind>(&self, key: &str) -> Result<Option<K::Value>, (String, String)> {
        let error = |reason| (key.to_owned(), reason);
        let twin = format!("{key}_file");
        let file = self.values.get(&twin).filter(|_| K::SECRET);
        let value = match (self.values.get(key), file) {
            (Some(_), Some(_)) => return Err(error(format!("set together with {twin}; set one of the two"))),
            (Some(value), None) => K::read(value),
            (None, Some(file)) => K::read(&kinds::secret_file(file).map_err(|reason| (twin, reason))?),
            (None, None) => return Ok(None),
        };
        value.map(Some).map_err(error)
    }
}

/// Collects whatever is not a key, a section, or the `_file` twin of a secret.
fn report_unknown(section: &str, table: &Table, keys: &[ConfigKey], unknown: &mut Vec<(String, String)>) {
    for (name, value) in table {
        let path = join(section, name);
        let twin = path.strip_suffix("_file");
        let is_known = |key: &ConfigKey| key.path == path || key.secret && Some(key.path.as_str()) == twin;
        // A quoted name with a dot at the root may look like a path.
        if !section.is_empty() && keys.iter().any(is_known) {
            continue;
        }
        let inner = value.as_table();
        if let Some(inner) = inner.filter(|_| !names(keys, &path).is_empty()) {
            report_unknown(&path, inner, keys, unknown);
            continue;
        }
        let reason = match (section, inner) {
            ("", Some(inner)) if inner.is_empty() => continue,
            ("", Some(_)) => format!("unknown section [{name}]"),
            ("", None) => "not a section".to_owned(),
            (section, _) => format!("unknown key; [{section}] has {}", names(keys, section).join(", ")),
        };
        unknown.push((path, reason));
    }
}

/// The keys of a section, without its name.
fn names<'a>(keys: &'a [ConfigKey], section: &str) -> Vec<&'a str> {
    let name = |key: &'a ConfigKey| key.path.strip_prefix(section)?.strip_prefix('.');
    keys.iter().filter_map(name).collect()
}
