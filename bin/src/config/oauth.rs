//! The section `[oauth]`, and the clients that it names.

use std::time::Duration;

use oauth::{
    config::{Registration, StaticClient},
    ids::ClientId,
};
use secrecy::SecretString;
use toml::{Table, Value};

use super::{
    kinds::{Kind, choice, filled, kind, list, secret_file, tables},
    section::section,
};

section! {
    impl oauth::Config {
        /// The lifetime of the access tokens that clients get.
        access_token_ttl: Duration = "1h",
        /// The lifetime of an unused refresh token.
        refresh_token_ttl: Duration = "30d",
        /// The time from the issue of a refresh token on for which the token that it replaces is
        /// good, a day at most; a later use ends the sign-in. Unset: until the new token is used,
        /// since clients lose answers, share tokens between processes and come back days later.
        refresh_grace: Option<Duration> = unset,
        /// The lifetime of authorization codes.
        code_ttl: Duration = "60s",
        /// `open`: clients may register themselves (RFC 7591) or be described by a document at the
        /// URL that is their name (client ID metadata documents). `closed`: only `oauth.clients`.
        /// `allow-list`: clients that `oauth.allowed_redirect_hosts` and
        /// `oauth.allowed_client_domains` name.
        registration: Registration = "open",
        /// Clients may be described by documents, as far as `oauth.registration` permits. `false`
        /// where the broker cannot reach the hosts of documents: clients that see it register
        /// instead.
        cimd: bool = true,
        /// With `allow-list`: hosts in the redirect URIs of a client that registers itself.
        /// `"claude.ai"` is that host with https, `"*.example.org"` the hosts below it,
        /// `"localhost"` the user's own machine, `"cursor:"` a private scheme (a domain name in
        /// reverse order, as `"com.example.app:"`, or that of a well-known client). Empty: no
        /// client may register itself.
        allowed_redirect_hosts: Vec<String> = [],
        /// With `allow-list`: the hosts whose documents may describe a client, as `"claude.ai"` or
        /// `"*.example.org"`. Empty: no client may be described by a document.
        allowed_client_domains: Vec<String> = [],
        /// Clients that are refused at once, whatever the keys above permit: a client identifier, a
        /// host (`"evil.example"`) or the hosts below a domain (`"*.evil.example"`) of metadata
        /// documents or redirect URIs. Their grants end when the broker starts.
        blocked_clients: Vec<String> = [],
        /// The most clients that may be registered. At that number, new clients replace unused
        /// ones.
        max_clients: u32 = 10000,
        /// The most new clients that may register in a minute (then 429). A public client that is
        /// known already is not counted.
        registrations_per_minute: u32 = 60,
        /// The most sign-ins that may begin in a minute (then a page with 503); for one client, a
        /// fifth of them, but at least 10. Users who are signed in do not notice.
        sign_ins_per_minute: u32 = 3000,
        /// The most times that tokens may be issued in a minute (then 503); to one user, a fiftieth
        /// of them, but at least 10 (then 429). Each broker counts this and the two before in
        /// memory.
        tokens_per_minute: u32 = 12000,
        /// Clients that need no registration: tables with `client_id`, `client_name`,
        /// `redirect_uris` and, for confidential ones, `client_secret` or `client_secret_file`.
        clients: Vec<StaticClient> = [],
        // `crate_configs::oauth` adds the values of other sections.
        ..oauth::Config::new("")
    }
}

choice!(Registration: Open = "open", Closed = "closed", AllowList = "allow-list");
kind!(Vec<StaticClient>, "tables", |value| tables(value, static_client));

fn required<T>(value: Option<&Value>, read: impl Fn(&Value) -> Result<T, String>) -> Result<T, String> {
    value.map_or_else(|| Err("required".to_owned()), read)
}

fn static_client(table: &Table) -> Result<StaticClient, String> {
    const KEYS: [&str; 5] = [
        "client_id",
        "client_secret",
        "client_secret_file",
        "client_name",
        "redirect_uris",
    ];
    let [id, secret, secret_path, name, uris] = KEYS.map(|key| table.get(key));
    let named = |key: &'static str| move |reason| format!("{key}: {reason}");
    if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(format!("unknown key {key}; a client has {}", KEYS.join(", ")));
    }
    let secret = match (secret.cloned(), secret_path) {
        (Some(_), Some(_)) => return Err("client_secret: set together with client_secret_file".to_owned()),
        (given, None) => given,
        (None, Some(path)) => Some(secret_file(path).map_err(named("client_secret_file"))?),
    };
    let secret = secret.map(|secret| filled(&secret)).transpose();
    Ok(StaticClient {
        client_id: ClientId(required(id, filled).map_err(named("client_id"))?),
        client_secret: secret.map_err(named("client_secret"))?.map(SecretString::from),
        name: Some(required(name, filled).map_err(named("client_name"))?),
        redirect_uris: required(uris, list).map_err(named("redirect_uris"))?,
    })
}
