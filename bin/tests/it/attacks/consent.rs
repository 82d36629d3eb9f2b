//! The authorization flow in the browser: consent is bound to one client, one browser and one
//! redirect URI.

use http::{StatusCode, header};
use testkit::{Browser, browser::Page};
use url::Url;

use super::{
    Attacker, FORM_TYPE, JSON_TYPE, REDIRECT, form_body, path_and_query, public_client_metadata, query_parameter,
    registered_client, with_parameter,
};
use crate::harness::{Harness, password};

/// Approves on the broker's consent page and returns the URL at Forgejo to which the broker
/// redirects.
async fn approve(browser: &mut Browser, authorize: &Url) -> Url {
    let page = browser.get(authorize).await.unwrap();
    submit(browser, &page, "approve").await.redirect().unwrap()
}

async fn submit(browser: &mut Browser, page: &Page, decision: &str) -> Page {
    let form = &page.forms()[0];
    assert!(form.has_button("decision", "approve"), "{}", page.text());
    browser.submit(page, form, &[("decision", decision)]).await.unwrap()
}

/// Signs in and approves at Forgejo. Returns the URL of the callback without opening it.
async fn authorize_at_forgejo(browser: &mut Browser, harness: &Harness, forgejo: &Url, login: &str) -> Url {
    let callback = format!("{}/oauth/callback", harness.broker.url());
    browser
        .authorize(forgejo, login, &password(login), &callback)
        .await
        .unwrap()
}

/// MCP security best practices, "Confused deputy": each client needs consent, before the redirect
/// to Forgejo.
#[tokio::test]
async fn unapproved_client_needs_consent_although_forgejo_remembers_the_grant() {
    let harness = Harness::new(&[]).await;
    let mut victim = Browser::new();
    let honest = registered_client(&harness, "honest", REDIRECT).await;
    honest.sign_in(&mut victim, "alice", &password("alice")).await.unwrap();
    // Forgejo remembers her grant to the broker and would not ask again.
    let evil = registered_client(&harness, "honest", "https://evil.example/callback").await;
    let page = victim.get(&evil.authorize_url().unwrap()).await.unwrap();
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.redirect().is_none());
    assert!(page.body.contains("evil.example"), "the page shows the redirect URI");
    // The approved client is rejected with an unregistered redirect URI.
    let url = with_parameter(
        &honest.authorize_url().unwrap(),
        "redirect_uri",
        Some("https://evil.example/callback"),
    );
    let page = victim.get(&url).await.unwrap();
    assert!(page.status.is_client_error() && page.redirect().is_none());
}

/// CVE-2026-27124: the attacker approves, then lures the victim to the rest of the flow.
#[tokio::test]
async fn consent_in_one_browser_gives_no_code_to_a_callback_in_another() {
    let harness = Harness::new(&[]).await;
    let (mut attacker, mut victim) = (Browser::new(), Browser::new());
    let honest = registered_client(&harness, "honest", REDIRECT).await;
    honest.sign_in(&mut victim, "alice", &password("alice")).await.unwrap();

    let evil = registered_client(&harness, "evil", "https://evil.example/callback").await;
    let forgejo = approve(&mut attacker, &evil.authorize_url().unwrap()).await;
    let callback = authorize_at_forgejo(&mut victim, &harness, &forgejo, "alice").await;
    let page = victim.get(&callback).await.unwrap();
    assert!(page.status.is_client_error(), "{}", page.status);
    assert!(page.redirect().is_none(), "no code leaves the broker");
    // The URL of that page contains her code: the page must not leak it to another site.
    assert!(!page.body.contains("<img") && !page.body.contains("http-equiv"));
    let policy = page.headers["referrer-policy"].to_str().unwrap();
    assert!(["no-referrer", "same-origin"].contains(&policy), "{policy}");
}

/// The same without any cookie, as when a mail program opens the link.
#[tokio::test]
async fn callback_without_the_cookie_gives_no_code() {
    let harness = Harness::new(&[]).await;
    let mut browser = Browser::new();
    let client = registered_client(&harness, "honest", REDIRECT).await;
    let forgejo = approve(&mut browser, &client.authorize_url().unwrap()).await;
    let callback = authorize_at_forgejo(&mut browser, &harness, &forgejo, "alice").await;
    let reply = Attacker::new(&harness).get(&path_and_query(&callback), &[]).await;
    assert!(reply.status.is_client_error());
    assert!(!reply.is_redirect());
}

/// The attacker plants a cookie in the victim's browser and submits a consent form from another
/// site.
#[tokio::test]
async fn planted_cookie_and_form_from_another_site_are_rejected() {
    let harness = Harness::new(&[]).await;
    let attacker = Attacker::new(&harness);
    let client = registered_client(&harness, "evil", "https://evil.example/callback").await;
    let mut browser = Browser::new();
    let page = browser.get(&client.authorize_url().unwrap()).await.unwrap();
    let form = page.forms().remove(0);
    let body = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(form.filled(&[("decision", "approve")]))
        .finish();
    let cookie: Vec<String> = browser
        .cookies()
        .iter()
        .map(|cookie| format!("{}={}", cookie.name, cookie.value))
        .collect();
    let cookie = cookie.join("; ");
    for origin in ["https://evil.example", "null"] {
        let headers = [FORM_TYPE, ("cookie", cookie.as_str()), ("origin", origin)];
        let reply = attacker
            .send("POST", form.action.path(), &headers, body.clone())
            .await
            .unwrap();
        assert_eq!(reply.status, StatusCode::FORBIDDEN, "{origin}");
        assert!(!reply.is_redirect());
    }
    // Without a cookie, with an empty one, and with another browser's.
    let mut other = Browser::new();
    other.get(&client.authorize_url().unwrap()).await.unwrap();
    let foreign = format!("{}={}", other.cookies()[0].name, other.cookies()[0].value);
    for cookie in ["", "fmb-browser=", foreign.as_str()] {
        let reply = attacker
            .send(
                "POST",
                form.action.path(),
                &[FORM_TYPE, ("cookie", cookie)],
                body.clone(),
            )
            .await
            .unwrap();
        assert!(reply.status.is_client_error(), "{cookie}: {}", reply.status);
        assert!(!reply.is_redirect());
    }
}

/// A consent form is valid only for the request that its page shows.
#[tokio::test]
async fn modified_consent_form_is_rejected() {
    let harness = Harness::new(&[]).await;
    let honest = registered_client(&harness, "honest", REDIRECT).await;
    let evil = registered_client(&harness, "evil", "https://evil.example/callback").await;
    let evil_id = evil.client_id().unwrap();
    let mut browser = Browser::new();
    let page = browser.get(&honest.authorize_url().unwrap()).await.unwrap();
    let form = page.forms().remove(0);
    let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    for changed in [
        &[
            ("client_id", evil_id.as_str()),
            ("redirect_uri", "https://evil.example/callback"),
        ][..],
        &[("state", "another")],
        &[("code_challenge", challenge)],
        &[("csrf", "")],
        &[("csrf", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")],
    ] {
        let mut values = changed.to_vec();
        values.push(("decision", "approve"));
        let answer = browser.submit(&page, &form, &values).await.unwrap();
        assert!(answer.status.is_client_error(), "{changed:?}: {}", answer.status);
        assert!(answer.redirect().is_none());
    }
    // The unmodified form is still valid: the attempts have not used it up.
    assert!(submit(&mut browser, &page, "approve").await.redirect().is_some());
}

/// MCP security best practices: consent pages must not be framed, and cookies are `__Host-`,
/// `Secure`, `HttpOnly`, `SameSite=Lax`.
#[tokio::test]
async fn consent_page_cannot_be_framed_and_its_cookie_cannot_be_planted() {
    let harness = Harness::new(&[("server.public_url", "https://broker.example")]).await;
    let attacker = Attacker::new(&harness);
    let host = [("host", "broker.example"), JSON_TYPE];
    let registered = attacker
        .send(
            "POST",
            "/oauth/register",
            &host,
            public_client_metadata("one", REDIRECT).to_string(),
        )
        .await
        .unwrap();
    let id = registered.json()["client_id"].as_str().unwrap().to_owned();
    let query = form_body(&[
        ("response_type", "code"),
        ("client_id", &id),
        ("redirect_uri", REDIRECT),
        ("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
        ("code_challenge_method", "S256"),
    ]);
    // The broker ignores a cookie without the `__Host-` prefix, which a sibling host can set.
    let planted = format!("fmb-browser={}", "A".repeat(43));
    let page = attacker
        .get(
            &format!("/oauth/authorize?{query}"),
            &[("host", "broker.example"), ("cookie", &planted)],
        )
        .await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.body);
    let policy = page.header("content-security-policy");
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(policy.contains("default-src 'none'"), "{policy}");
    assert!(!policy.contains("script-src"), "{policy}");
    assert_eq!(page.header("x-frame-options"), "DENY");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    // The referrer policy hides the query of the authorization request from other sites.
    assert!(["no-referrer", "same-origin"].contains(&page.header("referrer-policy")));
    assert!(page.header("cache-control").contains("no-store"));
    let cookies: Vec<&str> = page
        .headers
        .get_all(header::SET_COOKIE)
        .iter()
        .map(|value| value.to_str().unwrap())
        .collect();
    assert!(!cookies.is_empty());
    for cookie in cookies {
        assert!(cookie.starts_with("__Host-"), "{cookie}");
        for attribute in ["; Secure", "; HttpOnly", "; SameSite=Lax", "; Path=/"] {
            assert!(cookie.contains(attribute), "{cookie}");
        }
        assert!(!cookie.contains("Domain"), "{cookie}");
        assert!(!cookie.contains(&"A".repeat(43)), "the planted value was adopted");
    }
}

/// MCP security best practices: the state at Forgejo is random, issued only after consent, and
/// valid once.
#[tokio::test]
async fn state_at_forgejo_is_issued_after_consent_and_valid_once() {
    let harness = Harness::new(&[]).await;
    let mut browser = Browser::new();
    let client = registered_client(&harness, "honest", REDIRECT).await;
    let authorize = client.authorize_url().unwrap();
    let page = browser.get(&authorize).await.unwrap();
    for cookie in browser.cookies() {
        assert!(!page.body.contains(&cookie.value), "the page contains the cookie");
    }
    let first = submit(&mut browser, &page, "approve").await.redirect().unwrap();
    let second = submit(&mut browser, &page, "approve").await.redirect().unwrap();
    let states = [&first, &second].map(|url| query_parameter(url, "state").unwrap());
    assert_ne!(states[0], states[1]);
    assert!(states.iter().all(|state| state.len() >= 43));
    assert!(
        states.iter().all(|state| !page.body.contains(state.as_str())),
        "there is a state before consent"
    );
    assert_ne!(states[0], query_parameter(&authorize, "state").unwrap());

    let callback = authorize_at_forgejo(&mut browser, &harness, &first, "alice").await;
    for forged in [
        with_parameter(&callback, "state", Some("")),
        with_parameter(&callback, "state", None),
        with_parameter(&callback, "state", Some(&states[0][1..])),
    ] {
        let page = browser.get(&forged).await.unwrap();
        assert!(page.status.is_client_error() && page.redirect().is_none(), "{forged}");
    }
    let redirect = browser.get(&callback).await.unwrap().redirect().unwrap();
    assert!(query_parameter(&redirect, "code").is_some());
    let again = browser.get(&callback).await.unwrap();
    assert!(again.status.is_client_error() && again.redirect().is_none());
}

/// RFC 6749 section 4.1.2.1: a client learns that its user has canceled at Forgejo.
#[tokio::test]
async fn user_who_cancels_at_forgejo_returns_to_the_client() {
    let harness = Harness::new(&[]).await;
    let client = registered_client(&harness, "honest", REDIRECT).await;
    let authorize = client.authorize_url().unwrap();
    let mut browser = Browser::new();
    let page = browser.get(&authorize).await.unwrap();
    let forgejo = submit(&mut browser, &page, "approve").await.redirect().unwrap();
    let canceled = browser
        .deny(&forgejo, "alice", &password("alice"), REDIRECT)
        .await
        .unwrap();
    assert_eq!(query_parameter(&canceled, "error").as_deref(), Some("access_denied"));
    assert_eq!(
        query_parameter(&canceled, "state"),
        query_parameter(&authorize, "state")
    );
    assert_eq!(query_parameter(&canceled, "iss"), Some(harness.broker.url()));
}

/// RFC 9207: each authorization response has `iss`, errors included, so that a client of several
/// servers can detect a mix-up.
#[tokio::test]
async fn every_authorization_response_names_its_issuer() {
    let harness = Harness::new(&[]).await;
    let client = registered_client(&harness, "honest", REDIRECT).await;
    let issuer = harness.broker.url();
    let metadata = Attacker::new(&harness)
        .get("/.well-known/oauth-authorization-server", &[])
        .await
        .json();
    assert_eq!(metadata["authorization_response_iss_parameter_supported"], true);
    assert_eq!(metadata["issuer"], issuer.as_str());

    let mut browser = Browser::new();
    let granted = browser
        .authorize(&client.authorize_url().unwrap(), "alice", &password("alice"), REDIRECT)
        .await
        .unwrap();
    assert!(query_parameter(&granted, "code").is_some());
    let denied = Browser::new()
        .deny(&client.authorize_url().unwrap(), "alice", &password("alice"), REDIRECT)
        .await
        .unwrap();
    assert_eq!(query_parameter(&denied, "error").as_deref(), Some("access_denied"));
    let mut responses = vec![granted, denied];
    let invalid = with_parameter(&client.authorize_url().unwrap(), "response_type", Some("token"));
    // The broker redirects at once, or shows a page from which the user goes back.
    if let Some(refused) = browser.get(&invalid).await.unwrap().redirect() {
        assert_eq!(
            query_parameter(&refused, "error").as_deref(),
            Some("unsupported_response_type")
        );
        responses.push(refused);
    }
    for response in responses {
        assert_eq!(
            query_parameter(&response, "iss").as_deref(),
            Some(issuer.as_str()),
            "{response}"
        );
        assert!(query_parameter(&response, "state").is_some());
    }
}

/// RFC 9700 section 4.12: the status is 303, so that browsers do not repeat the POST at the target.
#[tokio::test]
async fn redirects_after_a_form_are_303() {
    let harness = Harness::new(&[]).await;
    let client = registered_client(&harness, "honest", REDIRECT).await;
    for decision in ["approve", "deny"] {
        let mut browser = Browser::new();
        let page = browser.get(&client.authorize_url().unwrap()).await.unwrap();
        let answer = submit(&mut browser, &page, decision).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{decision}");
    }
}
