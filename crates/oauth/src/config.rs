//! The configuration of the authorization server, and its validation as a whole.
//!
//! An operator writes a [`Config`]. The crate works on `Settings`, which exist only for a valid
//! configuration. Validation reports all errors at once, each with its key.

mod settings;

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use crate::{
    allow_list::AllowList,
    block_list::BlockList,
    client_name::clean_name,
    ids::ClientId,
    records::{ClientAuth, ClientRecord},
    redirect_uri, secret,
};

pub(crate) use settings::Settings;

/// The configuration of an authorization server.
#[derive(Clone, Debug)]
pub struct Config {
    /// The URL of the broker and its issuer: `https://host[:port][/prefix]` without a slash at the
    /// end, `http` for loopback only. Everything that is published derives from it.
    pub public_url: String,
    /// The lifetime of an access token, as the client sees it. The broker accepts the token for
    /// another minute.
    pub access_token_ttl: Duration,
    /// The time for which an access token is accepted beyond its lifetime. Clients begin a whole
    /// new sign-in on a 401 that comes while they still think the token good.
    pub access_token_grace: Duration,
    /// The lifetime of a refresh token, counted from its issue.
    pub refresh_token_ttl: Duration,
    /// The time from the issue of a refresh token on for which its predecessor is good, a day at
    /// most. `None`: until the token is used.
    pub refresh_grace: Option<Duration>,
    /// The lifetime of an authorization code.
    pub code_ttl: Duration,
    /// An account is refreshed once its upstream token has less than this left, or less than half
    /// of a short lifetime.
    pub refresh_lead: Duration,
    /// The clients that may register themselves or describe themselves by a document.
    pub registration: Registration,
    /// `true`: a client may be described by a document at the URL that is its identifier, as
    /// `registration` permits. `false`: no client may, apart from those of the configuration.
    pub cimd: bool,
    /// With [`Registration::AllowList`]: the hosts of redirect URIs that a client may register.
    /// `example.org`, `*.example.org`, `localhost` for loopback addresses, `cursor:` for a private
    /// scheme.
    pub allowed_redirect_hosts: Vec<String>,
    /// With [`Registration::AllowList`]: the hosts whose documents describe clients. `example.org`,
    /// `*.example.org`.
    pub allowed_client_domains: Vec<String>,
    /// Clients that are refused, whatever else permits them: a client identifier, a host of a
    /// metadata document or a redirect URI, or `*.example.org` for the hosts below one.
    pub blocked_clients: Vec<String>,
    /// The largest number of registered clients. At the limit, unused clients make room for new
    /// ones.
    pub max_clients: u32,
    /// New registrations per minute. The registration of a known client does not count.
    pub registrations_per_minute: u32,
    /// Sign-ins that may begin per minute; a fifth of them for one client.
    pub sign_ins_per_minute: u32,
    /// Token responses per minute; a fiftieth of them for one user.
    pub tokens_per_minute: u32,
    /// Clients that are known without registration.
    pub clients: Vec<StaticClient>,
    /// Logins that may sign in.
    pub allowed_users: Vec<String>,
    /// Organizations whose members may sign in. With both lists empty every user may; else one of
    /// the two suffices.
    pub allowed_orgs: Vec<String>,
}

/// The clients that may register themselves (RFC 7591), or describe themselves by a document at a
/// URL that is their identifier (client ID metadata document draft).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// Any client may.
    Open,
    /// Only clients on the allow-lists may.
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
    /// The name on the consent page.
    pub name: Option<String>,
    /// The redirect URIs.
    pub redirect_uris: Vec<String>,
}

/// All errors of a configuration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigErrors(pub Vec<ConfigError>);

/// One error of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct ConfigError {
    /// The key, with its table as in the broker's configuration file.
    pub key: &'static str,
    /// The error.
    pub message: String,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Config {
    /// The default configuration for a public URL.
    pub fn new(public_url: impl Into<String>) -> Self {
        Self {
            public_url: public_url.into(),
            access_token_ttl: Duration::from_secs(60 * 60),
            access_token_grace: Duration::from_secs(60),
            refresh_token_ttl: 30 * DAY,
            refresh_grace: None,
            code_ttl: Duration::from_secs(60),
            refresh_lead: Duration::from_secs(5 * 60),
            registration: Registration::Open,
            cimd: true,
            allowed_redirect_hosts: Vec::new(),
            allowed_client_domains: Vec::new(),
            blocked_clients: Vec::new(),
            max_clients: 10_000,
            registrations_per_minute: 60,
            sign_ins_per_minute: 3_000,
            tokens_per_minute: 12_000,
            clients: Vec::new(),
            allowed_users: Vec::new(),
            allowed_orgs: Vec::new(),
        }
    }

    /// Checks everything that needs no upstream.
    ///
    /// # Errors
    ///
    /// All errors at once.
    pub fn validate(&self) -> Result<(), ConfigErrors> {
        self.clone().into_settings().map(|_| ())
    }

    pub(crate) fn into_settings(self) -> Result<Settings, ConfigErrors> {
        let mut errors = Vec::new();
        let url = parse_public_url(&self.public_url)
            .map_err(|message| errors.push(ConfigError::new("server.public_url", message)))
            .ok();
        for (key, duration) in [
            ("oauth.access_token_ttl", self.access_token_ttl),
            ("oauth.refresh_token_ttl", self.refresh_token_ttl),
            ("oauth.code_ttl", self.code_ttl),
        ] {
            if duration < Duration::from_secs(1) || duration > 3650 * DAY {
                errors.push(ConfigError::new(key, "must be between one second and ten years"));
            }
        }
        if self.refresh_grace.is_some_and(|grace| grace > DAY) {
            errors.push(ConfigError::new("oauth.refresh_grace", "must be one day at most"));
        }
        if self.refresh_lead > DAY {
            errors.push(ConfigError::new("session.refresh_lead", "must be one day at most"));
        }
        if self.code_ttl > Duration::from_secs(600) {
            // RFC 6749 section 4.1.2.
            errors.push(ConfigError::new("oauth.code_ttl", "must be ten minutes at most"));
        }
        errors.extend(client_errors(&self.clients));
        let allow_list = AllowList::read(&self.allowed_redirect_hosts, &self.allowed_client_domains);
        for (is_redirect, entry) in allow_list.as_ref().err().into_iter().flatten() {
            let key = if *is_redirect {
                "oauth.allowed_redirect_hosts"
            } else {
                "oauth.allowed_client_domains"
            };
            errors.push(ConfigError::new(
                key,
                format!("{entry:?} is not a valid entry of this list"),
            ));
        }
        let block_list = BlockList::read(&self.blocked_clients);
        for entry in block_list.as_ref().err().into_iter().flatten() {
            let message = format!("{entry:?} is neither a client identifier, a host nor *.DOMAIN");
            errors.push(ConfigError::new("oauth.blocked_clients", message));
        }
        match (url, allow_list, block_list) {
            (Some(url), Ok(allow_list), Ok(block_list)) if errors.is_empty() => {
                Ok(Settings::new(self, &url, allow_list, block_list))
            }
            _ => Err(ConfigErrors(errors)),
        }
    }
}

impl StaticClient {
    fn to_record(&self) -> ClientRecord {
        let auth = self.client_secret.as_ref().map_or(ClientAuth::None, |secret| {
            ClientAuth::Basic(secret::hash(secret.expose_secret()))
        });
        ClientRecord {
            client_id: self.client_id.clone(),
            // A browser may send the name of the consent page back in another form than this one.
            name: self.name.as_deref().and_then(clean_name),
            redirect_uris: self.redirect_uris.clone(),
            auth,
            application_type: None,
            created_at: std::time::UNIX_EPOCH,
            domain: None,
            registration_token: None,
            fingerprint: None,
        }
    }
}

impl ConfigError {
    pub(crate) fn new(key: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { key, message }
    }
}

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
    // Clients compare the issuer byte by byte, some after normalizing their input (RFC 8414 section
    // 3.3): only the normal form is the same for all of them.
    let normal = url.as_str().trim_end_matches('/');
    if text != normal {
        return Err(format!("must be written as {normal}"));
    }
    Ok(url)
}

fn client_errors(clients: &[StaticClient]) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    let mut error = |text: String| errors.push(ConfigError::new("oauth.clients", text));
    for (index, client) in clients.iter().enumerate() {
        let id = &client.client_id.0;
        if id.is_empty() || id.len() > 256 || !id.bytes().all(|b| b.is_ascii_graphic()) {
            error(format!(
                "client {} needs a client_id of 1 to 256 printable ASCII characters",
                index + 1
            ));
        }
        if clients[..index].iter().any(|before| before.client_id.0 == *id) {
            error(format!("two clients have the client_id {id:?}"));
        }
        if client.redirect_uris.is_empty() {
            error(format!("client {id:?} has no redirect_uris"));
        }
        let secret = client.client_secret.as_ref();
        if secret.is_some_and(|secret| secret.expose_secret().is_empty()) {
            error(format!("client {id:?} has an empty client_secret"));
        }
        for uri in &client.redirect_uris {
            if let Err(reason) = redirect_uri::check(uri) {
                error(format!("client {id:?}: {uri:?}: {reason}"));
            }
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_derive_from_a_public_url_with_a_path() {
        let settings = Config::new("https://example.org/tools/broker").into_settings().unwrap();
        assert_eq!(settings.issuer(), "https://example.org/tools/broker");
        assert_eq!(settings.origin, "https://example.org");
        assert_eq!(settings.prefix, "/tools/broker");
        assert_eq!(settings.resource, "https://example.org/tools/broker/mcp");
        assert!(settings.secure);
    }

    #[test]
    fn http_is_accepted_for_loopback() {
        for url in ["http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]:8080"] {
            let settings = Config::new(url).into_settings().unwrap();
            assert_eq!(settings.prefix, "");
            assert!(!settings.secure);
        }
    }

    #[test]
    fn only_the_normal_form_of_a_public_url_is_accepted() {
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
    fn configured_redirect_uri_with_a_response_parameter_is_refused() {
        let mut config = Config::new("https://example.org");
        config.clients = vec![StaticClient {
            client_id: ClientId("x".to_owned()),
            client_secret: None,
            name: None,
            redirect_uris: vec!["https://client.example/?state=x".to_owned()],
        }];
        let errors = config.validate().unwrap_err();
        assert_eq!(errors.0[0].key, "oauth.clients");
        assert!(errors.0[0].message.contains("authorization response"), "{errors}");
    }

    #[test]
    fn all_errors_are_reported_at_once() {
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
