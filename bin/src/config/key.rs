//! Keys: their paths and their documentation.

/// One key, as the reference shows it.
#[derive(Clone, Debug)]
#[cfg_attr(not(test), expect(dead_code, reason = "a test prints the reference"))]
pub(crate) struct ConfigKey {
    /// The dotted path: `section.name`.
    pub(crate) path: String,
    /// The kind of value, in words.
    pub(crate) form: &'static str,
    /// The default as TOML, `required` or `unset`.
    pub(crate) default: &'static str,
    /// The key has a twin `NAME_file`, which names a file with the value.
    pub(crate) secret: bool,
    /// The documentation, in Markdown.
    pub(crate) text: &'static str,
}

/// Joins the path of a section and a name.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}
