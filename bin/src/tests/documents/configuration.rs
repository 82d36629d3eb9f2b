//! The configuration reference in Markdown, from the definitions of the keys.

use crate::config;

const HEAD: &str = "\
# Configuration

<!-- Generated from bin/src/config by `cargo xtask docs`; a test compares the two. -->

One TOML file: `forgejo-mcp-broker serve --config FILE`. An environment variable can override each key: `BROKER_`, the
path in capitals, `__` for the dot (`BROKER_SERVER__LISTEN`); arrays there as TOML or with commas, tables as TOML. A secret
can stand in a file of its own, which the key with `_file` at its end names (`forgejo.client_secret_file`).

`forgejo-mcp-broker check --config FILE` prints all errors, each with its key and source, and exits with 64 if there is one;
it also tries which means of isolation this machine has. It exits with 69 if the program of `child.command` is missing or the
shared server does not respond. Unknown keys are refused. Durations are texts such as `\"15m\"` or
`\"1h 30m\"`, numbers of bytes such as `\"512MiB\"`.
";

/// The whole of `docs/configuration.md`.
pub(super) fn page() -> String {
    let mut page = String::from(HEAD);
    let mut last = String::new();
    for key in config::keys() {
        let (section, name) = key.path.split_once('.').unwrap();
        if section != last {
            section.clone_into(&mut last);
            page += &format!("\n## [{section}]\n\n| key | form | default | meaning |\n|---|---|---|---|\n");
        }
        let default = match key.default {
            "unset" => "unset".to_owned(),
            "required" => "*required*".to_owned(),
            default => format!("`{default}`"),
        };
        page += &format!("| `{name}` | {} | {default} | {} |\n", key.form, key.text.trim());
    }
    page
}
