//! Server-side request forgery through the URL of a client ID metadata document or through its
//! content (RFC 7591 section 5; client ID metadata document draft, sections 6.5 and 6.6; MCP
//! security best practices, "SSRF").
//!
//! The broker runs in a test network: the names in [`HOSTS`] are hosts of this machine, and the
//! names in [`PRIVATE_NAMES`] resolve as if an attacker controlled their name server. A second host
//! stands for the private network: it listens at the port of the URLs and counts connections.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{StatusCode, header};
use serde_json::{Value, json};
use testkit::{
    Host,
    host::{End, Page, network},
};
use tokio::time::timeout;

use super::{Attacker, REDIRECT, Reply, path_and_query, registered_client, with_parameter};
use crate::harness::{Harness, WAIT_LIMIT};

/// Names of the attacker, and their addresses. A name with a public and a private address is
/// rejected too.
const PRIVATE_NAMES: [(&str, &str); 16] = [
    ("loopback.client.example", "127.0.0.1"),
    ("loopback-net.client.example", "127.8.9.10"),
    ("this-host.client.example", "0.0.0.0"),
    ("ten.client.example", "10.0.0.8"),
    ("twelve.client.example", "172.16.0.8"),
    ("home.client.example", "192.168.1.1"),
    ("cloud.client.example", "169.254.169.254"),
    ("carrier.client.example", "100.64.0.1"),
    ("six.client.example", "::1"),
    ("mapped.client.example", "::ffff:127.0.0.1"),
    ("translated.client.example", "64:ff9b::7f00:1"),
    ("six-to-four.client.example", "2002:7f00:1::"),
    ("unique-local.client.example", "fd12:3456::1"),
    ("link-local.client.example", "fe80::1"),
    ("both.client.example", "93.184.216.34,127.0.0.1"),
    ("both-of-six.client.example", "2606:4700::1111,::1"),
];

/// The hosts of clients. There are several, because the broker limits the rate of fetches from one
/// host.
const HOSTS: [&str; 3] = ["client.example", "more.client.example", "keys.client.example"];

/// A broker, a host that it may fetch from, and one that it must not connect to.
struct Network {
    harness: Harness,
    host: Host,
    private: Host,
    /// An authorization request of a registered client.
    template: url::Url,
}

impl Network {
    async fn new() -> Self {
        let (host, private) = (Host::start().await.unwrap(), Host::start().await.unwrap());
        let names = HOSTS.map(|name| (name, &host));
        let harness = Harness::with_environment(vec![network(&names, &PRIVATE_NAMES)], &[]).await;
        let template = registered_client(&harness, "template", REDIRECT)
            .await
            .authorize_url()
            .unwrap();
        Self {
            harness,
            host,
            private,
            template,
        }
    }

    /// Sends an authorization request of this client. The response must not be a redirect.
    async fn authorize(&self, client_id: &str) -> Reply {
        let url = with_parameter(&self.template, "client_id", Some(client_id));
        let reply = Attacker::new(&self.harness).get(&path_and_query(&url), &[]).await;
        assert!(!reply.is_redirect(), "{client_id}");
        reply
    }

    /// Sends a token request of this client, with a client assertion whose signature is invalid.
    #[expect(
        clippy::disallowed_methods,
        reason = "the broker compares the times in the assertion with its wall clock"
    )]
    async fn token(&self, client_id: &str) -> Reply {
        let now = std::time::SystemTime::now();
        let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let claims = json!({
            "iss": client_id, "sub": client_id, "aud": self.harness.broker.url(), "jti": client_id, "iat": now, "exp": now + 60,
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let assertion = format!(
            "{}.{}.{}",
            part(&json!({ "alg": "ES256", "typ": "JWT" })),
            part(&claims),
            URL_SAFE_NO_PAD.encode([1; 64])
        );
        let fields = [
            ("grant_type", "authorization_code"),
            ("code", "fmb_ac_x"),
            ("code_verifier", "x"),
            ("redirect_uri", REDIRECT),
            ("client_assertion", &assertion),
            (
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            ),
        ];
        Attacker::new(&self.harness).post_form("/oauth/token", &fields).await
    }

    /// Publishes the document of a client and returns the client id.
    fn publish(&self, name: &str, path: &str, more: &Value) -> String {
        let id = format!("https://{name}{path}");
        self.host.json(path, &document(&id, more));
        id
    }

    async fn wait_for_log(&self, text: &str) {
        timeout(WAIT_LIMIT, self.harness.broker.log().contains(text))
            .await
            .unwrap_or_else(|_| panic!("{text:?} is not in the log"));
    }
}

fn document(id: &str, more: &Value) -> Value {
    let mut document = json!({
        "client_id": id,
        "client_name": "A client with a document",
        "redirect_uris": [REDIRECT],
        "token_endpoint_auth_method": "none",
    });
    for (name, value) in more.as_object().unwrap() {
        document[name] = value.clone();
    }
    document
}

#[tokio::test]
async fn client_id_with_a_private_address_is_not_fetched() {
    let network = Network::new().await;
    // A document on a public host is fetched.
    let client = network.publish(HOSTS[0], "/client.json", &json!({}));
    let page = network.authorize(&client).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.body);
    assert!(page.body.contains("client.example"), "{}", page.body);
    assert_eq!(network.host.requests_to("/client.json"), 1);

    let port = network.private.port();
    for (name, addresses) in PRIVATE_NAMES {
        let client = format!("https://{name}:{port}/client.json");
        network.private.json("/client.json", &document(&client, &json!({})));
        let page = network.authorize(&client).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{name} at {addresses}");
        assert!(!page.body.contains(addresses), "the page does not show the address");
        network.wait_for_log(&format!("\"host\":\"{name}\"")).await;
    }
    let refusals = network.harness.broker.log().text();
    let refusals = refusals.matches("its host is not in the public network").count();
    assert_eq!(refusals, PRIVATE_NAMES.len());
    assert_eq!(network.private.connections(), 0);
}

#[tokio::test]
async fn redirect_of_a_document_is_not_followed() {
    let network = Network::new().await;
    let port = network.private.port();
    let inside = format!("https://loopback.client.example:{port}/secret");
    network.publish(HOSTS[0], "/elsewhere.json", &json!({}));
    let locations = [
        inside.as_str(),
        &format!("http://127.0.0.1:{port}/secret"),
        &format!("https://127.0.0.1:{port}/secret"),
        &format!("//[::1]:{port}/secret"),
        "http://169.254.169.254/latest/meta-data/",
        "file:///etc/passwd",
        "https://client.example/elsewhere.json",
        "/elsewhere.json",
    ];
    let redirects = locations
        .iter()
        .flat_map(|location| [301, 302, 303, 307, 308].map(|status| (status, *location)));
    for (number, (status, location)) in redirects.enumerate() {
        let path = format!("/{number}.json");
        let id = format!("https://{}{path}", HOSTS[number % HOSTS.len()]);
        // The body of the redirect is a valid document: the broker must not accept it.
        let body = document(&id, &json!({})).to_string();
        let page = Page::redirect(StatusCode::from_u16(status).unwrap(), location, body);
        network.host.put(&path, page);
        let page = network.authorize(&id).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{status} to {location}");
        assert_eq!(network.host.requests_to(&path), 1, "{status} to {location}");
    }
    assert_eq!(network.host.requests_to("/elsewhere.json"), 0);
    assert_eq!(network.private.connections(), 0);
    network.wait_for_log("it is a redirect").await;
}

/// Changes a valid document.
type Change = fn(&mut Page);

/// Invalid documents, by their path.
const INVALID_DOCUMENTS: [(&str, Change); 12] = [
    ("/long.json", |page| pad(page, MAX_LENGTH + 1)),
    ("/endless.json", |page| page.end = End::Endless),
    ("/html.json", |page| set_content_type(page, "text/html")),
    ("/text.json", |page| set_content_type(page, "text/plain")),
    ("/untyped.json", |page| page.headers.clear()),
    ("/broken.json", |page| page.body.truncate(20)),
    ("/list.json", |page| page.body = format!("[{}]", page.body)),
    ("/created.json", |page| page.status = StatusCode::CREATED),
    ("/missing.json", |page| page.status = StatusCode::NOT_FOUND),
    // A document whose `client_id` is not its URL (the draft, section 4.1).
    ("/foreign.json", |page| replace(page, "/foreign.json", LONGEST_DOCUMENT)),
    ("/secret.json", |page| replace(page, "{", r#"{"client_secret":"x","#)),
    ("/symmetric.json", |page| {
        replace(page, r#""none""#, r#""client_secret_post""#);
    }),
];
/// The path of a document of the maximum length.
const LONGEST_DOCUMENT: &str = "/longest.json";
/// The maximum length of a document, in bytes (the draft, section 6.6).
const MAX_LENGTH: usize = 5 * 1024;

fn pad(page: &mut Page, length: usize) {
    page.body += &" ".repeat(length - page.body.len());
}

fn set_content_type(page: &mut Page, content_type: &str) {
    page.headers = vec![(header::CONTENT_TYPE, content_type.to_owned())];
}

fn replace(page: &mut Page, from: &str, to: &str) {
    page.body = page.body.replacen(from, to, 1);
}

#[tokio::test]
async fn too_long_or_invalid_document_is_rejected() {
    let network = Network::new().await;
    let longest: Change = |page| pad(page, MAX_LENGTH);
    let invalid = INVALID_DOCUMENTS
        .into_iter()
        .map(|(path, change)| (path, change, StatusCode::BAD_REQUEST));
    for (path, change, status) in invalid.chain([(LONGEST_DOCUMENT, longest, StatusCode::OK)]) {
        let id = format!("https://client.example{path}");
        let mut page = Page::json(document(&id, &json!({})).to_string());
        change(&mut page);
        network.host.put(path, page);
        let page = network.authorize(&id).await;
        assert_eq!(page.status, status, "{id}: {}", page.body);
        assert_eq!(network.host.requests_to(path), 1, "{id}");
    }
}

#[tokio::test]
async fn document_that_never_ends_times_out_and_delays_no_other_request() {
    let network = Network::new().await;
    let slow = "https://client.example/slow.json";
    let page = Page {
        end: End::Silence,
        ..Page::json(document(slow, &json!({})).to_string())
    };
    network.host.put("/slow.json", page);
    let good = network.publish(HOSTS[0], "/good.json", &json!({}));
    let (timed_out, meanwhile) = tokio::join!(network.authorize(slow), network.authorize(&good));
    assert_eq!(meanwhile.status, StatusCode::OK);
    // The client may retry: the host may respond in time then.
    assert_eq!(timed_out.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(timed_out.header("retry-after"), "60");
    network.wait_for_log("no response in time").await;
}

#[tokio::test]
async fn urls_in_a_document_with_private_addresses_are_not_fetched() {
    let network = Network::new().await;
    let port = network.private.port();
    let private: Vec<String> = PRIVATE_NAMES
        .iter()
        .map(|(name, _)| format!("https://{name}:{port}/jwks.json"))
        .chain([
            format!("https://127.0.0.1:{port}/jwks.json"),
            format!("https://[::ffff:127.0.0.1]:{port}/jwks.json"),
            format!("http://loopback.client.example:{port}/jwks.json"),
        ])
        .collect();
    network.private.json("/jwks.json", &json!({ "keys": [] }));
    let with_keys = |uri: &str| {
        json!({
            "token_endpoint_auth_method": "private_key_jwt",
            "jwks_uri": uri,
            "logo_uri": format!("https://loopback.client.example:{port}/logo.png"),
            "client_uri": format!("https://loopback.client.example:{port}/"),
            "tos_uri": format!("https://loopback.client.example:{port}/tos"),
            "policy_uri": format!("https://loopback.client.example:{port}/policy"),
        })
    };
    // Keys on a public host are fetched.
    network.host.json("/jwks.json", &json!({ "keys": [] }));
    let client = network.publish(
        HOSTS[0],
        "/client.json",
        &with_keys("https://keys.client.example/jwks.json"),
    );
    assert_eq!(network.authorize(&client).await.status, StatusCode::OK);
    let reply = network.token(&client).await;
    assert_eq!(
        (reply.status, reply.error()),
        (StatusCode::UNAUTHORIZED, "invalid_client".to_owned())
    );
    assert_eq!(network.host.requests_to("/jwks.json"), 1);
    // A redirect to a private address is not followed either.
    let redirect = Page::redirect(StatusCode::FOUND, &private[0], r#"{"keys":[]}"#);
    network.host.put("/moved.json", redirect);
    let uris = private
        .into_iter()
        .chain(["https://keys.client.example/moved.json".to_owned()]);

    for (number, uri) in uris.enumerate() {
        let client = network.publish(HOSTS[number % 2], &format!("/{number}.json"), &with_keys(&uri));
        network.authorize(&client).await;
        let reply = network.token(&client).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{uri}: {}", reply.body);
        assert_eq!(reply.error(), "invalid_client", "{uri}");
    }
    assert_eq!(network.host.requests_to("/moved.json"), 1, "the redirect was fetched");
    assert_eq!(network.private.connections(), 0);
}
