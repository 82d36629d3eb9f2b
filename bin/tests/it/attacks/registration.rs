//! Client metadata: redirect URIs, markup, URLs that must not be fetched, and floods of
//! registrations.

use std::collections::BTreeSet;

use http::StatusCode;
use serde_json::{Value, json};
use testkit::Browser;
use tokio::net::TcpListener;

use super::{Attacker, REDIRECT, path_and_query, public_client_metadata, registered_client, with_parameter};
use crate::harness::{Harness, login_of};

/// CVE-2025-4143, RFC 9700 section 2.1: the redirect URI of a request is one that was registered,
/// byte for byte.
#[tokio::test]
async fn redirect_uri_that_differs_from_the_registered_one_is_rejected() {
    let harness = Harness::new(&[]).await;
    let client = registered_client(&harness, "one", "https://client.example/callback?a=b").await;
    let good = client.authorize_url().unwrap();
    let attacker = Attacker::new(&harness);
    for redirect in [
        "https://client.example/callback",
        "https://client.example/callback?a=b&c=d",
        "https://client.example/callback?a=b#fragment",
        "https://client.example/callback/../evil?a=b",
        "https://client.example/callback/?a=b",
        "https://client.example/Callback?a=b",
        "https://CLIENT.example/callback?a=b",
        "https://client.example:443/callback?a=b",
        "https://client.example./callback?a=b",
        "https://client.example.evil.example/callback?a=b",
        "https://client.example@evil.example/callback?a=b",
        "https://evil.example/https://client.example/callback?a=b",
        "https://client.example%2eevil.example/callback?a=b",
        "https://client.example\\@evil.example/callback?a=b",
        "http://client.example/callback?a=b",
        "//client.example/callback?a=b",
        "https://client.example/callback?a=b\r\nX: y",
        " https://client.example/callback?a=b",
        "https://client.example/%63allback?a=b",
        "javascript:alert(1)",
    ] {
        for wrong in [
            with_parameter(&good, "redirect_uri", Some(redirect)),
            // An error that is detected later must not be sent there either.
            with_parameter(
                &with_parameter(&good, "redirect_uri", Some(redirect)),
                "response_type",
                Some("token"),
            ),
        ] {
            let reply = attacker.get(&path_and_query(&wrong), &[]).await;
            assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{redirect}");
            assert!(!reply.is_redirect(), "{redirect}");
            assert!(!reply.body.contains("evil.example"), "{redirect}");
        }
    }
    let mut twice = good.clone();
    twice
        .query_pairs_mut()
        .append_pair("redirect_uri", "https://evil.example/");
    let reply = attacker.get(&path_and_query(&twice), &[]).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert!(!reply.is_redirect());
    assert_eq!(attacker.get(&path_and_query(&good), &[]).await.status, StatusCode::OK);
}

/// RFC 8252 section 7.3: only the port of a loopback address may differ.
#[tokio::test]
async fn loopback_redirect_uri_may_differ_only_in_its_port() {
    let harness = Harness::new(&[]).await;
    let client = registered_client(&harness, "native", "http://127.0.0.1:1000/callback").await;
    let good = client.authorize_url().unwrap();
    let attacker = Attacker::new(&harness);
    for (redirect, status) in [
        ("http://127.0.0.1:2000/callback", 200),
        ("http://127.0.0.1/callback", 200),
        ("http://127.0.0.2:1000/callback", 400),
        ("http://localhost:1000/callback", 400),
        ("http://[::1]:1000/callback", 400),
        ("http://127.0.0.1:1000/other", 400),
        ("https://127.0.0.1:1000/callback", 400),
        ("http://127.0.0.1.evil.example:1000/callback", 400),
        ("http://127.0.0.1:1000@evil.example/callback", 400),
        ("http://0x7f.1:1000/callback", 400),
    ] {
        let reply = attacker
            .get(
                &path_and_query(&with_parameter(&good, "redirect_uri", Some(redirect))),
                &[],
            )
            .await;
        // A spelling that the URL parser turns into the registered address may pass: the target is
        // the same.
        if redirect.contains("0x7f") && reply.status == StatusCode::OK {
            continue;
        }
        assert_eq!(reply.status.as_u16(), status, "{redirect}");
        assert!(!reply.is_redirect());
    }
}

/// Registration rejects schemes that a browser would execute or read locally, and malformed URIs.
#[tokio::test]
async fn dangerous_redirect_uri_is_not_registered() {
    let harness = Harness::new(&[]).await;
    let attacker = Attacker::new(&harness);
    for redirect in [
        "javascript:alert(1)",
        "JAVASCRIPT:alert(1)",
        "java\tscript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "file:///etc/passwd",
        "vbscript:x",
        "feed:javascript:alert(1)",
        "ms-msdt:/id",
        "search-ms:query=x",
        "ssh://-oProxyCommand=x",
        "itms-services://?action=download-manifest",
        "https://client.example/?iss=https://evil.example",
        "blob:https://client.example/1",
        "http://client.example/callback",
        "https://user:password@client.example/",
        "https://client.example/#fragment",
        "https://client.example/\r\nSet-Cookie: a=b",
        "/relative",
        "",
    ] {
        let reply = attacker.register(&public_client_metadata("x", redirect)).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{redirect}: {}", reply.body);
        assert_eq!(reply.error(), "invalid_redirect_uri", "{redirect}");
    }
}

/// Pages show each text that a client chooses as text, never as markup, and never in a header.
#[tokio::test]
async fn markup_in_client_metadata_is_escaped() {
    const MARKUP: &str = r#""'><script>alert(1)</script><img src=x onerror=alert(1)><!--"#;
    let harness = Harness::new(&[]).await;
    let attacker = Attacker::new(&harness);
    let metadata = json!({
        "client_name": MARKUP,
        "client_name#de": MARKUP,
        "client_uri": format!("https://client.example/{MARKUP}"),
        "logo_uri": format!("https://client.example/{MARKUP}"),
        "tos_uri": "javascript:alert(1)",
        "policy_uri": "javascript:alert(1)",
        "contacts": [MARKUP],
        "scope": MARKUP,
        "software_id": MARKUP,
        "software_version": MARKUP,
        "redirect_uris": ["https://client.example/callback?x='%22onload=alert(1)", "com.example.app:/'onload=alert(1)<b>"],
        "token_endpoint_auth_method": "none",
    });
    let reply = attacker.register(&metadata).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.body);
    assert!(reply.header("content-type").starts_with("application/json"));
    assert_eq!(reply.header("x-content-type-options"), "nosniff");
    let registered = reply.json();
    let client = registered_client(&harness, "prepared", REDIRECT).await;
    client.set_client(registered["client_id"].as_str().unwrap(), None);
    for redirect in metadata["redirect_uris"].as_array().unwrap() {
        let url = with_parameter(
            &client.authorize_url().unwrap(),
            "redirect_uri",
            Some(redirect.as_str().unwrap()),
        );
        for state in [MARKUP, "\r\nX-Injected: 1", "\u{202e}"] {
            let url = with_parameter(&url, "state", Some(state));
            let page = Browser::new().get(&url).await.unwrap();
            assert_eq!(page.status, StatusCode::OK, "{}", page.text());
            assert_no_markup(&page.body);
            assert!(page.headers.get("x-injected").is_none());
            // The form carries the state.
            assert!(page.forms()[0].fields.iter().any(|(name, _)| name == "state"));
        }
    }
    // Error pages do not repeat markup.
    for path in [
        format!("/oauth/authorize?client_id={}", urlencode(MARKUP)),
        format!(
            "/oauth/callback?state={0}&error={0}&error_description={0}",
            urlencode(MARKUP)
        ),
        format!("/{}", urlencode(MARKUP)),
    ] {
        let reply = attacker.get(&path, &[]).await;
        assert!(reply.status.is_client_error());
        assert_no_markup(&reply.body);
    }
    // Names with bidirectional overrides or control characters are rejected or cleaned.
    let reply = attacker
        .register(&public_client_metadata("Cla\u{202e}edu\u{0000}", REDIRECT))
        .await;
    if reply.status == StatusCode::CREATED {
        let name = reply.json()["client_name"].to_string();
        assert!(!name.contains('\u{202e}') && !name.contains("\\u0000"), "{name}");
    }
}

#[track_caller]
fn assert_no_markup(body: &str) {
    for markup in ["<script", "<img", "onerror=alert(1)>", "\" onload", "<!--", "<b>"] {
        assert!(!body.contains(markup), "{markup} in {body}");
    }
}

fn urlencode(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// URLs in client metadata, and client ids that are URLs: none makes the broker connect to a
/// private address.
#[tokio::test]
async fn private_addresses_in_client_ids_and_metadata_are_not_contacted() {
    let harness = Harness::new(&[]).await;
    let attacker = Attacker::new(&harness);
    let private = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = private.local_addr().unwrap().port();
    let hosts = [
        "127.0.0.1",
        "localhost",
        "LOCALHOST.",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0.0.0.0",
        "0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "user@127.0.0.1",
        "\u{ff11}\u{ff12}\u{ff17}.0.0.1",
        "127\u{3002}0\u{3002}0\u{3002}1",
    ];
    let template = registered_client(&harness, "template", REDIRECT).await;
    for host in hosts {
        for scheme in ["https", "http"] {
            let address = format!("{scheme}://{host}:{port}/client.json");
            let url = with_parameter(&template.authorize_url().unwrap(), "client_id", Some(&address));
            let reply = attacker.get(&path_and_query(&url), &[]).await;
            assert!(reply.status.is_client_error(), "{address}: {}", reply.status);
            assert!(!reply.is_redirect());
            assert!(!reply.body.contains("127.0.0.1:"), "the page does not show the address");
        }
        let address = format!("https://{host}:{port}/x");
        let mut metadata = public_client_metadata("with private URLs", REDIRECT);
        for field in ["jwks_uri", "logo_uri", "client_uri", "sector_identifier_uri", "tos_uri"] {
            metadata[field] = json!(address);
        }
        // The registration may be accepted or rejected, but the broker fetches nothing.
        attacker.register(&metadata).await;
    }
    let other_schemes = [
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "ftp://127.0.0.1/",
        "data:,{}",
    ];
    for address in other_schemes {
        let url = with_parameter(&template.authorize_url().unwrap(), "client_id", Some(address));
        assert!(attacker.get(&path_and_query(&url), &[]).await.status.is_client_error());
    }
    // A connection would be in the listener's queue by now.
    let connection = tokio::time::timeout(std::time::Duration::ZERO, private.accept()).await;
    assert!(connection.is_err(), "the broker connected to a private address");
}

/// The number of registrations is limited, and signed-in users are unaffected.
#[tokio::test]
async fn flood_of_registrations_is_limited_and_does_not_affect_signed_in_users() {
    const ABOVE_THE_LIMIT: usize = 12_000;
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    let attacker = Attacker::new(&harness);
    let mut ids = BTreeSet::new();
    let mut refused = None;
    for number in 0..ABOVE_THE_LIMIT {
        let reply = attacker
            .register(&public_client_metadata(&format!("flood {number}"), REDIRECT))
            .await;
        if reply.status != StatusCode::CREATED {
            refused = Some(reply);
            break;
        }
        assert!(ids.insert(reply.json()["client_id"].as_str().unwrap().to_owned()));
    }
    let refused = refused.expect("registrations are limited");
    assert!(
        [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&refused.status),
        "{}",
        refused.status
    );
    assert!(!refused.error().is_empty(), "{}", refused.body);
    assert_eq!(login_of(&alice).await, "alice");
    alice.refresh().await.unwrap();
}

/// RFC 7591 section 2: invalid metadata is rejected with an error of section 3.2.2.
#[tokio::test]
async fn invalid_registrations_are_rejected() {
    let harness = Harness::new(&[]).await;
    let attacker = Attacker::new(&harness);
    let many: Vec<String> = (0..100).map(|n| format!("https://client.example/{n}")).collect();
    for metadata in [
        Value::Null,
        json!([]),
        json!("text"),
        json!({}),
        json!({ "redirect_uris": "https://client.example/" }),
        json!({ "redirect_uris": [1] }),
        json!({ "redirect_uris": many }),
        json!({ "redirect_uris": [REDIRECT], "token_endpoint_auth_method": "tls_client_auth" }),
        json!({ "redirect_uris": [REDIRECT], "grant_types": ["client_credentials"] }),
        json!({ "redirect_uris": [REDIRECT], "response_types": ["token"] }),
        json!({ "redirect_uris": [format!("https://client.example/{}", "x".repeat(4_000))] }),
    ] {
        let reply = attacker.register(&metadata).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{}", reply.body);
        assert!(
            ["invalid_client_metadata", "invalid_redirect_uri"].contains(&reply.error().as_str()),
            "{}",
            reply.body
        );
    }
}
