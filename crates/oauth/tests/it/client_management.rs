//! Registrations over time: registering again, management (RFC 7592), eviction, floods.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use oauth::{Config, config::Registration};
use serde_json::{Value, json};

use crate::{
    browser::{Browser, authorization},
    world::{ALICE, Answer, BOB, ISSUER, REDIRECT, World, code_form, with},
};

fn public(uris: &[&str]) -> Value {
    json!({"client_name": "A client", "redirect_uris": uris, "token_endpoint_auth_method": "none"})
}

async fn manage(world: &World, method: Method, registered: &Value, token: &str, body: Option<Value>) -> Answer {
    let uri = registered["registration_client_uri"]
        .as_str()
        .unwrap()
        .strip_prefix(ISSUER)
        .unwrap();
    let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(uri)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::AUTHORIZATION, format!("Bearer {token}"));
    world.send(request.body(body).unwrap()).await
}

#[tokio::test]
async fn registering_a_public_client_again_returns_the_same_client() {
    let world = World::new().await;
    let first = world.register(public(&["http://127.0.0.1:1000/cb"])).await.json();
    let again = world.register(public(&["http://127.0.0.1:2000/cb"])).await;
    assert_eq!(again.status, StatusCode::CREATED);
    assert_eq!(again.json()["client_id"], first["client_id"]);
    assert_eq!(
        again.json()["redirect_uris"],
        json!(["http://127.0.0.1:2000/cb"]),
        "as it asked"
    );
    let other = world.register(public(&["http://127.0.0.1:1000/other"])).await.json();
    assert_ne!(other["client_id"], first["client_id"]);
    let secret = json!({"client_name": "A client", "redirect_uris": [REDIRECT]});
    let one = world.register(secret.clone()).await.json();
    let two = world.register(secret).await.json();
    assert_ne!(
        one["client_id"], two["client_id"],
        "who has a secret is someone of its own"
    );
}

#[tokio::test]
async fn a_shared_client_cannot_be_changed_or_deleted() {
    let world = World::new().await;
    let registered = world.register(public(&[REDIRECT])).await.json();
    let token = registered["registration_access_token"].as_str().unwrap();
    let read = manage(&world, Method::GET, &registered, token, None).await;
    assert_eq!(
        (read.status, &read.json()["client_id"]),
        (StatusCode::OK, &registered["client_id"])
    );
    let mut turned = public(&["https://evil.example/"]);
    turned["client_id"] = registered["client_id"].clone();
    let changed = manage(&world, Method::PUT, &registered, token, Some(turned)).await;
    assert_eq!(changed.error(), (403, "access_denied".to_owned()));
    let deleted = manage(&world, Method::DELETE, &registered, token, None).await;
    assert_eq!(deleted.error(), (403, "access_denied".to_owned()));
    let same = manage(&world, Method::GET, &registered, token, None).await.json();
    assert_eq!(same["redirect_uris"], json!([REDIRECT]));
}

#[tokio::test]
async fn a_client_with_a_secret_can_read_change_and_delete_its_registration() {
    let world = World::new().await;
    let registered = world
        .register(json!({"client_name": "Before", "redirect_uris": [REDIRECT]}))
        .await
        .json();
    let (id, secret) = (
        registered["client_id"].as_str().unwrap(),
        registered["client_secret"].as_str().unwrap(),
    );
    let token = registered["registration_access_token"].as_str().unwrap();
    let read = manage(&world, Method::GET, &registered, token, None).await.json();
    assert_eq!(
        (&read["client_name"], read.get("client_secret")),
        (&json!("Before"), None)
    );
    assert_eq!(read["registration_access_token"], token);

    let good = json!({"client_id": id, "client_secret": secret, "client_name": "After", "redirect_uris": [REDIRECT, "https://a.example/"]});
    for (name, value, error) in [
        ("client_id", json!("another"), "invalid_client_metadata"),
        ("client_secret", json!("wrong"), "invalid_client_metadata"),
        ("registration_access_token", json!(token), "invalid_client_metadata"),
        ("client_secret_expires_at", json!(0), "invalid_client_metadata"),
        ("token_endpoint_auth_method", json!("none"), "invalid_client_metadata"),
        ("redirect_uris", json!(["javascript:alert(1)"]), "invalid_redirect_uri"),
    ] {
        let mut bad = good.clone();
        bad[name] = value;
        let refused = manage(&world, Method::PUT, &registered, token, Some(bad)).await;
        assert_eq!(refused.error(), (400, error.to_owned()), "{name}");
    }
    let changed = manage(&world, Method::PUT, &registered, token, Some(good)).await;
    assert_eq!(
        (changed.status, &changed.json()["client_name"]),
        (StatusCode::OK, &json!("After"))
    );

    // Its tokens end with it, and the end of its grants is announced.
    let code = Browser::default().sign_in(&world, id, ALICE).await;
    let form = [&code_form(id, &code)[..], &[("client_secret", secret)]].concat();
    let tokens = world.form("/oauth/token", &form).await.tokens();
    let grant = world.caller(&tokens.access).await.grant().to_owned();
    let deleted = manage(&world, Method::DELETE, &registered, token, None).await;
    assert_eq!((deleted.status, deleted.body.as_str()), (StatusCode::NO_CONTENT, ""));
    assert!(world.authenticate(&tokens.access).await.is_err());
    assert!(world.events.take().iter().any(|ended| ended.contains(&grant.0)));
    let gone = manage(&world, Method::GET, &registered, token, None).await;
    assert_eq!(gone.error(), (401, "invalid_token".to_owned()));
}

#[tokio::test]
async fn the_application_type_is_kept_and_returned() {
    let mut world = World::new().await;
    let register = async |world: &World, kind: Value, method: &str| {
        let mut metadata = public(&["http://localhost:8080/cb"]);
        metadata["application_type"] = kind;
        metadata["token_endpoint_auth_method"] = method.into();
        let answer = world.register(metadata).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        answer.json()
    };
    // A type does not limit the redirect URIs, as it would at an OpenID provider.
    for (kind, kept) in [
        (json!("native"), Some("native")),
        (json!("web"), Some("web")),
        (json!(null), None),
        (json!("browser"), None),
    ] {
        let registered = register(&world, kind.clone(), "none").await;
        assert_eq!(
            registered.get("application_type").and_then(Value::as_str),
            kept,
            "{kind}"
        );
        world.restart([7; 32]).await;
        let token = registered["registration_access_token"].as_str().unwrap();
        let read = manage(&world, Method::GET, &registered, token, None).await.json();
        assert_eq!(read.get("application_type"), registered.get("application_type"));
        let again = register(&world, kind, "none").await;
        assert_eq!(again["client_id"], registered["client_id"]);
        assert_eq!(again.get("application_type"), registered.get("application_type"));
    }
    let native = register(&world, json!("native"), "none").await;
    let web = register(&world, json!("web"), "none").await;
    assert_ne!(native["client_id"], web["client_id"]);

    let registered = register(&world, json!("native"), "client_secret_basic").await;
    let token = registered["registration_access_token"].as_str().unwrap();
    for (kind, kept) in [(json!("web"), Some("web")), (json!(null), None)] {
        let mut change = public(&["https://a.example/cb"]);
        change["client_id"] = registered["client_id"].clone();
        change["token_endpoint_auth_method"] = "client_secret_basic".into();
        change["application_type"] = kind;
        let changed = manage(&world, Method::PUT, &registered, token, Some(change)).await;
        assert_eq!(changed.status, StatusCode::OK, "{changed:?}");
        let read = manage(&world, Method::GET, &registered, token, None).await.json();
        assert_eq!(read.get("application_type").and_then(Value::as_str), kept);
    }
}

#[tokio::test]
async fn only_the_owner_can_manage_a_registration() {
    let world = World::new().await;
    let mine = world.register(json!({"redirect_uris": [REDIRECT]})).await.json();
    let yours = world.register(json!({"redirect_uris": [REDIRECT]})).await.json();
    let token = yours["registration_access_token"].as_str().unwrap();
    let unknown = json!({"registration_client_uri": format!("{ISSUER}/oauth/register/fmb_client_unknown")});
    let foreign = manage(&world, Method::GET, &mine, token, None).await;
    let missing = manage(&world, Method::GET, &unknown, token, None).await;
    assert_eq!(foreign.error(), (401, "invalid_token".to_owned()));
    assert_eq!(foreign.body, missing.body, "the answer does not tell which");
    assert!(foreign.header(header::WWW_AUTHENTICATE).starts_with("Bearer"));
    assert_eq!(
        manage(&world, Method::POST, &mine, token, None).await.status,
        StatusCode::METHOD_NOT_ALLOWED
    );
}

#[tokio::test]
async fn unused_clients_are_evicted_and_clients_with_grants_are_not() {
    let mut config = Config::new(ISSUER);
    config.max_clients = 2;
    let world = World::with(config).await;
    let used = world.client().await;
    let tokens = world.tokens(&used, ALICE).await;
    world.clock.advance(Duration::from_secs(1));
    let unused = world.register(public(&["https://unused.example/"])).await.json();
    let full = world.register(public(&["https://new.example/"])).await;
    assert_eq!(
        full.error(),
        (503, "temporarily_unavailable".to_owned()),
        "an hour is theirs"
    );
    world.clock.advance(Duration::from_secs(3601));
    let new = world.register(public(&["https://new.example/"])).await;
    assert_eq!(new.status, StatusCode::CREATED);
    let back = world.register(public(&["https://unused.example/"])).await;
    assert_eq!(
        back.error().0,
        503,
        "it has made room, and the others are in use or new: {unused}"
    );
    world.refresh(&used, &tokens.refresh).await.tokens();
}

#[tokio::test]
async fn unused_clients_are_purged_and_clients_with_grants_are_not() {
    let world = World::new().await;
    let day = Duration::from_secs(24 * 60 * 60);
    let used = world.client().await;
    world.register(public(&["https://unused.example/"])).await;
    let tokens = world.tokens(&used, BOB).await;
    world.clock.advance(day + Duration::from_secs(1));
    world.server.purge_expired().await.unwrap();
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM oauth_clients")
        .fetch_one(world.store.writer())
        .await
        .unwrap();
    assert_eq!(left, 1);
    world.refresh(&used, &tokens.refresh).await.tokens();
}

#[tokio::test]
async fn a_flood_of_registrations_is_limited_but_known_clients_still_register() {
    let mut config = Config::new(ISSUER);
    config.registrations_per_minute = 5;
    let world = World::with(config).await;
    let known = world.register(public(&["https://known.example/"])).await.json();
    for n in 0..4 {
        let answer = world.register(public(&[&format!("https://flood.example/{n}")])).await;
        assert_eq!(answer.status, StatusCode::CREATED);
    }
    let slowed = world.register(public(&["https://flood.example/x"])).await;
    assert_eq!(slowed.error(), (429, "temporarily_unavailable".to_owned()));
    assert_eq!(slowed.header(header::RETRY_AFTER), "12");
    let again = world.register(public(&["https://known.example/"])).await;
    assert_eq!(
        (again.status, &again.json()["client_id"]),
        (StatusCode::CREATED, &known["client_id"])
    );
    world.clock.advance(Duration::from_secs(12));
    assert_eq!(
        world.register(public(&["https://flood.example/x"])).await.status,
        StatusCode::CREATED
    );
}

#[tokio::test]
async fn blocked_clients_are_refused_and_lose_their_grants_at_start() {
    let mut world = World::new().await;
    let (named, honest) = (world.client_named("Named").await, world.client().await);
    let elsewhere = world.client_at("Elsewhere", "https://app.evil.example/cb").await;
    let mut browser = Browser::default();
    let fields = with(
        &authorization(&elsewhere),
        &[("redirect_uri", "https://app.evil.example/cb")],
    );
    let page = browser.authorize(&world, &fields).await;
    let to_forgejo = browser.answer(&world, &page, "approve").await;
    let back = browser.return_from(&world, &to_forgejo, BOB).await;
    let code = back.parameter("code").unwrap();
    let exchanged = world
        .exchange_at(&elsewhere, &code, "https://app.evil.example/cb")
        .await;
    let (first, second, kept) = (
        world.tokens(&named, ALICE).await,
        exchanged.tokens(),
        world.tokens(&honest, ALICE).await,
    );

    world.config.blocked_clients = vec![named.clone(), "*.evil.example".to_owned()];
    world.restart([7; 32]).await;
    assert_eq!(world.server.end_blocked_clients().await.unwrap(), 2);
    assert_eq!(world.server.end_blocked_clients().await.unwrap(), 0);
    for (client, tokens) in [(&named, first), (&elsewhere, second)] {
        assert!(world.authenticate(&tokens.access).await.is_err());
        let refused = world.refresh(client, &tokens.refresh).await;
        assert_eq!(refused.error(), (401, "invalid_client".to_owned()));
        let page = Browser::default().authorize(&world, &authorization(client)).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN);
        assert!(page.body.contains("has blocked the application"), "{}", page.body);
    }
    let refused = world.register(public(&["https://other.evil.example/cb"])).await;
    assert_eq!(refused.error(), (400, "invalid_redirect_uri".to_owned()));
    world.caller(&kept.access).await;
    world.tokens(&honest, BOB).await;
}

#[tokio::test]
async fn the_allow_list_restricts_redirect_uris() {
    let mut config = Config::new(ISSUER);
    config.registration = Registration::AllowList;
    config.allowed_redirect_hosts = vec!["claude.ai".to_owned(), "localhost".to_owned()];
    let world = World::with(config.clone()).await;
    assert!(world.get("/.well-known/oauth-authorization-server").await.json()["registration_endpoint"].is_string());
    for (uris, status) in [
        (&["https://claude.ai/cb", REDIRECT][..], 201),
        (&["https://evil.example/", "https://claude.ai/cb"], 201),
        (&["https://claude.ai.evil.example/"], 400),
        (&["cursor://x/cb"], 400),
    ] {
        let answer = world.register(public(uris)).await;
        assert_eq!(answer.status.as_u16(), status, "{uris:?}");
        assert!(!answer.body.contains("evil.example"), "{}", answer.body);
    }
    config.allowed_redirect_hosts.clear();
    let world = World::with(config).await;
    assert!(
        world
            .get("/.well-known/oauth-authorization-server")
            .await
            .json()
            .get("registration_endpoint")
            .is_none()
    );
    assert_eq!(
        world.register(public(&[REDIRECT])).await.error(),
        (403, "access_denied".to_owned())
    );
}
