//! The way through the browser: whose consent, in which browser, answered to whom.

use http::{StatusCode, header};
use testkit::{Browser, Client, browser::Page};
use url::Url;

use super::{Attacker, REDIRECT, parameter, path_of, prepared, with_parameter};
use crate::harness::{Harness, password};

/// Says yes on the broker's consent page and gives the address at Forgejo that the browser is sent to.
async fn approve(browser: &mut Browser, authorize: &Url) -> Url {
    let page = browser.get(authorize).await.unwrap();
    submit(browser, &page, "approve").await.redirect().unwrap()
}

async fn submit(browser: &mut Browser, page: &Page, decision: &str) -> Page {
    let form = &page.forms()[0];
    assert!(form.has_button("decision", "approve"), "{}", page.text());
    browser.submit(page, form, &[("decision", decision)]).await.unwrap()
}

/// Lets a person go on from Forgejo's pages up to the callback, which is given and not opened.
async fn at_forgejo(browser: &mut Browser, harness: &Harness, forgejo: &Url, login: &str) -> Url {
    let callback = format!("{}/oauth/callback", harness.broker.url());
    browser
        .authorize(forgejo, login, &password(login), &callback)
        .await
        .unwrap()
}

/// MCP security best practices, "Confused deputy": consent for each client, before Forgejo is asked.
#[tokio::test]
async fn the_confused_deputy_asks_again_for_a_client_that_nobody_approved() {
    let harness = Harness::new(&[]).await;
    let mut victim = Browser::new();
    let honest = prepared(&harness, "honest", REDIRECT).await;
    honest.sign_in(&mut victim, "alice", &password("alice")).await.unwrap();
    // Forgejo remembers that she granted the broker, so that it would not ask any more.
    let evil = prepared(&harness, "honest", "https://evil.example/callback").await;
    let page = victim.get(&evil.authorize_url().unwrap()).await.unwrap();
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.redirect().is_none());
    assert!(
        page.body.contains("evil.example"),
        "the page says where the answer goes"
    );
    // The same client with another redirect URI is a thing of its own too, and unknown.
    let url = with_parameter(
        &honest.authorize_url().unwrap(),
        "redirect_uri",
        Some("https://evil.example/callback"),
    );
    let page = victim.get(&url).await.unwrap();
    assert!(page.status.is_client_error() && page.redirect().is_none());
}

/// CVE-2026-27124: the attacker says yes, the victim is lured to the rest.
#[tokio::test]
async fn a_consent_in_one_browser_gives_no_code_to_a_callback_in_another() {
    let harness = Harness::new(&[]).await;
    let (mut attacker, mut victim) = (Browser::new(), Browser::new());
    let honest = prepared(&harness, "honest", REDIRECT).await;
    honest.sign_in(&mut victim, "alice", &password("alice")).await.unwrap();

    let evil = prepared(&harness, "evil", "https://evil.example/callback").await;
    let forgejo = approve(&mut attacker, &evil.authorize_url().unwrap()).await;
    let callback = at_forgejo(&mut victim, &harness, &forgejo, "alice").await;
    let page = victim.get(&callback).await.unwrap();
    assert!(page.status.is_client_error(), "{}", page.status);
    assert!(page.redirect().is_none(), "no code leaves the broker");
    // And nothing on that page tells anybody else the code of hers that stands in its address.
    assert!(!page.body.contains("<img") && !page.body.contains("http-equiv"));
    let policy = page.headers["referrer-policy"].to_str().unwrap();
    assert!(["no-referrer", "same-origin"].contains(&policy), "{policy}");
}

/// The same with no cookie at all, as when the link is opened in a mail program.
#[tokio::test]
async fn a_callback_without_the_cookie_gives_no_code() {
    let harness = Harness::new(&[]).await;
    let mut browser = Browser::new();
    let client = prepared(&harness, "honest", REDIRECT).await;
    let forgejo = approve(&mut browser, &client.authorize_url().unwrap()).await;
    let callback = at_forgejo(&mut browser, &harness, &forgejo, "alice").await;
    let reply = Attacker::of(&harness).get(&path_of(&callback), &[]).await;
    assert!(reply.status.is_client_error());
    assert!(reply.headers.get(header::LOCATION).is_none());
}

/// The attacker plants his own cookie in the victim's browser and sends his own consent form from his own site.
#[tokio::test]
async fn a_planted_cookie_and_a_form_from_another_site_are_refused() {
    let harness = Harness::new(&[]).await;
    let attacker = Attacker::of(&harness);
    let client = prepared(&harness, "evil", "https://evil.example/callback").await;
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
    let form_type = ("content-type", "application/x-www-form-urlencoded");
    for origin in ["https://evil.example", "null"] {
        let headers = [form_type, ("cookie", cookie.as_str()), ("origin", origin)];
        let reply = attacker
            .send("POST", form.action.path(), &headers, body.clone())
            .await
            .unwrap();
        assert_eq!(reply.status, StatusCode::FORBIDDEN, "{origin}");
        assert!(reply.headers.get(header::LOCATION).is_none());
    }
    // Without the cookie, and with another browser's.
    let mut other = Browser::new();
    other.get(&client.authorize_url().unwrap()).await.unwrap();
    let theirs = format!("{}={}", other.cookies()[0].name, other.cookies()[0].value);
    for cookie in ["", "fmb-browser=", theirs.as_str()] {
        let reply = attacker
            .send(
                "POST",
                form.action.path(),
                &[form_type, ("cookie", cookie)],
                body.clone(),
            )
            .await
            .unwrap();
        assert!(reply.status.is_client_error(), "{cookie}: {}", reply.status);
        assert!(reply.headers.get(header::LOCATION).is_none());
    }
}

/// A consent page is good for what it shows and for nothing else.
#[tokio::test]
async fn a_consent_form_that_was_changed_is_refused() {
    let harness = Harness::new(&[]).await;
    let honest = prepared(&harness, "honest", REDIRECT).await;
    let evil = prepared(&harness, "evil", "https://evil.example/callback").await;
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
    // Unchanged it is still good: none of the tries has spent it.
    assert!(submit(&mut browser, &page, "approve").await.redirect().is_some());
}

/// MCP security best practices: consent pages must not be framed, and cookies are `__Host-`, `Secure`, `HttpOnly`,
/// `SameSite=Lax`.
#[tokio::test]
async fn the_consent_page_cannot_be_framed_and_its_cookie_cannot_be_planted() {
    let harness = Harness::new(&[("server.public_url", "https://broker.example")]).await;
    let attacker = Attacker::of(&harness);
    let host = [("host", "broker.example"), ("content-type", "application/json")];
    let registered = attacker
        .send(
            "POST",
            "/oauth/register",
            &host,
            super::public_client("one", REDIRECT).to_string(),
        )
        .await
        .unwrap();
    let id = registered.json()["client_id"].as_str().unwrap().to_owned();
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("response_type", "code")
        .append_pair("client_id", &id)
        .append_pair("redirect_uri", REDIRECT)
        .append_pair("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM")
        .append_pair("code_challenge_method", "S256")
        .finish();
    // A cookie of the plain name, which a neighbouring host can set, is none.
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
    // The query of the authorization request goes to no other site.
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
        assert!(!cookie.contains(&"A".repeat(43)), "the planted value was taken up");
    }
}

/// MCP security best practices: the state at Forgejo is random, set only after consent, and good once.
#[tokio::test]
async fn the_state_at_forgejo_is_made_after_consent_and_good_once() {
    let harness = Harness::new(&[]).await;
    let mut browser = Browser::new();
    let client = prepared(&harness, "honest", REDIRECT).await;
    let authorize = client.authorize_url().unwrap();
    let page = browser.get(&authorize).await.unwrap();
    for cookie in browser.cookies() {
        assert!(!page.body.contains(&cookie.value), "the page does not show the cookie");
    }
    let first = submit(&mut browser, &page, "approve").await.redirect().unwrap();
    let second = submit(&mut browser, &page, "approve").await.redirect().unwrap();
    let states = [&first, &second].map(|url| parameter(url, "state").unwrap());
    assert_ne!(states[0], states[1]);
    assert!(states.iter().all(|state| state.len() >= 43));
    assert!(
        states.iter().all(|state| !page.body.contains(state.as_str())),
        "no state before consent"
    );
    assert_ne!(states[0], parameter(&authorize, "state").unwrap());

    let callback = at_forgejo(&mut browser, &harness, &first, "alice").await;
    for forged in [
        with_parameter(&callback, "state", Some("")),
        with_parameter(&callback, "state", None),
        with_parameter(&callback, "state", Some(&states[0][1..])),
    ] {
        let page = browser.get(&forged).await.unwrap();
        assert!(page.status.is_client_error() && page.redirect().is_none(), "{forged}");
    }
    let back = browser.get(&callback).await.unwrap().redirect().unwrap();
    assert!(parameter(&back, "code").is_some());
    let again = browser.get(&callback).await.unwrap();
    assert!(again.status.is_client_error() && again.redirect().is_none());
}

/// RFC 9207: `iss` in every answer, so that a client of several servers knows which one spoke; errors included.
#[tokio::test]
async fn a_mix_up_shows_since_every_answer_names_its_issuer() {
    let harness = Harness::new(&[]).await;
    let client = prepared(&harness, "honest", REDIRECT).await;
    let issuer = harness.broker.url();
    let metadata = Attacker::of(&harness)
        .get("/.well-known/oauth-authorization-server", &[])
        .await
        .json();
    assert_eq!(metadata["authorization_response_iss_parameter_supported"], true);
    assert_eq!(metadata["issuer"], issuer.as_str());

    let begin = |client: &Client| client.authorize_url().unwrap();
    let mut browser = Browser::new();
    let granted = browser
        .authorize(&begin(&client), "alice", &password("alice"), REDIRECT)
        .await
        .unwrap();
    assert!(parameter(&granted, "code").is_some());
    let denied = Browser::new()
        .deny(&begin(&client), "alice", &password("alice"), REDIRECT)
        .await
        .unwrap();
    assert_eq!(parameter(&denied, "error").as_deref(), Some("access_denied"));
    let mut answers = vec![granted, denied];
    let refused = with_parameter(&begin(&client), "response_type", Some("token"));
    // Told at once, or shown on a page that leaves it to the user to go back.
    if let Some(refused) = browser.get(&refused).await.unwrap().redirect() {
        assert_eq!(
            parameter(&refused, "error").as_deref(),
            Some("unsupported_response_type")
        );
        answers.push(refused);
    }
    for answer in answers {
        assert_eq!(parameter(&answer, "iss").as_deref(), Some(issuer.as_str()), "{answer}");
        assert!(parameter(&answer, "state").is_some());
    }
}

/// RFC 9700 section 4.12: 303, so that no browser posts the consent form on; and no secret in the Referer.
#[tokio::test]
async fn redirects_after_a_form_are_303() {
    let harness = Harness::new(&[]).await;
    let client = prepared(&harness, "honest", REDIRECT).await;
    for decision in ["approve", "deny"] {
        let mut browser = Browser::new();
        let page = browser.get(&client.authorize_url().unwrap()).await.unwrap();
        let answer = submit(&mut browser, &page, decision).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{decision}");
    }
}
