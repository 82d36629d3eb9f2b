//! From an MCP URL to a registered client: the 401, two metadata documents, the registration.
//!
//! It is as strict as the strictest client in the field: what one of them refuses, it refuses.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use url::Url;

use super::{Answer, Client, ClientError, mcp, sign_in::Server, steps::Outcome};

impl Client {
    /// Sends `initialize` without a token and expects 401 with a `resource_metadata` (RFC 9728 section 5.1).
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] for another status, [`ClientError::Unexpected`] for a challenge without it.
    pub async fn probe(&self) -> Result<(), ClientError> {
        let probe = async {
            let answer = self
                .raw(
                    Method::POST,
                    mcp::basic_headers(),
                    Client::initialize_message(&json!(0)),
                )
                .await?;
            let answer = answer.expect_status(StatusCode::UNAUTHORIZED)?;
            let challenge = answer.header("www-authenticate").unwrap_or_default();
            let metadata = parameter(challenge, "resource_metadata").and_then(|url| Url::parse(url).ok());
            let Some(metadata) = metadata else {
                return Err(ClientError::Unexpected(format!(
                    "no resource_metadata in the challenge {challenge:?}"
                )));
            };
            let detail = format!("metadata at {metadata}");
            self.sign_in.known().resource_metadata = Some(metadata);
            Ok(Outcome::new((), answer.status, detail))
        };
        self.steps.take("probe", probe).await
    }

    /// Reads the protected-resource metadata (RFC 9728) and then the authorization-server metadata (RFC 8414).
    ///
    /// # Errors
    ///
    /// [`ClientError::TooEarly`] before [`probe`](Self::probe); [`ClientError::Refused`]; [`ClientError::Unexpected`] for
    /// metadata that clients in the field refuse.
    pub async fn discover(&self) -> Result<(), ClientError> {
        let discover = async {
            let at = self.sign_in.known().resource_metadata.clone();
            let at = at.ok_or(ClientError::TooEarly("probe"))?;
            let resource = self.fetch(&at).await?.json();
            self.check_resource(&resource)?;
            let issuer = resource["authorization_servers"][0].as_str().unwrap_or_default();
            let at = metadata_of(issuer)?;
            let answer = self.fetch(&at).await?;
            let server = Server::from_metadata(&resource, issuer, &answer.json())?;
            let detail = format!("issuer {}", server.issuer);
            self.sign_in.known().server = Some(server);
            Ok(Outcome::new((), answer.status, detail))
        };
        self.steps.take("discover", discover).await
    }

    /// Registers as a public client (RFC 7591).
    ///
    /// # Errors
    ///
    /// [`ClientError::TooEarly`] before [`discover`](Self::discover); [`ClientError::Refused`] unless the answer is 201;
    /// [`ClientError::Unexpected`] for an answer with nulls or without an id.
    pub async fn register(&self) -> Result<(), ClientError> {
        let register = async {
            let at = self.sign_in.server()?.registration_endpoint;
            let at = at.ok_or_else(|| ClientError::Unexpected("no registration_endpoint".to_owned()))?;
            let wanted = json!({
                "client_name": "testkit client",
                "redirect_uris": [self.redirect_uri],
                "grant_types": ["authorization_code", "refresh_token"],
                "response_types": ["code"],
                "token_endpoint_auth_method": "none",
                "application_type": "native",
            });
            let answer = self.post_to(&at, "application/json", wanted.to_string()).await?;
            let answer = answer.expect_status(StatusCode::CREATED)?;
            let body = answer.json();
            if body
                .as_object()
                .is_none_or(|fields| fields.values().any(Value::is_null))
            {
                return Err(ClientError::Unexpected(
                    "a registration with nulls or without fields".to_owned(),
                ));
            }
            let Some(id) = body["client_id"].as_str().filter(|id| !id.is_empty()) else {
                return Err(ClientError::Unexpected("a registration without client_id".to_owned()));
            };
            self.set_client(id, body["client_secret"].as_str());
            Ok(Outcome::new((), answer.status, format!("client {id}")))
        };
        self.steps.take("register", register).await
    }

    /// The resource must be this server, or a path above it on the same origin (RFC 9728 section 3.3).
    fn check_resource(&self, metadata: &Value) -> Result<(), ClientError> {
        let named = metadata["resource"]
            .as_str()
            .and_then(|resource| Url::parse(resource).ok());
        let fits = |named: &Url| {
            let path = named.path().trim_end_matches('/');
            let rest = self.mcp_url.path().strip_prefix(path);
            named.origin() == self.mcp_url.origin() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if named.as_ref().is_some_and(fits) {
            Ok(())
        } else {
            Err(ClientError::Unexpected(format!(
                "metadata of another resource: {}",
                metadata["resource"]
            )))
        }
    }

    async fn fetch(&self, url: &Url) -> Result<Answer, ClientError> {
        let answer = self.send(Method::GET, url, HeaderMap::new(), Bytes::new()).await?;
        answer.expect_status(StatusCode::OK)
    }
}

/// The well-known address of an issuer: the well-known part goes between host and path (RFC 8414 section 3.1).
fn metadata_of(issuer: &str) -> Result<Url, ClientError> {
    let mut url = Url::parse(issuer)
        .map_err(|_| ClientError::Unexpected(format!("authorization_servers has {issuer:?} first")))?;
    let path = format!(
        "/.well-known/oauth-authorization-server{}",
        url.path().trim_end_matches('/')
    );
    url.set_path(&path);
    Ok(url)
}

/// A parameter of a challenge, quoted or not.
fn parameter<'a>(challenge: &'a str, name: &str) -> Option<&'a str> {
    challenge.split([' ', ',']).find_map(|part| {
        let value = part.strip_prefix(name)?.strip_prefix('=')?;
        Some(value.trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::{metadata_of, parameter};

    #[test]
    fn the_well_known_part_goes_before_the_issuers_path() {
        let at = |issuer: &str| metadata_of(issuer).unwrap().to_string();
        assert_eq!(at("http://h:1"), "http://h:1/.well-known/oauth-authorization-server");
        assert_eq!(
            at("http://h:1/a/b"),
            "http://h:1/.well-known/oauth-authorization-server/a/b"
        );
        assert!(metadata_of("").is_err());
    }

    #[test]
    fn a_challenge_is_read_by_parameter() {
        let challenge = r#"Bearer error="invalid_token", resource_metadata="http://h/x?y=z",scope=mcp"#;
        assert_eq!(parameter(challenge, "resource_metadata"), Some("http://h/x?y=z"));
        assert_eq!(parameter(challenge, "scope"), Some("mcp"));
        assert_eq!(parameter(challenge, "realm"), None);
    }
}
