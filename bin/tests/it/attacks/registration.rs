//! What a client says of itself: redirect URIs, markup, addresses to be fetched, and registrations without end.

use std::collections::BTreeSet;

use http::StatusCode;
use serde_json::{Value, json};
use testkit::Browser;
use tokio::net::TcpListener;

use super::{Attacker, REDIRECT, path_of, prepared, public_client, with_parameter};
use crate::harness::{Harness, login_of};

/// CVE-2025-4143, RFC 9700 section 2.1: the redirect URI of a request is one that was registered, byte for byte.
#[tokio::test]
async fn redirect_tricks_lead_nowhere() {
    let harness = Harness::new(&[]).await;
    let client = prepared(&harness, "one", "https://client.example/callback?a=b").await;
    let good = client.authorize_url().unwrap();
    let attacker = Attacker::of(&harness);
    for redirect in [
        "",
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
            // An error that is found later must not be sent there either.
            with_parameter(
                &with_parameter(&good, "redirect_uri", Some(redirect)),
                "response_type",
                Some("token"),
            ),
        ] {
            let reply = attacker.get(&path_of(&wrong), &[]).await;
            assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{redirect}");
            assert!(reply.headers.get("location").is_none(), "{redirect}");
            assert!(!reply.body.contains("evil.example"), "{redirect}");
        }
    }
    let mut twice = good.clone();
    twice
        .query_pairs_mut()
        .append_pair("redirect_uri", "https://evil.example/");
    let reply = attacker.get(&path_of(&twice), &[]).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert!(reply.headers.get("location").is_none());
    assert_eq!(attacker.get(&path_of(&good), &[]).await.status, StatusCode::OK);
}

/// RFC 8252 section 7.3: any port of a loopback address, and nothing else of it.
#[tokio::test]
async fn a_loopback_redirect_may_change_its_port_and_nothing_else() {
    let harness = Harness::new(&[]).await;
    let client = prepared(&harness, "native", "http://127.0.0.1:1000/callback").await;
    let good = client.authorize_url().unwrap();
    let attacker = Attacker::of(&harness);
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
            .get(&path_of(&with_parameter(&good, "redirect_uri", Some(redirect))), &[])
            .await;
        // What the URL parser makes the same address may pass: it goes to the same place.
        if redirect.contains("0x7f") && reply.status == StatusCode::OK {
            continue;
        }
        assert_eq!(reply.status.as_u16(), status, "{redirect}");
        assert!(reply.headers.get("location").is_none());
    }
}

/// Schemes that a browser would run or read are refused at registration.
#[tokio::test]
async fn dangerous_redirect_uris_are_not_registered() {
    let harness = Harness::new(&[]).await;
    let attacker = Attacker::of(&harness);
    for redirect in [
        "javascript:alert(1)",
        "JAVASCRIPT:alert(1)",
        "java\tscript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "file:///etc/passwd",
        "vbscript:x",
        "blob:https://client.example/1",
        "http://client.example/callback",
        "https://user:password@client.example/",
        "https://client.example/#fragment",
        "https://client.example/\r\nSet-Cookie: a=b",
        "/relative",
        "",
    ] {
        let reply = attacker.register(&public_client("x", redirect)).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{redirect}: {}", reply.body);
        assert_eq!(reply.error(), "invalid_redirect_uri", "{redirect}");
    }
}

/// Every text that a client chooses, as a page shows it: text, never markup, never a header.
#[tokio::test]
async fn markup_in_any_field_of_a_client_stays_text() {
    const MARKUP: &str = r#""'><script>alert(1)</script><img src=x onerror=alert(1)><!--"#;
    let harness = Harness::new(&[]).await;
    let attacker = Attacker::of(&harness);
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
        "redirect_uris": ["https://client.example/callback?x='%22onload=alert(1)", "x-app:/'onload=alert(1)<b>"],
        "token_endpoint_auth_method": "none",
    });
    let reply = attacker.register(&metadata).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.body);
    assert!(reply.header("content-type").starts_with("application/json"));
    assert_eq!(reply.header("x-content-type-options"), "nosniff");
    let registered = reply.json();
    let client = prepared(&harness, "prepared", REDIRECT).await;
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
            is_inert(&page.body);
            assert!(page.headers.get("x-injected").is_none());
            // The state survives as it is, escaped where it stands.
            assert!(page.forms()[0].fields.iter().any(|(name, _)| name == "state"));
        }
    }
    // Pages of refusal repeat nothing that could be markup.
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
        is_inert(&reply.body);
    }
    // Names that turn the direction of writing, or hide behind zero width, are no other names.
    let reply = attacker
        .register(&public_client("Cla\u{202e}edu\u{0000}", REDIRECT))
        .await;
    if reply.status == StatusCode::CREATED {
        let name = reply.json()["client_name"].to_string();
        assert!(!name.contains('\u{202e}') && !name.contains("\\u0000"), "{name}");
    }
}

#[track_caller]
fn is_inert(body: &str) {
    for live in ["<script", "<img", "onerror=alert(1)>", "\" onload", "<!--", "<b>"] {
        assert!(!body.contains(live), "{live} in {body}");
    }
}

fn urlencode(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Addresses inside a client's metadata, and client ids that are addresses: none of them makes the broker call
/// a machine that it should not.
#[tokio::test]
async fn no_address_trick_makes_the_broker_call_a_private_machine() {
    let harness = Harness::new(&[]).await;
    let attacker = Attacker::of(&harness);
    let victim = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = victim.local_addr().unwrap().port();
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
    let template = prepared(&harness, "template", REDIRECT).await;
    for host in hosts {
        for scheme in ["https", "http"] {
            let address = format!("{scheme}://{host}:{port}/client.json");
            let url = with_parameter(&template.authorize_url().unwrap(), "client_id", Some(&address));
            let reply = attacker.get(&path_of(&url), &[]).await;
            assert!(reply.status.is_client_error(), "{address}: {}", reply.status);
            assert!(reply.headers.get("location").is_none());
            assert!(
                !reply.body.contains("127.0.0.1:"),
                "the page tells nothing of what is there"
            );
        }
        let address = format!("https://{host}:{port}/x");
        let mut metadata = public_client("fetch me", REDIRECT);
        for field in ["jwks_uri", "logo_uri", "client_uri", "sector_identifier_uri", "tos_uri"] {
            metadata[field] = json!(address);
        }
        // Whether it is taken or refused: nothing is fetched.
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
        assert!(attacker.get(&path_of(&url), &[]).await.status.is_client_error());
    }
    // A connection would stand in the queue of the listener by now.
    let called = tokio::time::timeout(std::time::Duration::ZERO, victim.accept()).await;
    assert!(called.is_err(), "the broker called a machine on a private address");
}

/// Registration has an end, and those who are signed in do not notice.
#[tokio::test]
async fn a_flood_of_registrations_ends_and_harms_nobody_who_is_signed_in() {
    const MORE_THAN_ENOUGH: usize = 12_000;
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    let attacker = Attacker::of(&harness);
    let mut ids = BTreeSet::new();
    let mut refused = None;
    for number in 0..MORE_THAN_ENOUGH {
        let reply = attacker
            .register(&public_client(&format!("flood {number}"), REDIRECT))
            .await;
        if reply.status != StatusCode::CREATED {
            refused = Some(reply);
            break;
        }
        assert!(ids.insert(reply.json()["client_id"].as_str().unwrap().to_owned()));
    }
    let refused = refused.expect("there is a limit");
    assert!(
        [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&refused.status),
        "{}",
        refused.status
    );
    assert!(!refused.error().is_empty(), "{}", refused.body);
    assert_eq!(login_of(&alice).await, "alice");
    alice.refresh().await.unwrap();
}

/// RFC 7591 section 2: what is not metadata is refused, with the error of section 3.2.2.
#[tokio::test]
async fn registrations_that_are_none_are_refused() {
    let harness = Harness::new(&[]).await;
    let attacker = Attacker::of(&harness);
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
