//! Clauses of the specifications that no other test is about. `docs/security.md` lists them all.

use http::{Request, StatusCode, header};
use serde_json::json;

use crate::{
    browser::{Browser, authorization},
    world::{ALICE, REDIRECT, World, code_form, encode, form_request, with},
};

/// RFC 6749 section 2.3.1: the parameters are in the body and never in the URI.
#[tokio::test]
async fn parameters_in_the_uri_of_a_token_request_are_ignored() {
    let world = World::new().await;
    let client = world.client().await;
    let code = Browser::default().sign_in(&world, &client, ALICE).await;
    let form = code_form(&client, &code);
    let path = format!("/oauth/token?{}", encode(&form));
    let refused = world.form(&path, &[]).await;
    assert_eq!(refused.error(), (400, "invalid_request".to_owned()));
    world.form("/oauth/token?client_id=other", &form).await.tokens();
}

/// RFC 9700 sections 2.1.2 and 2.4: neither passwords nor an implicit grant.
#[tokio::test]
async fn only_codes_and_refresh_tokens_are_grants() {
    let world = World::new().await;
    let client = world.client().await;
    for grant_type in [
        "password",
        "client_credentials",
        "implicit",
        "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "urn:ietf:params:oauth:grant-type:device_code",
        "urn:ietf:params:oauth:grant-type:token-exchange",
    ] {
        let fields = [
            ("grant_type", grant_type),
            ("client_id", client.as_str()),
            ("username", "alice"),
            ("password", "secret"),
        ];
        let refused = world.form("/oauth/token", &fields).await;
        assert_eq!(
            refused.error(),
            (400, "unsupported_grant_type".to_owned()),
            "{grant_type}"
        );
    }
    for response_type in ["token", "id_token", "code token", "code id_token", "none", "CODE"] {
        let fields = with(&authorization(&client), &[("response_type", response_type)]);
        let answer = Browser::default().authorize(&world, &fields).await;
        let error = answer.parameter("error");
        assert_eq!(error.as_deref(), Some("unsupported_response_type"), "{response_type}");
        assert!(answer.location().fragment().is_none(), "{response_type}");
    }
}

/// RFC 9700 section 2.6: no other origin can read the authorization endpoint.
#[tokio::test]
async fn endpoints_for_browsers_allow_no_other_origin() {
    let world = World::new().await;
    let client = world.client().await;
    let query = encode(&authorization(&client));
    for path in [
        format!("/oauth/authorize?{query}"),
        "/oauth/callback?code=x&state=y".to_owned(),
        "/oauth/connections".to_owned(),
    ] {
        let request = Request::get(&path).header(header::ORIGIN, "https://evil.example");
        let answer = world.send(request.body(Default::default()).unwrap()).await;
        for name in [
            header::ACCESS_CONTROL_ALLOW_ORIGIN,
            header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
        ] {
            assert!(!answer.headers.contains_key(&name), "{path}: {name}");
        }
    }
}

/// RFC 9700 section 4.2: pages name themselves to no other site and load nothing.
#[tokio::test]
async fn pages_send_no_referrer_to_other_sites_and_load_nothing() {
    let world = World::new().await;
    let client = world.client().await;
    let consent = Browser::default().authorize(&world, &authorization(&client)).await;
    let error = world.get("/oauth/authorize").await;
    let connections = world.get("/oauth/connections").await;
    for page in [consent, error, connections] {
        assert_eq!(page.header(header::REFERRER_POLICY), "same-origin");
        assert!(
            page.header(header::CONTENT_SECURITY_POLICY)
                .starts_with("default-src 'none'")
        );
        for tag in ["<img", "<script", "<link", "<iframe", "<object"] {
            assert!(!page.body.contains(tag), "{tag}: {}", page.body);
        }
    }
}

/// RFC 7009 section 2.1: the hint is optional, and a wrong or unknown one changes nothing.
#[tokio::test]
async fn the_type_hint_of_a_revocation_does_not_matter() {
    let world = World::new().await;
    let client = world.client().await;
    for hint in ["refresh_token", "access_token", "nonsense"] {
        let tokens = world.tokens(&client, ALICE).await;
        let fields = [
            ("client_id", client.as_str()),
            ("token", &tokens.access),
            ("token_type_hint", hint),
        ];
        assert_eq!(world.form("/oauth/revoke", &fields).await.status, StatusCode::OK);
        assert!(world.authenticate(&tokens.access).await.is_err(), "{hint}");
    }
}

/// RFC 7009 section 2.1: a client with credentials proves them first.
#[tokio::test]
async fn a_client_with_a_secret_must_authenticate_to_revoke() {
    let world = World::new().await;
    let metadata = json!({"redirect_uris": [REDIRECT], "token_endpoint_auth_method": "client_secret_post"});
    let registered = world.register(metadata).await.json();
    let text = |name: &str| registered[name].as_str().unwrap().to_owned();
    let (client, secret) = (text("client_id"), text("client_secret"));
    let code = Browser::default().sign_in(&world, &client, ALICE).await;
    let form = [&code_form(&client, &code)[..], &[("client_secret", secret.as_str())]].concat();
    let tokens = world.form("/oauth/token", &form).await.tokens();
    for wrong in [None, Some("wrong")] {
        let mut fields = vec![("client_id", client.as_str()), ("token", &tokens.refresh)];
        fields.extend(wrong.map(|secret| ("client_secret", secret)));
        let refused = world.form("/oauth/revoke", &fields).await;
        assert_eq!(refused.error(), (401, "invalid_client".to_owned()));
    }
    world.caller(&tokens.access).await;
}

/// RFC 7636 section 4.1: a verifier has 43 to 128 unreserved characters.
#[tokio::test]
async fn a_verifier_that_is_too_short_or_too_long_redeems_nothing() {
    let world = World::new().await;
    let client = world.client().await;
    let code = Browser::default().sign_in(&world, &client, ALICE).await;
    let form = code_form(&client, &code);
    for verifier in ["a", &"a".repeat(42), &"a".repeat(129), &"+".repeat(43)] {
        let refused = world
            .form("/oauth/token", &with(&form, &[("code_verifier", verifier)]))
            .await;
        assert_eq!(refused.error(), (400, "invalid_grant".to_owned()), "{verifier}");
    }
    world.form("/oauth/token", &form).await.tokens();
}

/// RFC 6750 section 2: one way to send a token. RFC 9110 section 11.6.2: one header.
#[tokio::test]
async fn other_authentication_schemes_do_not_authenticate() {
    let world = World::new().await;
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    for value in [
        tokens.access.clone(),
        format!("Token {}", tokens.access),
        format!("DPoP {}", tokens.access),
        format!("Basic {}", tokens.access),
        format!("Bearer {} extra", tokens.access),
        format!("Bearer {}", tokens.access.to_uppercase()),
    ] {
        let headers = [(header::AUTHORIZATION, value.parse().unwrap())].into_iter().collect();
        let refused = world.server.authenticate(&headers).await.unwrap_err();
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{value}");
        assert!(refused.headers().contains_key(header::WWW_AUTHENTICATE), "{value}");
    }
}

/// RFC 6749 section 5.1: no cache keeps what an endpoint answers.
#[tokio::test]
async fn no_answer_may_be_cached() {
    let world = World::new().await;
    let client = world.client().await;
    let consent = Browser::default().authorize(&world, &authorization(&client)).await;
    let refused = world.send(form_request("/oauth/token", &[])).await;
    let revoked = world
        .form("/oauth/revoke", &[("client_id", &client), ("token", "x")])
        .await;
    let registered = world.register(json!({"redirect_uris": [REDIRECT]})).await;
    for answer in [
        consent,
        refused,
        revoked,
        registered,
        world.get("/oauth/callback").await,
    ] {
        assert_eq!(answer.header(header::CACHE_CONTROL), "no-store", "{answer:?}");
    }
}
