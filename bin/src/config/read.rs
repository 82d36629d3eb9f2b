//! Takes values out of the merged sources, one key at a time, and collects faults instead of stopping at the first.
//!
//! A value that cannot be had is replaced by a harmless stand-in, so that reading goes on; the stand-in is never seen,
//! since a reader with faults gives no configuration.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use figment::{
    Figment, Source,
    providers::{Format, Toml},
    value::{Dict, Tag, Value},
};
use secrecy::SecretString;
use url::Url;

use super::{
    fault::{Fault, Faults},
    keys::{self, Default, Form, Key},
    sources::{self, ENVIRONMENT},
    values,
};

/// Reads keys and remembers what was wrong with them.
#[derive(Debug)]
pub(super) struct Reader {
    figment: Figment,
    faults: Vec<Fault>,
}

/// A value and where it came from.
pub(super) struct Found {
    pub(super) value: Value,
    pub(super) source: String,
}

impl Reader {
    pub(super) fn new(figment: Figment) -> Self {
        let mut reader = Self {
            figment,
            faults: Vec::new(),
        };
        reader.refuse_unknown_keys();
        reader
    }

    /// Ends the reading.
    pub(super) fn finish<T>(self, config: T) -> Result<T, Faults> {
        if self.faults.is_empty() {
            Ok(config)
        } else {
            Err(Faults(self.faults))
        }
    }

    /// Whether something is wrong with the key.
    pub(super) fn has_fault(&self, key: &str) -> bool {
        self.faults.iter().any(|fault| fault.key == key)
    }

    /// Whether the key is set somewhere: an unset one is reported once, as missing.
    pub(super) fn is_set(&self, path: &str) -> bool {
        self.found(path).is_some()
    }

    /// Adds a fault of a key, at the place where the key was set.
    pub(super) fn refuse(&mut self, key: &str, reason: impl Into<String>) {
        let source = self.source(key);
        self.faults.push(Fault {
            key: key.to_owned(),
            source,
            reason: reason.into(),
        });
    }

    pub(super) fn text(&mut self, path: &str) -> String {
        self.take(path, values::text)
    }

    /// Text that is not empty.
    pub(super) fn filled(&mut self, path: &str) -> String {
        self.take(path, |value| {
            let text = values::text(value)?;
            if text.is_empty() {
                Err("empty".to_owned())
            } else {
                Ok(text)
            }
        })
    }

    pub(super) fn list(&mut self, path: &str) -> Vec<String> {
        self.take(path, values::list)
    }

    /// A list whose every entry passes a check.
    pub(super) fn each(&mut self, path: &str, check: impl Fn(&str) -> Result<(), String>) -> Vec<String> {
        self.take(path, |value| {
            let list = values::list(value)?;
            list.iter().try_for_each(|entry| check(entry))?;
            Ok(list)
        })
    }

    pub(super) fn table(&mut self, path: &str) -> Vec<(String, String)> {
        self.take(path, values::table)
    }

    pub(super) fn tables(&mut self, path: &str) -> Vec<Dict> {
        self.take(path, values::tables)
    }

    pub(super) fn duration(&mut self, path: &str) -> Duration {
        self.take(path, values::duration)
    }

    pub(super) fn count(&mut self, path: &str) -> usize {
        self.take(path, values::count)
    }

    pub(super) fn bytes(&mut self, path: &str) -> u64 {
        self.take(path, values::bytes)
    }

    pub(super) fn flag(&mut self, path: &str) -> bool {
        self.take(path, values::flag)
    }

    /// The value of a key that may be unset.
    pub(super) fn optional<T>(&mut self, path: &str, convert: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
        let found = self.found(path)?;
        convert(&found.value).map_err(|reason| self.refuse(path, reason)).ok()
    }

    pub(super) fn path(&mut self, path: &str) -> PathBuf {
        self.take(path, |value| values::text(value).map(PathBuf::from))
    }

    pub(super) fn url(&mut self, path: &str) -> Url {
        self.take_or_else(path, values::url, || {
            Url::parse("http://localhost").expect("a constant URL")
        })
    }

    pub(super) fn address(&mut self, path: &str) -> SocketAddr {
        self.take_or_else(path, values::address, || SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// One of the values that the table of keys allows.
    pub(super) fn one_of(&mut self, path: &str) -> String {
        let Some(Key {
            form: Form::OneOf(allowed),
            ..
        }) = keys::find(path)
        else {
            return String::new();
        };
        self.take(path, |value| values::one_of(value, allowed))
    }

    /// A secret, from the key itself or from the file that its `_file` twin names.
    pub(super) fn secret(&mut self, path: &str) -> SecretString {
        let twin = format!("{path}_file");
        let (given, file) = (self.found(path), self.found(&twin));
        let outcome = match (given, file) {
            (Some(_), Some(_)) => Err((path, format!("set together with {twin}; set one of the two"))),
            (Some(found), None) => values::text(&found.value).map_err(|reason| (path, reason)),
            (None, Some(found)) => values::text(&found.value)
                .and_then(|file| values::secret_file(&file))
                .map_err(|reason| (twin.as_str(), reason)),
            (None, None) => Err((path, format!("required, or {twin}"))),
        };
        match outcome {
            Ok(secret) if !secret.is_empty() => SecretString::from(secret),
            Ok(_) => {
                self.refuse(path, "empty");
                SecretString::default()
            }
            Err((key, reason)) => {
                self.refuse(key, reason);
                SecretString::default()
            }
        }
    }

    /// A secret that may be unset, file and all.
    pub(super) fn optional_secret(&mut self, path: &str) -> Option<SecretString> {
        let set = self.is_set(path) || self.is_set(&format!("{path}_file"));
        set.then(|| self.secret(path))
    }

    fn take<T: std::default::Default>(&mut self, path: &str, convert: impl FnOnce(&Value) -> Result<T, String>) -> T {
        self.take_or_else(path, convert, T::default)
    }

    fn take_or_else<T>(
        &mut self,
        path: &str,
        convert: impl FnOnce(&Value) -> Result<T, String>,
        stand_in: impl FnOnce() -> T,
    ) -> T {
        let outcome = match self.found(path).map(|found| found.value).or_else(|| default(path)) {
            Some(value) => convert(&value),
            None => Err("required".to_owned()),
        };
        outcome.unwrap_or_else(|reason| {
            self.refuse(path, reason);
            stand_in()
        })
    }

    fn found(&self, path: &str) -> Option<Found> {
        let value = self.figment.find_value(path).ok()?;
        let source = self.describe(value.tag(), path);
        Some(Found { value, source })
    }

    fn source(&self, path: &str) -> String {
        self.found(path).map_or_else(
            || format!("not set; {} would set it", sources::variable(path)),
            |found| found.source,
        )
    }

    fn describe(&self, tag: Tag, path: &str) -> String {
        match self.figment.get_metadata(tag) {
            Some(metadata) if metadata.name == ENVIRONMENT => sources::variable(path),
            Some(metadata) => match &metadata.source {
                Some(Source::File(file)) => file.display().to_string(),
                _ => metadata.name.to_string(),
            },
            None => "default".to_owned(),
        }
    }

    fn refuse_unknown_keys(&mut self) {
        let Ok(root) = self.figment.extract::<Dict>() else {
            return;
        };
        for (section, value) in &root {
            if let Value::Dict(_, entries) = value {
                self.refuse_unknown_in(section, entries);
            } else {
                self.refuse(section, "not a section");
            }
        }
    }

    fn refuse_unknown_in(&mut self, section: &str, entries: &Dict) {
        for (name, value) in entries {
            let path = format!("{section}.{name}");
            if is_known(&path) {
                continue;
            }
            if let Value::Dict(_, entries) = value
                && !names_in(&path).is_empty()
            {
                self.refuse_unknown_in(&path, entries);
            } else {
                self.refuse(&path, unknown(section));
            }
        }
    }
}

fn default(path: &str) -> Option<Value> {
    let Default::Value(literal) = keys::find(path)?.default else {
        return None;
    };
    Figment::from(Toml::string(&format!("default = {literal}")))
        .find_value("default")
        .ok()
}

fn is_known(path: &str) -> bool {
    let is_secret = |path: &str| keys::find(path).is_some_and(|key| key.form == Form::Secret);
    keys::find(path).is_some() || path.strip_suffix("_file").is_some_and(is_secret)
}

/// The keys of a section, without its name.
fn names_in(section: &str) -> Vec<&'static str> {
    let name = |key: &'static Key| key.path.strip_prefix(section)?.strip_prefix('.');
    keys::KEYS.iter().filter_map(name).collect()
}

fn unknown(section: &str) -> String {
    let names = names_in(section);
    if names.is_empty() {
        return format!("unknown section [{section}]");
    }
    format!("unknown key; [{section}] has {}", names.join(", "))
}
