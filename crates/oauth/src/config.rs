//! What an operator decides, and the check that it makes sense as a whole.
//!
//! [`Config`] is what one writes; the crate works on `Settings`, which exist only for a configuration without a
//! fault. All faults are reported at once, each with the key that it is about.

use std::{fmt, time::Duration};

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use crate::{
    allow_list::AllowList,
    ids::ClientId,
    records::{ClientAuth, ClientRecord},
    redirect_uri, secret,
};

/// The configuration of an authorization server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the broker is reached, and its issuer: `https://host[:port][/prefix]`, `http` for loopback only, no
    /// slash at the end. Everything that is published derives from it.
    pub public_url: String,
    /// How long an access token is good, as told to the client. It is honoured a minute longer.
    pub access_token_ttl: Duration,
    /// How much longer an access token is honoured: less than a minute for tests that wait for its end. It is not there
    /// without the feature `testing`.
    #[cfg(feature = "testing")]
    pub access_token_grace: Duration,
    /// How long a refresh token is good, counted from its issue.
    pub refresh_token_ttl: Duration,
    /// How long an authorization code is good.
    pub code_ttl: Duration,
    /// An account is renewed when its upstream token has less than this left, or less than half of a short life.
    pub refresh_lead: Duration,
    /// Whether clients may register themselves or describe themselves by a document.
    pub registration: Registration,
    /// With [`Registration::AllowList`]: where the answers of a client that registers itself may go. `example.org`,
    /// `*.example.org`, `localhost` for this machine, `cursor:` for a private scheme.
    pub allowed_redirect_hosts: Vec<String>,
    /// With [`Registration::AllowList`]: the hosts whose documents describe clients. `example.org`, `*.example.org`.
    pub allowed_client_domains: Vec<String>,
    /// How many clients may be registered. At that number, those that nobody uses make room for new ones.
    pub max_clients: u32,
    /// How many new clients may register in a minute. A client that is known already is not counted.
    pub registrations_per_minute: u32,
    /// How many sign-ins may begin in a minute; for one client, a fifth of them.
    pub sign_ins_per_minute: u32,
    /// How many times in a minute tokens may be issued; to one user, a fiftieth of them.
    pub tokens_per_minute: u32,
    /// Clients that are known without registration.
    pub clients: Vec<StaticClient>,
    /// Logins that may sign in.
    pub allowed_users: Vec<String>,
    /// Organisations whose members may sign in. With both lists empty every user may; else one of the two suffices.
    pub allowed_orgs: Vec<String>,
}

/// Whether clients may register themselves (RFC 7591), or describe themselves by a document at a URL that is their
/// identifier (client ID metadata document draft).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// Any client may.
    Open,
    /// Those may that the allow-lists name.
    AllowList,
    /// Only clients of the configuration are known.
    Closed,
}

/// A client that is known without registration.
#[derive(Clone, Debug)]
pub struct StaticClient {
    /// The client identifier.
    pub client_id: ClientId,
    /// The secret of a confidential client.
    pub client_secret: Option<SecretString>,
    /// What the consent page calls it.
    pub name: Option<String>,
    /// Where it may be sent back to.
    pub redirect_uris: Vec<String>,
}

/// All faults of a configuration.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

/// One fault of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {fault}")]
pub struct ConfigError {
    /// The key, with its table as the broker's configuration file has it.
    pub key: &'static str,
    /// What is wrong.
    pub fault: String,
}

/// For how long an access token is honoured beyond what the client is told. Clients begin a whole new sign-in on a 401
/// that comes while they still think the token good.
const GRACE: Duration = Duration::from_secs(60);

/// A configuration without a fault.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Byte-identical to `public_url`.
    pub(crate) issuer: String,
    /// `scheme://host[:port]` of the issuer.
    pub(crate) origin: String,
    /// The path of the issuer: empty, or `/prefix` without a slash at the end.
    pub(crate) prefix: String,
    /// The protected resource (RFC 8707): the MCP endpoint.
    pub(crate) resource: String,
    /// Whether cookies can be `Secure`.
    pub(crate) secure: bool,
    pub(crate) access_token_ttl: Duration,
    /// For how long it is honoured beyond that.
    pub(crate) access_token_grace: Duration,
    pub(crate) refresh_token_ttl: Duration,
    pub(crate) code_ttl: Duration,
    pub(crate) refresh_lead: Duration,
    pub(crate) registration: Registration,
    pub(crate) allow_list: AllowList,
    pub(crate) max_clients: u32,
    pub(crate) registrations_per_minute: u32,
    pub(crate) sign_ins_per_minute: u32,
    pub(crate) tokens_per_minute: u32,
    pub(crate) clients: Vec<ClientRecord>,
    pub(crate) allowed_users: Vec<String>,
    pub(crate) allowed_orgs: Vec<String>,
}

impl Config {
    /// The usual configuration for a public URL.
    pub fn new(public_url: impl Into<String>) -> Self {
        Self {
            public_url: public_url.into(),
            access_token_ttl: Duration::from_secs(60 * 60),
            #[cfg(feature = "testing")]
            access_token_grace: GRACE,
            refresh_token_ttl: Duration::from_secs(30 * 24 * 60 * 60),
            code_ttl: Duration::from_secs(60),
            refresh_lead: Duration::from_secs(5 * 60),
            registration: Registration::Open,
            allowed_redirect_hosts: Vec::new(),
            allowed_client_domains: Vec::new(),
            max_clients: 10_000,
            registrations_per_minute: 60,
            sign_ins_per_minute: 3_000,
            tokens_per_minute: 12_000,
            clients: Vec::new(),
            allowed_users: Vec::new(),
            allowed_orgs: Vec::new(),
        }
    }

    /// Checks everything that can be checked without an upstream.
    ///
    /// # Errors
    ///
    /// All faults at once.
    pub fn validate(&self) -> Result<(), ConfigErrors> {
        self.clone().into_settings().map(|_| ())
    }

    pub(crate) fn into_settings(self) -> Result<Settings, ConfigErrors> {
        let mut faults = Vec::new();
        let url = match parse_public_url(&self.public_url) {
            Ok(url) => Some(url),
            Err(fault) => {
                faults.push(ConfigError {
                    key: "server.public_url",
                    fault,
                });
                None
            }
        };
        for (key, duration) in [
            ("oauth.access_token_ttl", self.access_token_ttl),
            ("oauth.refresh_token_ttl", self.refresh_token_ttl),
            ("oauth.code_ttl", self.code_ttl),
        ] {
            if duration < Duration::from_secs(1) || duration > Duration::from_secs(10 * 365 * 24 * 60 * 60) {
                faults.push(ConfigError {
                    key,
                    fault: "must be between one second and ten years".to_owned(),
                });
            }
        }
        if self.refresh_lead > Duration::from_secs(24 * 60 * 60) {
            faults.push(ConfigError {
                key: "session.refresh_lead",
                fault: "must be one day at most".to_owned(),
            });
        }
        if self.code_ttl > Duration::from_secs(600) {
            // RFC 6749 section 4.1.2.
            faults.push(ConfigError {
                key: "oauth.code_ttl",
                fault: "must be ten minutes at most".to_owned(),
            });
        }
        faults.extend(client_faults(&self.clients));
        let allow_list = AllowList::read(&self.allowed_redirect_hosts, &self.allowed_client_domains);
        for (is_redirect, entry) in allow_list.as_ref().err().into_iter().flatten() {
            faults.push(ConfigError {
                key: if *is_redirect {
                    "oauth.allowed_redirect_hosts"
                } else {
                    "oauth.allowed_client_domains"
                },
                fault: format!("{entry:?} is no entry of this list"),
            });
        }
        match (url, allow_list) {
            (Some(url), Ok(allow_list)) if faults.is_empty() => Ok(self.settings(&url, allow_list)),
            _ => Err(ConfigErrors(faults)),
        }
    }

    fn settings(self, url: &Url, allow_list: AllowList) -> Settings {
        Settings {
            resource: format!("{}/mcp", self.public_url),
            origin: url.origin().ascii_serialization(),
            prefix: url.path().trim_end_matches('/').to_owned(),
            secure: url.scheme() == "https",
            issuer: self.public_url,
            access_token_ttl: self.access_token_ttl,
            #[cfg(feature = "testing")]
            access_token_grace: self.access_token_grace,
            #[cfg(not(feature = "testing"))]
            access_token_grace: GRACE,
            refresh_token_ttl: self.refresh_token_ttl,
            code_ttl: self.code_ttl,
            refresh_lead: self.refresh_lead,
            registration: self.registration,
            allow_list,
            max_clients: self.max_clients,
            registrations_per_minute: self.registrations_per_minute,
            sign_ins_per_minute: self.sign_ins_per_minute,
            tokens_per_minute: self.tokens_per_minute,
            clients: self.clients.into_iter().map(StaticClient::into_record).collect(),
            allowed_users: self.allowed_users,
            allowed_orgs: self.allowed_orgs,
        }
    }
}

impl Settings {
    /// Whether any client may register itself.
    pub(crate) fn registers(&self) -> bool {
        match self.registration {
            Registration::Open => true,
            Registration::AllowList => self.allow_list.has_redirect_hosts(),
            Registration::Closed => false,
        }
    }

    /// Whether any client may be described by a document.
    pub(crate) fn reads_documents(&self) -> bool {
        match self.registration {
            Registration::Open => true,
            Registration::AllowList => self.allow_list.has_client_domains(),
            Registration::Closed => false,
        }
    }
}

impl StaticClient {
    fn into_record(self) -> ClientRecord {
        let auth = self.client_secret.map_or(ClientAuth::None, |secret| {
            ClientAuth::Basic(secret::hash(secret.expose_secret()))
        });
        ClientRecord {
            client_id: self.client_id,
            name: self.name,
            redirect_uris: self.redirect_uris,
            auth,
            created_at: std::time::UNIX_EPOCH,
            domain: None,
            registration_token: None,
            fingerprint: None,
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

fn parse_public_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    match url.scheme() {
        "https" => {}
        "http" if redirect_uri::is_loopback(&url) => {}
        "http" => return Err("must be https: http is for loopback addresses only".to_owned()),
        _ => return Err("must be an https URL".to_owned()),
    }
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err("must not have a query, a fragment or user information".to_owned());
    }
    // Clients compare the issuer byte by byte, some after normalising what they were given (RFC 8414 section 3.3): only
    // the normal form is the same for all of them.
    let normal = url.as_str().trim_end_matches('/');
    if text != normal {
        return Err(format!("must be written as {normal}"));
    }
    Ok(url)
}

fn client_faults(clients: &[StaticClient]) -> Vec<ConfigError> {
    let mut faults = Vec::new();
    let mut fault = |text: String| {
        faults.push(ConfigError {
            key: "oauth.clients",
            fault: text,
        });
    };
    for (index, client) in clients.iter().enumerate() {
        let id = &client.client_id.0;
        if id.is_empty() || id.len() > 256 || !id.bytes().all(|b| b.is_ascii_graphic()) {
            fault(format!(
                "client {} needs a client_id of 1 to 256 printable ASCII characters",
                index + 1
            ));
        }
        if clients[..index].iter().any(|before| before.client_id.0 == *id) {
            fault(format!("two clients have the client_id {id:?}"));
        }
        if client.redirect_uris.is_empty() {
            fault(format!("client {id:?} has no redirect_uris"));
        }
        if client
            .client_secret
            .as_ref()
            .is_some_and(|secret| secret.expose_secret().is_empty())
        {
            fault(format!("client {id:?} has an empty client_secret"));
        }
        for uri in &client.redirect_uris {
            if let Err(what) = redirect_uri::check(uri) {
                fault(format!("client {id:?}: {uri:?}: {what}"));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_prefix_is_kept_in_all_that_derives_from_it() {
        let settings = Config::new("https://example.org/tools/broker").into_settings().unwrap();
        assert_eq!(settings.issuer, "https://example.org/tools/broker");
        assert_eq!(settings.origin, "https://example.org");
        assert_eq!(settings.prefix, "/tools/broker");
        assert_eq!(settings.resource, "https://example.org/tools/broker/mcp");
        assert!(settings.secure);
    }

    #[test]
    fn loopback_may_be_http() {
        for url in ["http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]:8080"] {
            let settings = Config::new(url).into_settings().unwrap();
            assert_eq!(settings.prefix, "");
            assert!(!settings.secure);
        }
    }

    #[test]
    fn only_the_normal_form_of_a_public_url_is_taken() {
        for url in [
            "https://example.org/",
            "https://EXAMPLE.org",
            "https://example.org:443",
            "https://example.org/a/../b",
            "https://example.org/a/",
            "http://example.org",
            "ftp://example.org",
            "https://user@example.org",
            "https://example.org?x",
            "https://example.org#x",
            "example.org",
            "",
        ] {
            let errors = Config::new(url).validate().unwrap_err();
            assert_eq!(errors.0[0].key, "server.public_url", "{url}");
        }
    }

    #[test]
    fn all_faults_come_at_once() {
        let mut config = Config::new("nonsense");
        config.code_ttl = Duration::from_secs(3600);
        config.access_token_ttl = Duration::ZERO;
        config.clients = vec![StaticClient {
            client_id: ClientId("x".to_owned()),
            client_secret: Some(String::new().into()),
            name: None,
            redirect_uris: vec!["javascript:alert(1)".to_owned()],
        }];
        let errors = config.validate().unwrap_err();
        let keys: Vec<_> = errors.0.iter().map(|error| error.key).collect();
        assert_eq!(
            keys,
            [
                "server.public_url",
                "oauth.access_token_ttl",
                "oauth.code_ttl",
                "oauth.clients",
                "oauth.clients"
            ]
        );
    }
}
