//! From sources to a [`Config`]: each section in turn, then what only shows when keys are seen together.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use figment::value::{Dict, Value};
use oauth::{
    config::{Registration, StaticClient},
    forgejo::Scopes,
    ids::ClientId,
    seal::Sealer,
};
use secrecy::{ExposeSecret as _, SecretString};
use supervisor::{Delivery, Isolation, IsolationLimits, MissingLayer};

use super::{
    Child, Config, Faults, Forgejo, Log, LogFormat, Metrics, OAuth, Server, Session, Sources, Store, keys::CLIENT_KEYS,
    read::Reader, upstream, values,
};
use crate::{parts, template};

/// Reads and checks a configuration.
///
/// # Errors
///
/// Every fault that there is, not only the first.
pub fn load(sources: &Sources) -> Result<Config, Faults> {
    let mut reader = reader(sources)?;
    let config = read(&mut reader);
    refuse_for_others(&mut reader, &config);
    reader.finish(config)
}

/// As [`load`], and tries what only this machine can tell. Gives also what was asked for to keep children apart, is not to be had
/// and is not required.
///
/// # Errors
///
/// Every fault that there is, not only the first.
pub fn check(sources: &Sources) -> Result<(Config, Vec<MissingLayer>), Faults> {
    let mut reader = reader(sources)?;
    let config = read(&mut reader);
    refuse_for_others(&mut reader, &config);
    if config.child.upstream.is_some() {
        // Nothing is started, so nothing is kept apart.
        return Ok((reader.finish(config)?, vec![]));
    }
    let missing = match parts::supervisor(&config).try_isolation() {
        Ok(report) => report.missing,
        Err(error) => {
            reader.refuse("child.require_isolation", format!("cannot be tried: {error}"));
            vec![]
        }
    };
    if !config.child.isolation.required {
        return Ok((reader.finish(config)?, missing));
    }
    for missing in missing {
        let key = format!("child.{}", missing.layer.field());
        if !reader.has_fault(&key) {
            reader.refuse(&key, format!("required, and not to be had here: {missing}"));
        }
    }
    Ok((reader.finish(config)?, vec![]))
}

fn reader(sources: &Sources) -> Result<Reader, Faults> {
    Ok(Reader::new(sources.merge().map_err(|fault| Faults(vec![fault]))?))
}

/// What the crates say of their parts.
fn refuse_for_others(reader: &mut Reader, config: &Config) {
    // What the authorization server says of its part, but for keys that have stand-ins.
    if let Err(errors) = parts::oauth(config).validate() {
        for error in errors.0 {
            if !reader.has_fault(error.key) {
                reader.refuse(error.key, error.fault);
            }
        }
    }
    if let Err(faults) = parts::supervisor(config).check() {
        for fault in faults.0 {
            let key = match fault.field {
                "delivery" if reader.is_set("child.secret_files") => "child.secret_files".to_owned(),
                "delivery" => "child.secret_descriptors".to_owned(),
                field => format!("child.{field}"),
            };
            if !reader.has_fault(&key) {
                reader.refuse(&key, fault.reason);
            }
        }
    }
}

fn read(reader: &mut Reader) -> Config {
    Config {
        server: server(reader),
        forgejo: forgejo(reader),
        child: child(reader),
        session: session(reader),
        oauth: oauth(reader),
        store: store(reader),
        metrics: Metrics {
            enabled: reader.flag("metrics.enabled"),
            token: reader.optional_secret("metrics.token"),
        },
        log: log(reader),
    }
}

fn store(reader: &mut Reader) -> Store {
    let text = SecretString::from(reader.text("store.key"));
    let key = if text.expose_secret().is_empty() {
        None
    } else {
        if reader.is_set("store.key_file") {
            reader.refuse("store.key", "set together with store.key_file; set one of the two");
        }
        match Sealer::from_text(&text) {
            Ok(sealer) => Some(sealer),
            Err(error) => {
                reader.refuse("store.key", error.to_string());
                None
            }
        }
    };
    Store {
        path: reader.path("store.path"),
        key_file: reader.path("store.key_file"),
        key,
    }
}

fn server(reader: &mut Reader) -> Server {
    Server {
        listen: reader.address("server.listen"),
        public_url: reader.url("server.public_url"),
        allowed_hosts: reader.each("server.allowed_hosts", values::check_host),
        allowed_origins: reader.each("server.allowed_origins", values::check_origin),
        drain_timeout: reader.duration("server.drain_timeout"),
    }
}

fn forgejo(reader: &mut Reader) -> Forgejo {
    let forgejo = Forgejo {
        url: reader.url("forgejo.url"),
        client_id: reader.filled("forgejo.client_id"),
        client_secret: reader.secret("forgejo.client_secret"),
        scopes: reader.list("forgejo.scopes"),
        allowed_users: reader.list("forgejo.allowed_users"),
        allowed_orgs: reader.list("forgejo.allowed_orgs"),
    };
    if reader.is_set("forgejo.scopes") {
        match Scopes::new(forgejo.scopes.clone()) {
            Err(error) => reader.refuse("forgejo.scopes", error.to_string()),
            Ok(scopes) if !forgejo.allowed_orgs.is_empty() && !scopes.read_organizations() => {
                reader.refuse("forgejo.allowed_orgs", "needs read:organization among forgejo.scopes");
            }
            Ok(_) => {}
        }
    }
    forgejo
}

fn child(reader: &mut Reader) -> Child {
    let child = Child {
        command: reader.filled("child.command"),
        args: reader.list("child.args"),
        env: reader
            .table("child.env")
            .into_iter()
            .map(|(name, value)| (name, SecretString::from(value)))
            .collect(),
        start_timeout: positive(reader, "child.start_timeout"),
        stop_grace: reader.duration("child.stop_grace"),
        inherit_env: reader.list("child.inherit_env"),
        delivery: delivery(reader),
        stderr_lines_per_second: small_count(reader, "child.stderr_lines_per_second"),
        limits: limits(reader),
        isolation: isolation(reader),
        upstream: upstream::read(reader),
    };
    for argument in &child.args {
        if let Err(reason) = template::check_argument(argument) {
            reader.refuse("child.args", reason);
        }
    }
    for (name, value) in &child.env {
        if let Err(reason) = template::check_variable(name, value) {
            reader.refuse("child.env", reason);
        }
    }
    child
}

fn delivery(reader: &mut Reader) -> BTreeMap<String, Delivery> {
    let files = reader
        .list("child.secret_files")
        .into_iter()
        .map(|name| (name, Delivery::File));
    let descriptors = reader.list("child.secret_descriptors").into_iter();
    files
        .chain(descriptors.map(|name| (name, Delivery::Descriptor)))
        .collect()
}

fn limits(reader: &mut Reader) -> IsolationLimits {
    let count = |value: &Value| values::count(value).map(|count| count as u64);
    IsolationLimits {
        open_files: Some(reader.count("child.limits.open_files") as u64),
        address_space: reader.optional("child.limits.address_space", values::bytes),
        cpu_time: reader.optional("child.limits.cpu_time", values::duration),
        processes: reader.optional("child.limits.processes", count),
        memory: reader.optional("child.limits.memory", values::bytes),
    }
}

fn isolation(reader: &mut Reader) -> Isolation {
    let path = |value: &Value| values::text(value).map(PathBuf::from);
    let paths = |list: Vec<String>| list.into_iter().map(PathBuf::from).collect();
    Isolation {
        required: reader.flag("child.require_isolation"),
        no_new_privileges: reader.flag("child.isolation.no_new_privileges"),
        drop_capabilities: reader.flag("child.isolation.drop_capabilities"),
        landlock: reader.flag("child.isolation.landlock"),
        readable: paths(reader.list("child.isolation.readable")),
        writable: paths(reader.list("child.isolation.writable")),
        own_directory: reader.flag("child.isolation.own_directory"),
        directory: reader.optional("child.isolation.directory", path),
        users: reader.optional("child.isolation.users", values::range),
        cgroup: reader.optional("child.isolation.cgroup", path),
    }
}

fn session(reader: &mut Reader) -> Session {
    Session {
        max_sessions: reader.count("session.max_sessions"),
        max_sessions_per_user: reader.count("session.max_sessions_per_user"),
        idle_timeout: positive(reader, "session.idle_timeout"),
        reap_interval: positive(reader, "session.reap_interval"),
        rotate_interval: positive(reader, "session.rotate_interval"),
        refresh_lead: reader.duration("session.refresh_lead"),
        retain: reader.duration("session.retain"),
        unknown_status: if reader.one_of("session.unknown_status") == "404" {
            404
        } else {
            410
        },
    }
}

fn oauth(reader: &mut Reader) -> OAuth {
    OAuth {
        access_token_ttl: reader.duration("oauth.access_token_ttl"),
        refresh_token_ttl: reader.duration("oauth.refresh_token_ttl"),
        code_ttl: reader.duration("oauth.code_ttl"),
        registration: match reader.one_of("oauth.registration").as_str() {
            "closed" => Registration::Closed,
            "allow-list" => Registration::AllowList,
            _ => Registration::Open,
        },
        allowed_redirect_hosts: reader.list("oauth.allowed_redirect_hosts"),
        allowed_client_domains: reader.list("oauth.allowed_client_domains"),
        max_clients: small_count(reader, "oauth.max_clients"),
        registrations_per_minute: small_count(reader, "oauth.registrations_per_minute"),
        sign_ins_per_minute: small_count(reader, "oauth.sign_ins_per_minute"),
        tokens_per_minute: small_count(reader, "oauth.tokens_per_minute"),
        clients: reader
            .tables("oauth.clients")
            .iter()
            .filter_map(|table| static_client(reader, table))
            .collect(),
    }
}

fn log(reader: &mut Reader) -> Log {
    let filter = reader.text("log.filter");
    if tracing_subscriber::EnvFilter::try_new(&filter).is_err() {
        reader.refuse("log.filter", "is not a filter of log events");
    }
    let format = if reader.one_of("log.format") == "json" {
        LogFormat::Json
    } else {
        LogFormat::Pretty
    };
    Log { format, filter }
}

fn positive(reader: &mut Reader, path: &str) -> Duration {
    let duration = reader.duration(path);
    if duration.is_zero() && reader.is_set(path) {
        reader.refuse(path, "has to be longer than nothing");
    }
    duration
}

/// A count that fits into 32 bits.
fn small_count(reader: &mut Reader, path: &str) -> u32 {
    u32::try_from(reader.count(path)).unwrap_or_else(|_| {
        reader.refuse(path, "is too large");
        1
    })
}

fn static_client(reader: &mut Reader, table: &Dict) -> Option<StaticClient> {
    client(table)
        .map_err(|reason| reader.refuse("oauth.clients", reason))
        .ok()
}

fn client(table: &Dict) -> Result<StaticClient, String> {
    if let Some(name) = table.keys().find(|name| !CLIENT_KEYS.contains(&name.as_str())) {
        return Err(format!("unknown key {name}; a client has {}", CLIENT_KEYS.join(", ")));
    }
    let named = |name: &str, reason: String| format!("{name}: {reason}");
    let text = |name: &str| {
        table
            .get(name)
            .map(values::text)
            .transpose()
            .map_err(|reason| named(name, reason))
    };
    let required = |name: &str| {
        text(name)?
            .filter(|given| !given.is_empty())
            .ok_or_else(|| format!("{name} is required"))
    };
    let secret = match (text("client_secret")?, text("client_secret_file")?) {
        (Some(_), Some(_)) => return Err("client_secret is set together with client_secret_file".to_owned()),
        (given, None) => given,
        (None, Some(file)) => Some(values::secret_file(&file).map_err(|reason| named("client_secret_file", reason))?),
    };
    if secret.as_ref().is_some_and(String::is_empty) {
        return Err("client_secret is empty".to_owned());
    }
    let uris = table.get("redirect_uris").ok_or("redirect_uris is required")?;
    Ok(StaticClient {
        client_id: ClientId(required("client_id")?),
        client_secret: secret.map(SecretString::from),
        name: Some(required("client_name")?),
        redirect_uris: values::list(uris).map_err(|reason| named("redirect_uris", reason))?,
    })
}
