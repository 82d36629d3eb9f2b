//! Keys: their paths and their documentation.

/// One key, as the reference shows it.
#[derive(Clone, Debug)]
pub struct ConfigKey {
    /// The dotted path: `section.name`.
    pub path: String,
    /// The kind of value, in words.
    pub form: &'static str,
    /// The default as TOML, `required` or `unset`.
    pub default: &'static str,
    /// The key has a twin `NAME_file`, which names a file with the value.
    pub secret: bool,
    /// The documentation, in Markdown.
    pub text: &'static str,
}

/// Joins the path of a section and a name.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}
