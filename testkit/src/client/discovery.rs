//! From an MCP URL to a registered client: the 401, two metadata documents, the registration.
//!
//! It is as strict as the strictest client in use.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use url::Url;

use super::{
    Answer, Client, ClientError, mcp,
    sign_in::{AuthorizationServer, Resource},
};

impl Client {
    /// Sends `initialize` without a token and expects 401 with a `resource_metadata` (RFC 9728
    /// section 5.1).
    pub async fn probe(&self) -> Result<(), ClientError> {
        let initialize = Client::initialize_message(&json!(0), mcp::PROTOCOL);
        let answer = self.raw(Method::POST, mcp::basic_headers(), initialize).await?;
        let answer = answer.expect_status(StatusCode::UNAUTHORIZED)?;
        let challenge = answer.header("www-authenticate").unwrap_or_default();
        let metadata = parameter(challenge, "resource_metadata").and_then(|url| Url::parse(url).ok());
        let Some(metadata) = metadata else {
            let what = format!("no resource_metadata in the challenge {challenge:?}");
            return Err(ClientError::Unexpected(what));
        };
        self.sign_in.state().resource_metadata = Some(metadata);
        Ok(())
    }

    /// Reads the protected-resource metadata (RFC 9728) and then the authorization-server metadata
    /// (RFC 8414).
    pub async fn discover(&self) -> Result<(), ClientError> {
        let at = self.sign_in.state().resource_metadata.clone();
        let at = at.ok_or(ClientError::TooEarly("probe"))?;
        let resource: Resource = self.fetch(&at).await?.parsed()?;
        let covers_server = Url::parse(&resource.resource).is_ok_and(|url| self.is_covered_by(&url));
        let Some(issuer) = resource.authorization_servers.first().filter(|_| covers_server) else {
            let what = format!("metadata of another resource: {:?}", resource.resource);
            return Err(ClientError::Unexpected(what));
        };
        let mut server: AuthorizationServer = self.fetch(&metadata_url(issuer)?).await?.parsed()?;
        // RFC 8414 section 3.3: identical, not merely equivalent.
        if server.issuer != *issuer {
            return Err(ClientError::unexpected("issuer is not the one that the resource names"));
        }
        if !server
            .code_challenge_methods_supported
            .iter()
            .any(|method| method == "S256")
        {
            return Err(ClientError::unexpected("authorization server metadata: no S256"));
        }
        server.resource = resource;
        self.sign_in.state().server = Some(server);
        Ok(())
    }

    /// Registers as a public client (RFC 7591).
    pub async fn register(&self) -> Result<(), ClientError> {
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
        let body = answer.expect_status(StatusCode::CREATED)?.json();
        let fields = body.as_object();
        if fields.is_none_or(|fields| fields.values().any(Value::is_null)) {
            return Err(ClientError::unexpected("a registration with nulls or without fields"));
        }
        let Some(id) = body["client_id"].as_str().filter(|id| !id.is_empty()) else {
            return Err(ClientError::unexpected("a registration without client_id"));
        };
        self.set_client(id, body["client_secret"].as_str());
        Ok(())
    }

    /// The resource must be this server, or a path above it on the same origin (RFC 9728 section
    /// 3.3).
    fn is_covered_by(&self, resource: &Url) -> bool {
        let rest = self.mcp_url.path().strip_prefix(resource.path().trim_end_matches('/'));
        resource.origin() == self.mcp_url.origin() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
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
