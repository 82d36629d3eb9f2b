//! From an MCP URL to a registered client: the 401, two metadata documents, the registration.
//!
//! It is as strict as the strictest client in use.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use url::Url;

use super::{Answer, Client, ClientError, mcp, sign_in::AuthorizationServer, steps::Outcome};

impl Client {
    /// Sends `initialize` without a token and expects 401 with a `resource_metadata` (RFC 9728
    /// section 5.1).
    pub async fn probe(&self) -> Result<(), ClientError> {
        let probe = async {
            let initialize = Client::initialize_message(&json!(0));
            let answer = self.raw(Method::POST, mcp::basic_headers(), initialize).await?;
            let answer = answer.expect_status(StatusCode::UNAUTHORIZED)?;
            let challenge = answer.header("www-authenticate").unwrap_or_default();
            let metadata = parameter(challenge, "resource_metadata").and_then(|url| Url::parse(url).ok());
            let Some(metadata) = metadata else {
                let what = format!("no resource_metadata in the challenge {challenge:?}");
                return Err(ClientError::Unexpected(what));
            };
            let detail = format!("metadata at {metadata}");
            self.sign_in.state().resource_metadata = Some(metadata);
            Ok(Outcome::new((), answer.status, detail))
        };
        self.steps.record("probe", probe).await
    }

    /// Reads the protected-resource metadata (RFC 9728) and then the authorization-server metadata
    /// (RFC 8414).
    pub async fn discover(&self) -> Result<(), ClientError> {
        let discover = async {
            let at = self.sign_in.state().resource_metadata.clone();
            let at = at.ok_or(ClientError::TooEarly("probe"))?;
            let resource = self.fetch(&at).await?.json();
            self.check_resource(&resource)?;
            let issuer = resource["authorization_servers"][0].as_str().unwrap_or_default();
            let answer = self.fetch(&metadata_url(issuer)?).await?;
            let server = AuthorizationServer::from_metadata(&resource, issuer, &answer.json())?;
            let detail = format!("issuer {}", server.issuer);
            self.sign_in.state().server = Some(server);
            Ok(Outcome::new((), answer.status, detail))
        };
        self.steps.record("discover", discover).await
    }

    /// Registers as a public client (RFC 7591).
    pub async fn register(&self) -> Result<(), ClientError> {
        let register = async {
            let at = self.sign_in.server()?.registration_endpoint;
            let at = at.ok_or_else(|| ClientError::unexpected("no registration_endpoint"))?;
            let metadata = json!({
                "client_name": "testkit client",
                "redirect_uris": [self.redirect_uri],
                "grant_types": ["authorization_code", "refresh_token"],
                "response_types": ["code"],
                "token_endpoint_auth_method": "none",
                "application_type": "native",
            });
            let answer = self.post_to(&at, "application/json", metadata.to_string()).await?;
            let answer = answer.expect_status(StatusCode::CREATED)?;
            let body = answer.json();
            let fields = body.as_object();
            if fields.is_none_or(|fields| fields.values().any(Value::is_null)) {
                return Err(ClientError::unexpected("a registration with nulls or without fields"));
            }
            let Some(id) = body["client_id"].as_str().filter(|id| !id.is_empty()) else {
                return Err(ClientError::unexpected("a registration without client_id"));
            };
            self.set_client(id, body["client_secret"].as_str());
            Ok(Outcome::new((), answer.status, format!("client {id}")))
        };
        self.steps.record("register", register).await
    }

    /// The resource must be this server, or a path above it on the same origin (RFC 9728 section
    /// 3.3).
    fn check_resource(&self, metadata: &Value) -> Result<(), ClientError> {
        let resource = metadata["resource"].as_str();
        let resource = resource.and_then(|resource| Url::parse(resource).ok());
        let covers_server = |resource: Url| {
            let rest = self.mcp_url.path().strip_prefix(resource.path().trim_end_matches('/'));
            resource.origin() == self.mcp_url.origin()
                && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if resource.is_some_and(covers_server) {
            return Ok(());
        }
        let what = format!("metadata of another resource: {}", metadata["resource"]);
        Err(ClientError::Unexpected(what))
    }

    async fn fetch(&self, url: &Url) -> Result<Answer, ClientError> {
        let answer = self.send(Method::GET, url, HeaderMap::new(), Bytes::new()).await?;
        answer.expect_status(StatusCode::OK)
    }
}

/// The metadata URL of an issuer: the well-known part goes between host and path (RFC 8414 section
/// 3.1).
fn metadata_url(issuer: &str) -> Result<Url, ClientError> {
    let invalid = |_| ClientError::Unexpected(format!("authorization_servers has {issuer:?} first"));
    let mut url = Url::parse(issuer).map_err(invalid)?;
    let path = url.path().trim_end_matches('/');
    let path = format!("/.well-known/oauth-authorization-server{path}");
    url.set_path(&path);
    Ok(url)
}

fn parameter<'a>(challenge: &'a str, name: &str) -> Option<&'a str> {
    challenge.split([' ', ',']).find_map(|part| {
        let value = part.strip_prefix(name)?.strip_prefix('=')?;
        Some(value.trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::{metadata_url, parameter};

    #[test]
    fn well_known_part_goes_before_the_issuers_path() {
        let base = "http://h:1/.well-known/oauth-authorization-server";
        assert_eq!(metadata_url("http://h:1").unwrap().as_str(), base);
        assert_eq!(metadata_url("http://h:1/a/b").unwrap().as_str(), format!("{base}/a/b"));
        assert!(metadata_url("").is_err());
    }

    #[test]
    fn challenge_is_read_by_parameter() {
        let challenge = r#"Bearer error="invalid_token", resource_metadata="http://h/x?y=z",scope=mcp"#;
        assert_eq!(parameter(challenge, "resource_metadata"), Some("http://h/x?y=z"));
        assert_eq!(parameter(challenge, "scope"), Some("mcp"));
        assert_eq!(parameter(challenge, "realm"), None);
    }
}
