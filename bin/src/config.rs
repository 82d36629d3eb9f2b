//! The configuration: one TOML file, environment overrides, all errors at once.
//!
//! A section is defined once ([`section`]): each key with its kind, its default and its
//! documentation. The struct that the program uses, the reading with its checks, and
//! `docs/configuration.md` all come from that definition. [`Sources`] are injected, so that a test
//! never touches the process environment. A crate validates its own part; its errors become errors
//! of the keys.

mod child;
pub(crate) mod crate_configs;
mod error;
pub(crate) mod key;
pub(crate) mod kinds;
mod oauth;
mod reader;
pub(crate) mod section;
mod sections;
mod sources;

use supervisor::MissingLayer;

pub(crate) use self::{
    child::{ChildConfig, ChildEra, ChildMode},
    error::ConfigErrors,
    sections::{ForgejoConfig, LogConfig, LogFormat, MetricsConfig, ServerConfig, SessionConfig, StoreConfig},
    sources::Sources,
};
use self::{
    key::ConfigKey,
    reader::Reader,
    section::{Section, section},
};

section! {
    /// Everything that the operator decides, validated.
    pub(crate) struct Config {
        /// The listening socket and its public name.
        server: ServerConfig,
        /// The Forgejo instance.
        forgejo: ForgejoConfig,
        /// The MCP servers.
        child: ChildConfig,
        /// Sessions.
        session: SessionConfig,
        /// The authorization server.
        oauth: ::oauth::Config,
        /// The database and its key.
        store: StoreConfig,
        /// Metrics.
        metrics: MetricsConfig,
        /// The log.
        log: LogConfig,
    }
}

/// All keys, in the order of the reference.
pub(crate) fn keys() -> Vec<ConfigKey> {
    let mut keys = Vec::new();
    Config::keys("", &mut keys);
    keys
}

/// Reads and checks a configuration.
pub(crate) fn load(sources: &Sources) -> Result<Config, ConfigErrors> {
    let (reader, config) = read(sources)?;
    reader.finish(config)
}

/// As [`load`], and tries which layers of the isolation this machine has. Returns the missing ones
/// too, unless they are required.
pub(crate) fn check(sources: &Sources) -> Result<(Config, Vec<MissingLayer>), ConfigErrors> {
    let (mut reader, config) = read(sources)?;
    let mut missing = Vec::new();
    // A shared server is not a child: there is nothing to isolate.
    if config.child.mode == ChildMode::Process {
        match crate_configs::supervisor(&config).try_isolation() {
            Ok(report) => missing = report.missing,
            Err(error) => reader.report("child.require_isolation", format!("cannot try the isolation: {error}")),
        }
    }
    if config.child.require_isolation {
        for missing in missing.drain(..) {
            let key = format!("child.{}", missing.layer.field());
            reader.report_first(&key, format!("required, but not available on this machine: {missing}"));
        }
    }
    Ok((reader.finish(config)?, missing))
}

/// Reads all keys, and checks those that depend on each other.
fn read(sources: &Sources) -> Result<(Reader, Config), ConfigErrors> {
    let values = sources.merge().map_err(|error| ConfigErrors(vec![error]))?;
    let keys = keys();
    let mut reader = Reader::new(values, &keys);
    let config = Config::read(&mut reader, "");
    config.child.check(&mut reader, &keys);
    if !config.forgejo.allowed_orgs.is_empty() && !config.forgejo.scopes.read_organizations() {
        reader.report_first("forgejo.allowed_orgs", "needs read:organization among forgejo.scopes");
    }
    if config.store.key.is_some() && reader.is_set("store.key_file") {
        reader.report("store.key", "set together with store.key_file; set one of the two");
    }
    if let Err(errors) = crate_configs::oauth(&config).validate() {
        for error in errors.0 {
            reader.report_first(error.key, error.message);
        }
    }
    if let Err(faults) = crate_configs::supervisor(&config).check() {
        for fault in faults.0 {
            let key = match fault.field {
                "delivery" if reader.is_set("child.secret_files") => "child.secret_files".to_owned(),
                "delivery" => "child.secret_descriptors".to_owned(),
                field => format!("child.{field}"),
            };
            reader.report_first(&key, fault.reason);
        }
    }
    Ok((reader, config))
}

#[cfg(test)]
mod tests {
    use super::{Config, ConfigErrors, Sources, crate_configs, load};

    /// The errors of a file and an environment besides the required keys, each as `key (source)`.
    fn errors(file: &str, environment: &[(&str, &str)]) -> Vec<String> {
        let (loaded, file) = load_with_required(file, environment);
        let errors = loaded.err().map_or_else(Vec::new, |errors| errors.0);
        let describe = |source: &str| {
            if source == file {
                "file".to_owned()
            } else {
                source.to_owned()
            }
        };
        let lines = errors
            .iter()
            .map(|error| format!("{} ({})", error.key, describe(&error.source)));
        lines.collect()
    }

    const SCOPES: (&str, &str) = ("BROKER_FORGEJO__SCOPES", "read:user");

    /// The isolation by a file and an environment with the required keys.
    fn isolation(file: &str, environment: &[(&str, &str)]) -> supervisor::Isolation {
        let (loaded, _) = load_with_required(file, &[&[SCOPES], environment].concat());
        crate_configs::supervisor(&loaded.unwrap()).isolation
    }

    /// Loads a file and an environment with the required keys but `forgejo.scopes`. Returns the
    /// path of the file too.
    fn load_with_required(file: &str, environment: &[(&str, &str)]) -> (Result<Config, ConfigErrors>, String) {
        let path = tempfile::NamedTempFile::new().unwrap();
        let required = [
            ("BROKER_FORGEJO__URL", "http://localhost"),
            ("BROKER_FORGEJO__CLIENT_ID", "id"),
            ("BROKER_FORGEJO__CLIENT_SECRET", "secret"),
        ];
        std::fs::write(&path, file).unwrap();
        let environment = required.iter().chain(environment);
        let environment = environment.map(|(name, value)| (name.to_string(), value.to_string()));
        let file = path.path().display().to_string();
        let sources = Sources {
            file: Some(path.path().to_owned()),
            environment: environment.collect(),
        };
        (load(&sources), file)
    }

    #[test]
    fn an_error_names_the_variable_that_sets_a_part_of_the_key() {
        for (name, error) in [
            ("BROKER_OTHER__KEY", "other (BROKER_OTHER__KEY)"),
            (
                "BROKER_SERVER__LISTEN__PORT",
                "server.listen (BROKER_SERVER__LISTEN__PORT)",
            ),
            ("BROKER_CHILD__ENV__", "child.env (BROKER_CHILD__ENV__)"),
        ] {
            assert_eq!(
                errors("[server]\ndrain_timeout = \"1s\"", &[SCOPES, (name, "1")]),
                [error]
            );
        }
    }

    #[test]
    fn a_quoted_path_is_not_a_key_and_an_empty_section_says_nothing() {
        assert_eq!(
            errors("'server.listen' = '127.0.0.1:1'", &[SCOPES]),
            ["server.listen (file)"]
        );
        assert_eq!(errors("[other]\n[server]", &[SCOPES]), [""; 0]);
    }

    #[test]
    fn children_may_connect_to_the_port_of_forgejo_and_to_those_of_the_configuration() {
        let name = "BROKER_CHILD__ISOLATION__CONNECT_PORTS";
        let ports = |file: &str, environment: &[(&str, &str)]| isolation(file, environment).connect_ports;
        assert_eq!(ports("", &[]), [80]);
        assert_eq!(
            ports("", &[("BROKER_FORGEJO__URL", "https://forge.example:3000/git")]),
            [3000]
        );
        assert_eq!(ports("", &[("BROKER_FORGEJO__URL", "https://forge.example")]), [443]);
        assert_eq!(
            ports("[child.isolation]\nconnect_ports = [53, 3128]", &[]),
            [80, 53, 3128]
        );
        assert_eq!(ports("", &[(name, "[65535]")]), [80, 65535]);
        for invalid in ["[0]", "[65536]", "[-1]", "['3128']", "3128", "proxy"] {
            let key = format!("child.isolation.connect_ports ({name})");
            assert_eq!(errors("", &[SCOPES, (name, invalid)]), [key], "{invalid}");
        }
    }

    #[test]
    fn users_of_children_are_chosen_by_word_or_by_range() {
        use supervisor::ChildUsers::{Auto, Off, Range};
        let name = "BROKER_CHILD__ISOLATION__USERS";
        let users = |file: &str, environment: &[(&str, &str)]| isolation(file, environment).users;
        assert_eq!(users("", &[]), Auto);
        assert_eq!(users("[child.isolation]\nusers = 'off'", &[]), Off);
        assert_eq!(
            users("[child.isolation]\nusers = [100000, 165535]", &[]),
            Range(100_000..=165_535)
        );
        assert_eq!(users("", &[(name, "[7, 7]")]), Range(7..=7));
        assert_eq!(users("[child.isolation]\nusers = 'off'", &[(name, "auto")]), Auto);
        for invalid in [
            "root",
            "[7]",
            "[9, 7]",
            "[0, 7]",
            "[7, 4294967295]",
            "['a', 'b']",
            "true",
        ] {
            let key = format!("child.isolation.users ({name})");
            assert_eq!(errors("", &[SCOPES, (name, invalid)]), [key], "{invalid}");
        }
    }

    #[test]
    fn isolation_layers_can_be_turned_off() {
        let off = "[child.isolation]\nno_new_privileges = false\nlandlock = false\nnetwork = false\nseccomp = false";
        let isolation = isolation(off, &[]);
        assert!(!isolation.no_new_privileges && !isolation.landlock && !isolation.network && !isolation.seccomp);
        // All three need the first.
        assert_eq!(
            errors("[child.isolation]\nno_new_privileges = false", &[SCOPES]).len(),
            3
        );
    }

    #[test]
    fn a_missing_key_causes_no_second_error() {
        let errors = errors("[forgejo]\nallowed_orgs = ['a']", &[]);
        assert_eq!(
            errors,
            ["forgejo.scopes (not set; BROKER_FORGEJO__SCOPES would set it)"]
        );
    }

    #[test]
    fn only_required_keys_are_missing_without_any_source() {
        let errors = load(&Sources::default()).unwrap_err();
        let keys: Vec<&str> = errors.0.iter().map(|error| error.key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "forgejo.url",
                "forgejo.client_id",
                "forgejo.client_secret",
                "forgejo.scopes"
            ]
        );
    }
}
