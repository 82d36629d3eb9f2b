//! Discovery, a complete sign-in, the guard, and a restart.

use std::time::Duration;

use http::{HeaderMap, Request, StatusCode, header};
use oauth::Config;
use secrecy::ExposeSecret as _;

use crate::{
    browser::{Browser, authorization},
    world::{ALICE, Answer, BOB, ISSUER, World, encode},
};

#[tokio::test]
async fn a_signed_in_user_is_the_caller() {
    let world = World::new().await;
    let client = world.client().await;
    let mut browser = Browser::default();

    let page = browser.authorize(&world, &authorization(&client)).await;
    assert_eq!(page.status, StatusCode::OK);
    let to_forgejo = browser.answer(&world, &page, "approve").await;
    assert_eq!(to_forgejo.location().host_str(), Some("forgejo.example"));
    assert_eq!(
        to_forgejo.parameter("redirect_uri").unwrap(),
        format!("{ISSUER}/oauth/callback")
    );
    let back = browser.return_from(&world, &to_forgejo, ALICE).await;
    assert!(
        back.location()
            .as_str()
            .starts_with("http://127.0.0.1:4711/callback?code=fmb_code_")
    );
    assert_eq!(back.parameter("state").as_deref(), Some("xyz"));
    assert_eq!(back.parameter("iss").as_deref(), Some(ISSUER));

    let answer = world.exchange(&client, &back.parameter("code").unwrap()).await;
    assert_eq!(answer.header(header::CACHE_CONTROL), "no-store");
    let json = answer.json();
    assert_eq!(json["token_type"], "Bearer");
    assert_eq!(json["expires_in"], 3600);
    assert_eq!(json["scope"], "mcp");
    let tokens = answer.tokens();
    assert!(tokens.access.starts_with("fmb_at_") && tokens.refresh.starts_with("fmb_rt_"));

    let caller = world.caller(&tokens.access).await;
    assert_eq!(
        (caller.user(), caller.login(), caller.client().0.as_str()),
        (ALICE, "alice", client.as_str())
    );
    let upstream = caller.account().valid_token().await.unwrap();
    assert_eq!(upstream.access_token.expose_secret(), "access-11-1");
}

#[tokio::test]
async fn two_users_of_one_client_are_two_callers() {
    let world = World::new().await;
    let client = world.client().await;
    let alice = world.tokens(&client, ALICE).await;
    let bob = world.tokens(&client, BOB).await;
    let (alice, bob) = (world.caller(&alice.access).await, world.caller(&bob.access).await);
    assert_eq!((alice.login(), bob.login()), ("alice", "bob"));
    assert_ne!(alice.grant(), bob.grant());
    assert_eq!(
        bob.account().valid_token().await.unwrap().access_token.expose_secret(),
        "access-12-1"
    );
}

#[tokio::test]
async fn a_401_points_to_the_resource_metadata() {
    let world = World::new().await;
    let missing = Answer::read(world.server.authenticate(&HeaderMap::new()).await.unwrap_err()).await;
    assert_eq!(missing.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        missing.header(header::WWW_AUTHENTICATE),
        "Bearer resource_metadata=\"https://broker.example/.well-known/oauth-protected-resource/mcp\", scope=\"mcp\""
    );
    let bad = world.authenticate("fmb_at_nonsense").await.unwrap_err();
    assert_eq!(bad.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        bad.header(header::WWW_AUTHENTICATE),
        "Bearer error=\"invalid_token\", error_description=\"the access token is unknown, expired or revoked\", \
         resource_metadata=\"https://broker.example/.well-known/oauth-protected-resource/mcp\", scope=\"mcp\""
    );
}

#[tokio::test]
async fn a_refresh_token_is_refused_as_an_access_token() {
    let world = World::new().await;
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    assert_eq!(
        world.authenticate(&tokens.refresh).await.unwrap_err().status,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn an_access_token_is_accepted_a_minute_beyond_its_stated_lifetime() {
    let world = World::new().await;
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    world.clock.advance(Duration::from_secs(3600 + 59));
    world.caller(&tokens.access).await;
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(
        world.authenticate(&tokens.access).await.unwrap_err().status,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn tokens_and_pending_sign_ins_survive_a_restart() {
    let mut world = World::new().await;
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    // Two other sign-ins are in progress: one at the consent page, one at Forgejo.
    let (mut reading, mut away) = (Browser::default(), Browser::default());
    let page = reading.authorize(&world, &authorization(&client)).await;
    let to_forgejo = away.approve(&world, &client).await;

    world.restart([7; 32]).await;

    let caller = world.caller(&tokens.access).await;
    assert_eq!(
        caller
            .account()
            .valid_token()
            .await
            .unwrap()
            .access_token
            .expose_secret(),
        "access-11-1"
    );
    world.refresh(&client, &tokens.refresh).await.tokens();
    let back = away.return_from(&world, &to_forgejo, BOB).await;
    world.exchange(&client, &back.parameter("code").unwrap()).await.tokens();
    let approved = reading.answer(&world, &page, "approve").await;
    assert_eq!(approved.location().host_str(), Some("forgejo.example"));
}

#[tokio::test]
async fn metadata_is_served_at_all_paths_that_clients_use() {
    let world = World::new().await;
    for path in [
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-protected-resource/mcp",
    ] {
        let answer = world.get(path).await;
        let json = answer.json();
        assert_eq!(json["resource"], "https://broker.example/mcp", "{path}");
        assert_eq!(json["authorization_servers"], serde_json::json!([ISSUER]));
        assert_eq!(json["scopes_supported"], serde_json::json!(["mcp"]));
        assert_eq!(answer.header(header::ACCESS_CONTROL_ALLOW_ORIGIN), "*");
    }
    for path in [
        "/.well-known/oauth-authorization-server",
        "/.well-known/oauth-authorization-server/mcp",
        "/.well-known/openid-configuration",
    ] {
        let json = world.get(path).await.json();
        assert_eq!(json["issuer"], ISSUER, "{path}");
        assert_eq!(json["authorization_endpoint"], "https://broker.example/oauth/authorize");
        assert_eq!(json["token_endpoint"], "https://broker.example/oauth/token");
        assert_eq!(json["registration_endpoint"], "https://broker.example/oauth/register");
        assert_eq!(json["revocation_endpoint"], "https://broker.example/oauth/revoke");
        assert_eq!(json["code_challenge_methods_supported"], serde_json::json!(["S256"]));
        assert_eq!(json["authorization_response_iss_parameter_supported"], true);
        assert_eq!(json["scopes_supported"], serde_json::json!(["mcp", "offline_access"]));
        let methods = serde_json::json!(["none", "client_secret_basic", "client_secret_post", "private_key_jwt"]);
        assert_eq!(json["token_endpoint_auth_methods_supported"], methods);
    }
}

#[tokio::test]
async fn paths_are_served_with_and_without_the_prefix() {
    let world = World::with(Config::new("https://example.org/tools")).await;
    for path in [
        "/.well-known/oauth-authorization-server/tools",
        "/tools/.well-known/oauth-authorization-server",
        "/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration/tools",
    ] {
        assert_eq!(
            world.get(path).await.json()["issuer"],
            "https://example.org/tools",
            "{path}"
        );
    }
    for path in [
        "/.well-known/oauth-protected-resource/tools/mcp",
        "/.well-known/oauth-protected-resource/mcp",
    ] {
        assert_eq!(
            world.get(path).await.json()["resource"],
            "https://example.org/tools/mcp",
            "{path}"
        );
    }
    let missing = Answer::read(world.server.authenticate(&HeaderMap::new()).await.unwrap_err()).await;
    assert!(
        missing
            .header(header::WWW_AUTHENTICATE)
            .contains("\"https://example.org/.well-known/oauth-protected-resource/tools/mcp\"")
    );
    // With and without the prefix.
    for path in ["/tools/oauth/token", "/oauth/token"] {
        assert_eq!(
            world.form(path, &[]).await.error(),
            (400, "invalid_request".to_owned()),
            "{path}"
        );
    }
}

#[tokio::test]
async fn unknown_paths_get_404_and_wrong_methods_405() {
    let world = World::new().await;
    for path in [
        "/oauth",
        "/oauth/",
        "/oauth/authorize/",
        "/.well-known/other",
        "/.well-known/oauth-authorization-server/x",
    ] {
        assert_eq!(world.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let answer = world.get("/oauth/token").await;
    assert_eq!(
        (answer.status, answer.header(header::ALLOW)),
        (StatusCode::METHOD_NOT_ALLOWED, "POST")
    );
    let preflight = world
        .send(Request::options("/oauth/token").body(Default::default()).unwrap())
        .await;
    assert_eq!(preflight.status, StatusCode::NO_CONTENT);
    assert_eq!(preflight.header(header::ACCESS_CONTROL_ALLOW_ORIGIN), "*");
    assert!(
        preflight
            .header(header::ACCESS_CONTROL_ALLOW_HEADERS)
            .contains("mcp-protocol-version")
    );
    // The pages use cookies, so that other origins must not read them.
    let options = world
        .send(Request::options("/oauth/authorize").body(Default::default()).unwrap())
        .await;
    assert_eq!(options.status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(!options.headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused() {
    let world = World::new().await;
    let answer = world.form("/oauth/token", &[("code", &"x".repeat(65 * 1024))]).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn metadata_ignores_the_host_header() {
    let world = World::new().await;
    let request = Request::get("/.well-known/oauth-authorization-server")
        .header(header::HOST, "evil.example")
        .header("x-forwarded-host", "evil.example")
        .body(Default::default())
        .unwrap();
    assert!(!world.send(request).await.body.contains("evil"));
}

#[tokio::test]
async fn resource_may_be_absent_end_with_a_slash_or_have_an_uppercase_host() {
    let world = World::new().await;
    let client = world.client().await;
    for resource in [
        "https://broker.example/mcp",
        "https://broker.example/mcp/",
        "HTTPS://Broker.EXAMPLE/mcp",
    ] {
        let mut fields = authorization(&client).to_vec();
        fields.push(("resource", resource));
        assert_eq!(
            Browser::default().authorize(&world, &fields).await.status,
            StatusCode::OK,
            "{resource}"
        );
    }
    for resource in [
        "https://broker.example",
        "https://broker.example/mcp//",
        "https://broker.example/MCP",
        "https://broker.exampl\u{e9}/mcp",
        "https",
        "https://other.example/mcp",
    ] {
        let mut fields = authorization(&client).to_vec();
        fields.push(("resource", resource));
        let answer = Browser::default().authorize(&world, &fields).await;
        assert_eq!(
            answer.parameter("error").as_deref(),
            Some("invalid_target"),
            "{resource}"
        );
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", client.as_str()),
            ("resource", resource),
        ];
        assert_eq!(
            world.form("/oauth/token", &form).await.error(),
            (400, "invalid_target".to_owned())
        );
    }
}

#[tokio::test]
async fn errors_reach_the_client_with_state_and_issuer() {
    let world = World::new().await;
    let client = world.client().await;
    for (change, error) in [
        (("response_type", "token"), "unsupported_response_type"),
        (("response_type", ""), "invalid_request"),
        (("code_challenge", ""), "invalid_request"),
        (("code_challenge", "short"), "invalid_request"),
        (("code_challenge_method", "plain"), "invalid_request"),
        (("code_challenge_method", ""), "invalid_request"),
        (("response_mode", "fragment"), "invalid_request"),
        (("request", "x"), "request_not_supported"),
        (("request_uri", "x"), "request_uri_not_supported"),
    ] {
        let fields = authorization(&client);
        let fields = crate::world::with(&fields, &[change]);
        let answer = Browser::default().authorize(&world, &fields).await;
        assert_eq!(answer.parameter("error").as_deref(), Some(error), "{change:?}");
        assert_eq!(answer.parameter("state").as_deref(), Some("xyz"));
        assert_eq!(answer.parameter("iss").as_deref(), Some(ISSUER));
        assert!(answer.location().as_str().starts_with(crate::world::REDIRECT));
    }
}

#[tokio::test]
async fn an_unknown_client_or_redirect_uri_never_redirects() {
    let world = World::new().await;
    let client = world.client().await;
    for change in [
        ("client_id", "fmb_client_unknown"),
        ("client_id", ""),
        ("redirect_uri", "https://evil.example/callback"),
        ("redirect_uri", "http://127.0.0.1:4711/callback/"),
        ("redirect_uri", "http://127.0.0.1:4711/callback?x=y"),
        ("redirect_uri", "http://evil.example@127.0.0.1:4711/callback"),
    ] {
        let fields = authorization(&client);
        let answer = Browser::default()
            .authorize(&world, &crate::world::with(&fields, &[change]))
            .await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{change:?}");
        assert!(!answer.headers.contains_key(header::LOCATION));
        assert!(answer.header(header::CONTENT_TYPE).starts_with("text/html"));
    }
    // A repeated parameter is ambiguous: both values are ignored.
    for repeated in ["client_id=other", "redirect_uri=http://127.0.0.1:4711/callback"] {
        let twice = format!("/oauth/authorize?{}&{repeated}", encode(&authorization(&client)));
        let answer = world.get(&twice).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(!answer.headers.contains_key(header::LOCATION));
    }
}

#[tokio::test]
async fn several_resources_are_an_invalid_target() {
    let world = World::new().await;
    let client = world.client().await;
    let own = ("resource", "https://broker.example/mcp");
    for second in [own, ("resource", "https://other.example/mcp")] {
        let mut fields = authorization(&client).to_vec();
        fields.extend([own, second]);
        let answer = Browser::default().authorize(&world, &fields).await;
        assert_eq!(answer.parameter("error").as_deref(), Some("invalid_target"));
        assert_eq!(answer.parameter("state").as_deref(), Some("xyz"));
        assert_eq!(answer.parameter("iss").as_deref(), Some(ISSUER));
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", client.as_str()),
            own,
            second,
        ];
        let refused = world.form("/oauth/token", &form).await;
        assert_eq!(refused.error(), (400, "invalid_target".to_owned()));
    }
}

#[tokio::test]
async fn unknown_parameters_are_ignored_and_known_ones_must_not_be_repeated() {
    let world = World::new().await;
    let client = world.client().await;
    let unknown = [
        ("nonce", "1"),
        ("nonce", "2"),
        ("refresh_token", "a"),
        ("refresh_token", "b"),
        ("scope", ""),
    ];
    let fields = [&authorization(&client)[..], &unknown, &[("scope", "mcp")]].concat();
    let mut browser = Browser::default();
    let page = browser.authorize(&world, &fields).await;
    assert_eq!(page.status, StatusCode::OK, "{page:?}");
    let to_forgejo = browser.answer(&world, &page, "approve").await;
    let code = browser
        .return_from(&world, &to_forgejo, ALICE)
        .await
        .parameter("code")
        .unwrap();
    let form = [&crate::world::code_form(&client, &code)[..], &unknown[..2]].concat();
    world.form("/oauth/token", &form).await.tokens();

    for (repeated, state) in [
        (("scope", "mcp"), Some("xyz")),
        (("code_challenge_method", "plain"), Some("xyz")),
        (("state", "other"), None),
    ] {
        let fields = [&authorization(&client)[..], &[("scope", "mcp"), repeated]].concat();
        let answer = Browser::default().authorize(&world, &fields).await;
        assert_eq!(
            answer.parameter("error").as_deref(),
            Some("invalid_request"),
            "{repeated:?}"
        );
        assert_eq!(answer.parameter("state").as_deref(), state, "{repeated:?}");
    }
    let form = [&crate::world::code_form(&client, "x")[..], &[("code", "y")]].concat();
    let refused = world.form("/oauth/token", &form).await;
    assert_eq!(refused.error(), (400, "invalid_request".to_owned()));
    let revocation = [("client_id", client.as_str()), ("token", "x"), ("token", "y")];
    let refused = world.form("/oauth/revoke", &revocation).await;
    assert_eq!(refused.error(), (400, "invalid_request".to_owned()));
}

#[tokio::test]
async fn a_client_with_one_redirect_uri_may_leave_it_out() {
    let world = World::new().await;
    let client = world.client().await;
    let fields = authorization(&client);
    let fields = crate::world::with(&fields, &[("redirect_uri", "")]);
    let mut browser = Browser::default();
    let page = browser.authorize(&world, &fields).await;
    assert_eq!(page.status, StatusCode::OK, "{page:?}");
    let to_forgejo = browser.answer(&world, &page, "approve").await;
    let back = browser.return_from(&world, &to_forgejo, ALICE).await;
    assert!(back.location().as_str().starts_with(crate::world::REDIRECT));
    let code = back.parameter("code").unwrap();
    let form = crate::world::code_form(&client, &code);
    let other = crate::world::with(&form, &[("redirect_uri", "http://127.0.0.1:4711/other")]);
    let refused = world.form("/oauth/token", &other).await;
    assert_eq!(refused.error(), (400, "invalid_grant".to_owned()));
    let without = crate::world::with(&form, &[("redirect_uri", "")]);
    world.form("/oauth/token", &without).await.tokens();
}

#[tokio::test]
async fn a_client_with_several_redirect_uris_must_name_one() {
    let world = World::new().await;
    let metadata = serde_json::json!({
        "redirect_uris": [crate::world::REDIRECT, "https://client.example/callback"],
        "token_endpoint_auth_method": "none",
    });
    let registered = world.register(metadata).await.json();
    let client = registered["client_id"].as_str().unwrap();
    let fields = authorization(client);
    let fields = crate::world::with(&fields, &[("redirect_uri", "")]);
    let page = Browser::default().authorize(&world, &fields).await;
    assert_eq!(page.status, StatusCode::BAD_REQUEST, "{page:?}");
    assert!(!page.headers.contains_key(header::LOCATION));
}

#[tokio::test]
async fn the_port_of_a_loopback_address_may_differ() {
    let world = World::new().await;
    let client = world.client().await;
    let fields = authorization(&client);
    let fields = crate::world::with(&fields, &[("redirect_uri", "http://127.0.0.1:50123/callback")]);
    let mut browser = Browser::default();
    let page = browser.authorize(&world, &fields).await;
    let to_forgejo = browser.answer(&world, &page, "approve").await;
    let back = browser.return_from(&world, &to_forgejo, ALICE).await;
    assert_eq!(back.location().port(), Some(50123));
    // The code is bound to the redirect URI of the request, not to the registered one.
    let code = back.parameter("code").unwrap();
    assert_eq!(
        world.exchange(&client, &code).await.error(),
        (400, "invalid_grant".to_owned())
    );
    let form = crate::world::code_form(&client, &code);
    let form = crate::world::with(&form, &[("redirect_uri", "http://127.0.0.1:50123/callback")]);
    world.form("/oauth/token", &form).await.tokens();
}
