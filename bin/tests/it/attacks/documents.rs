//! Requests that an attacker makes the broker send, by the URL of a document or by what the document says (RFC 7591
//! section 5; client ID metadata document draft, sections 6.5 and 6.6; MCP security best practices, "SSRF").
//!
//! The broker is in a test network: `client.example` and the names below it that are given an address are hosts of this
//! machine, and the names of [`INWARD`] resolve as an attacker's name server would have them. What must not be asked is a
//! host too, which listens at the port of the URL and counts connections.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{StatusCode, header};
use serde_json::{Value, json};
use testkit::{
    Host,
    host::{End, Page, network},
};
use tokio::time::timeout;

use super::{Attacker, REDIRECT, Reply, path_of, prepared, with_parameter};
use crate::harness::Harness;

/// Names of the attacker and what they resolve to. A good address beside a bad one excuses nothing.
const INWARD: [(&str, &str); 16] = [
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

/// The hosts of clients. From each of them so many documents are read at a time, and no more.
const HOSTS: [&str; 3] = ["client.example", "more.client.example", "keys.client.example"];

/// How long a word in the log may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A broker, a host that it may read from, and one that it must not ask.
struct Network {
    harness: Harness,
    host: Host,
    inside: Host,
    /// A request to authorize, of a client that is known.
    template: url::Url,
}

impl Network {
    async fn new() -> Self {
        let (host, inside) = (Host::start().await.unwrap(), Host::start().await.unwrap());
        let names = HOSTS.map(|name| (name, &host));
        let harness = Harness::with_switches(vec![network(&names, &INWARD)], &[]).await;
        let template = prepared(&harness, "template", REDIRECT).await.authorize_url().unwrap();
        Self {
            harness,
            host,
            inside,
            template,
        }
    }

    /// Asks the broker to let a client in, and what it says. It never sends the browser anywhere.
    async fn authorize(&self, client_id: &str) -> Reply {
        let url = with_parameter(&self.template, "client_id", Some(client_id));
        let reply = Attacker::of(&self.harness).get(&path_of(&url), &[]).await;
        assert!(reply.headers.get("location").is_none(), "{client_id}");
        reply
    }

    /// A client of this name lets itself in with a signature that nobody made, and what the broker says.
    #[expect(
        clippy::disallowed_methods,
        reason = "the broker compares it with its own wall clock"
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
        Attacker::of(&self.harness).post_form("/oauth/token", &fields).await
    }

    /// Puts the document of a client there, and gives its identifier.
    fn document(&self, name: &str, path: &str, more: &Value) -> String {
        let id = format!("https://{name}{path}");
        self.host.json(path, &document(&id, more));
        id
    }

    async fn logged(&self, what: &str) {
        timeout(PATIENCE, self.harness.broker.log().contains(what))
            .await
            .unwrap_or_else(|_| panic!("the log says nothing of {what:?}"));
    }
}

fn document(id: &str, more: &Value) -> Value {
    let mut document = json!({
        "client_id": id,
        "client_name": "A described client",
        "redirect_uris": [REDIRECT],
        "token_endpoint_auth_method": "none",
    });
    for (name, value) in more.as_object().unwrap() {
        document[name] = value.clone();
    }
    document
}

#[tokio::test]
async fn a_client_id_whose_name_leads_inward_is_not_connected_to() {
    let network = Network::new().await;
    // A document is read where it may be.
    let client = network.document(HOSTS[0], "/client.json", &json!({}));
    let page = network.authorize(&client).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.body);
    assert!(page.body.contains("client.example"), "{}", page.body);
    assert_eq!(network.host.requests_to("/client.json"), 1);

    let port = network.inside.port();
    for (name, addresses) in INWARD {
        let client = format!("https://{name}:{port}/client.json");
        network.inside.json("/client.json", &document(&client, &json!({})));
        let page = network.authorize(&client).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{name} at {addresses}");
        assert!(!page.body.contains(addresses), "the page tells nothing of the network");
        network.logged(&format!("\"host\":\"{name}\"")).await;
    }
    let refusals = network.harness.broker.log().text();
    let refusals = refusals.matches("its host is not in the public network").count();
    assert_eq!(refusals, INWARD.len());
    assert_eq!(network.inside.connections(), 0);
}

#[tokio::test]
async fn a_redirect_is_not_followed_wherever_it_leads() {
    let network = Network::new().await;
    let port = network.inside.port();
    let inside = format!("https://loopback.client.example:{port}/secret");
    network.document(HOSTS[0], "/elsewhere.json", &json!({}));
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
    let ways = locations
        .iter()
        .flat_map(|location| [301, 302, 303, 307, 308].map(|status| (status, *location)));
    for (number, (status, location)) in ways.enumerate() {
        let path = format!("/{number}.json");
        let id = format!("https://{}{path}", HOSTS[number % HOSTS.len()]);
        // Whoever takes a redirect for an answer finds a document in it.
        let body = document(&id, &json!({})).to_string();
        let page = Page::redirect(StatusCode::from_u16(status).unwrap(), location, body);
        network.host.put(&path, page);
        let page = network.authorize(&id).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{status} to {location}");
        assert_eq!(network.host.requests_to(&path), 1, "{status} to {location}");
    }
    assert_eq!(network.host.requests_to("/elsewhere.json"), 0);
    assert_eq!(network.inside.connections(), 0);
    network.logged("it is a redirect").await;
}

/// How a page differs from the document of a client.
type Change = fn(&mut Page);

/// Pages that describe no client, by their path.
const NONE: [(&str, Change); 12] = [
    ("/long.json", |page| fill(page, LONGEST + 1)),
    ("/endless.json", |page| page.end = End::Endless),
    ("/html.json", |page| say(page, "text/html")),
    ("/text.json", |page| say(page, "text/plain")),
    ("/untyped.json", |page| page.headers.clear()),
    ("/broken.json", |page| page.body.truncate(20)),
    ("/list.json", |page| page.body = format!("[{}]", page.body)),
    ("/created.json", |page| page.status = StatusCode::CREATED),
    ("/missing.json", |page| page.status = StatusCode::NOT_FOUND),
    // Another's document, under a URL of the attacker: a name to borrow (the draft, section 4.1).
    ("/borrowed.json", |page| replace(page, "/borrowed.json", FITS)),
    ("/secret.json", |page| replace(page, "{", r#"{"client_secret":"x","#)),
    ("/symmetric.json", |page| {
        replace(page, r#""none""#, r#""client_secret_post""#);
    }),
];
/// Where a document is that is as long as one may be.
const FITS: &str = "/fits.json";
/// The longest document, in bytes (the draft, section 6.6).
const LONGEST: usize = 5 * 1024;

fn fill(page: &mut Page, length: usize) {
    page.body += &" ".repeat(length - page.body.len());
}

fn say(page: &mut Page, content_type: &str) {
    page.headers = vec![(header::CONTENT_TYPE, content_type.to_owned())];
}

fn replace(page: &mut Page, from: &str, to: &str) {
    page.body = page.body.replacen(from, to, 1);
}

#[tokio::test]
async fn a_document_that_is_too_long_or_none_is_not_accepted_and_read_no_further() {
    let network = Network::new().await;
    let fits: Change = |page| fill(page, LONGEST);
    let all = NONE
        .into_iter()
        .map(|(path, change)| (path, change, StatusCode::BAD_REQUEST));
    for (path, change, status) in all.chain([(FITS, fits, StatusCode::OK)]) {
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
async fn a_document_that_never_ends_is_given_up_and_holds_up_nobody() {
    let network = Network::new().await;
    let slow = "https://client.example/slow.json";
    let page = Page {
        end: End::Silence,
        ..Page::json(document(slow, &json!({})).to_string())
    };
    network.host.put("/slow.json", page);
    let good = network.document(HOSTS[0], "/good.json", &json!({}));
    let (given_up, meanwhile) = tokio::join!(network.authorize(slow), network.authorize(&good));
    assert_eq!(meanwhile.status, StatusCode::OK);
    // It may be quicker another time.
    assert_eq!(given_up.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(given_up.header("retry-after"), "60");
    network.logged("no answer in time").await;
}

#[tokio::test]
async fn a_document_that_points_inward_makes_the_broker_ask_nobody_there() {
    let network = Network::new().await;
    let port = network.inside.port();
    let inward: Vec<String> = INWARD
        .iter()
        .map(|(name, _)| format!("https://{name}:{port}/jwks.json"))
        .chain([
            format!("https://127.0.0.1:{port}/jwks.json"),
            format!("https://[::ffff:127.0.0.1]:{port}/jwks.json"),
            format!("http://loopback.client.example:{port}/jwks.json"),
        ])
        .collect();
    network.inside.json("/jwks.json", &json!({ "keys": [] }));
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
    // Keys are read where they may be.
    network.host.json("/jwks.json", &json!({ "keys": [] }));
    let client = network.document(
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
    // Not by way of a redirect either.
    let redirect = Page::redirect(StatusCode::FOUND, &inward[0], r#"{"keys":[]}"#);
    network.host.put("/moved.json", redirect);
    let inward = inward
        .into_iter()
        .chain(["https://keys.client.example/moved.json".to_owned()]);

    for (number, uri) in inward.enumerate() {
        let client = network.document(HOSTS[number % 2], &format!("/{number}.json"), &with_keys(&uri));
        network.authorize(&client).await;
        let reply = network.token(&client).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{uri}: {}", reply.body);
        assert_eq!(reply.error(), "invalid_client", "{uri}");
    }
    assert_eq!(network.host.requests_to("/moved.json"), 1, "the way inward was shown");
    assert_eq!(network.inside.connections(), 0);
}
