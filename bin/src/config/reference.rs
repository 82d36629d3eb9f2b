//! The configuration reference in Markdown, printed from the table of keys.

use std::fmt::Write;

use super::keys::{Default, Form, KEYS, Key};

/// The whole of `docs/configuration.md`.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::from(HEAD);
    let mut section = "";
    for key in KEYS {
        let (of, name) = key.path.split_once('.').unwrap_or(("", key.path));
        if of != section {
            section = of;
            page.push_str(&format!(
                "\n## [{section}]\n\n| key | form | default | meaning |\n|---|---|---|---|\n"
            ));
        }
        page.push_str(&row(name, key));
    }
    page
}

const HEAD: &str = "\
# Configuration

<!-- Printed from bin/src/config/keys.rs by `cargo xtask docs`; a test compares the two. -->

One TOML file: `forgejo-mcp-broker serve --config FILE`. Each key can be overridden by an environment variable: `BROKER_`,
the path in capitals, `__` for the dot (`BROKER_SERVER__LISTEN`); arrays there as TOML or with commas, tables as TOML. A secret can
stand in a file of its own, which the key with `_file` at its end names (`forgejo.client_secret_file`).

`forgejo-mcp-broker check --config FILE` tells everything that is wrong, each with its key and where it was set, and exits
with 64 if there is anything; it also tries what this machine has to keep children apart. Unknown keys are refused. Durations are texts such as `\"15m\"` or `\"1h 30m\"`, numbers of bytes such as `\"512MiB\"`.
";

fn row(name: &str, key: &Key) -> String {
    let mut row = String::new();
    let default = match key.default {
        Default::Value(default) => format!("`{default}`"),
        Default::Unset => "unset".to_owned(),
        Default::Required => "*required*".to_owned(),
    };
    // Writing to a String cannot fail.
    let _ = writeln!(row, "| `{name}` | {} | {default} | {} |", form(key.form), key.text);
    row
}

fn form(form: Form) -> String {
    match form {
        Form::Text => "text".to_owned(),
        Form::Secret => "secret text".to_owned(),
        Form::Url => "URL".to_owned(),
        Form::Address => "address".to_owned(),
        Form::Duration => "duration".to_owned(),
        Form::Count => "number".to_owned(),
        Form::Bytes => "bytes".to_owned(),
        Form::Range => "two numbers".to_owned(),
        Form::Flag => "`true` or `false`".to_owned(),
        Form::List => "texts".to_owned(),
        Form::Table => "table of texts".to_owned(),
        Form::Tables => "tables".to_owned(),
        Form::Path => "path".to_owned(),
        Form::OneOf(values) => values
            .iter()
            .map(|value| format!("`{value}`"))
            .collect::<Vec<_>>()
            .join(" or "),
    }
}
