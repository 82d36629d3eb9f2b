//! Registration, and the authentication of clients.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{Request, StatusCode, header};
use oauth::{
    Config,
    config::{Registration, StaticClient},
    ids::ClientId,
    ports::{ClientStore as _, Clock as _},
    records::{ClientAuth, ClientRecord},
};
use serde_json::{Value, json};

use crate::{
    browser::{Browser, authorization},
    world::{ALICE, ISSUER, REDIRECT, World, code_form, encode, form_request, with},
};

fn has_no_null_or_empty_member(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty() && list.iter().all(has_no_null_or_empty_member),
        Value::Object(map) => map.values().all(has_no_null_or_empty_member),
        Value::Bool(_) | Value::Number(_) => true,
    }
}

#[tokio::test]
async fn responses_have_no_null_or_empty_members() {
    let world = World::new().await;
    for metadata in [
        json!({"redirect_uris": [REDIRECT], "token_endpoint_auth_method": "none"}),
        json!({"redirect_uris": [REDIRECT], "client_name": "", "logo_uri": null, "scope": "", "contacts": []}),
        json!({"redirect_uris": [REDIRECT], "client_name": null, "grant_types": [], "response_types": null}),
        json!({"redirect_uris": [REDIRECT, "cursor://x/cb", "https://example.org/cb"], "application_type": "native"}),
    ] {
        let answer = world.register(metadata.clone()).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{metadata}: {}", answer.body);
        assert!(has_no_null_or_empty_member(&answer.json()), "{}", answer.body);
        assert_eq!(answer.json()["redirect_uris"], metadata["redirect_uris"]);
        assert_eq!(answer.header(header::CACHE_CONTROL), "no-store");
    }
}

#[tokio::test]
async fn only_clients_that_use_a_secret_get_one() {
    let world = World::new().await;
    let with_method = |method| json!({"redirect_uris": [REDIRECT], "token_endpoint_auth_method": method});
    let public = world.register(with_method("none")).await.json();
    assert!(public.get("client_secret").is_none() && public.get("client_secret_expires_at").is_none());
    for method in ["client_secret_basic", "client_secret_post"] {
        let json = world.register(with_method(method)).await.json();
        assert_eq!(json["token_endpoint_auth_method"], method);
        assert!(json["client_secret"].as_str().unwrap().starts_with("fmb_cs_"));
        assert_eq!(json["client_secret_expires_at"], 0);
    }
    let silent = world.register(json!({"redirect_uris": [REDIRECT]})).await.json();
    assert_eq!(silent["token_endpoint_auth_method"], "client_secret_basic");
    assert!(silent["client_secret"].is_string());
}

#[tokio::test]
async fn unusable_metadata_is_refused() {
    let world = World::new().await;
    let many: Vec<String> = (0..11).map(|n| format!("https://example.org/{n}")).collect();
    for (metadata, error) in [
        (json!({}), "invalid_redirect_uri"),
        (json!({"redirect_uris": []}), "invalid_redirect_uri"),
        (json!({"redirect_uris": many}), "invalid_redirect_uri"),
        (
            json!({"redirect_uris": ["javascript:alert(1)", "ms-msdt:/id"]}),
            "invalid_redirect_uri",
        ),
        (
            json!({"redirect_uris": ["http://example.org/"]}),
            "invalid_redirect_uri",
        ),
        (
            json!({"redirect_uris": ["https://example.org/?iss=https://evil.example"]}),
            "invalid_redirect_uri",
        ),
        (
            json!({"redirect_uris": "https://example.org/"}),
            "invalid_client_metadata",
        ),
        (json!([]), "invalid_client_metadata"),
        (
            json!({"redirect_uris": [REDIRECT], "token_endpoint_auth_method": "private_key_jwt"}),
            "invalid_client_metadata",
        ),
        (
            json!({"redirect_uris": [REDIRECT], "grant_types": ["client_credentials"]}),
            "invalid_client_metadata",
        ),
        (
            json!({"redirect_uris": [REDIRECT], "response_types": ["token"]}),
            "invalid_client_metadata",
        ),
        (
            json!({"redirect_uris": [REDIRECT], "client_name": "x".repeat(40_000)}),
            "invalid_client_metadata",
        ),
    ] {
        let answer = world.register(metadata.clone()).await;
        assert_eq!(answer.error(), (400, error.to_owned()), "{metadata}");
    }
}

#[tokio::test]
async fn redirect_uris_that_are_not_allowed_are_dropped_and_the_response_names_the_others() {
    let world = World::new().await;
    let uris = [
        "search-ms:query=x",
        REDIRECT,
        "http://example.org/callback",
        "cursor://anysphere.cursor-mcp/oauth/callback",
        "https://example.org/?iss=x",
        "x-client:/callback",
    ];
    let metadata = json!({"redirect_uris": uris, "token_endpoint_auth_method": "none"});
    let answer = world.register(metadata).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
    let kept = json!([REDIRECT, "cursor://anysphere.cursor-mcp/oauth/callback"]);
    assert_eq!(answer.json()["redirect_uris"], kept);
    let registered = answer.json();
    let client = registered["client_id"].as_str().unwrap();
    for uri in uris {
        let fields = with(&authorization(client), &[("redirect_uri", uri)]);
        let page = Browser::default().authorize(&world, &fields).await;
        let is_kept = kept.as_array().unwrap().contains(&json!(uri));
        let expected = if is_kept {
            StatusCode::OK
        } else {
            StatusCode::BAD_REQUEST
        };
        assert_eq!(page.status, expected, "{uri}");
    }
}

#[tokio::test]
async fn a_client_registered_under_earlier_rules_keeps_its_identifier_and_its_allowed_redirect_uris() {
    let world = World::new().await;
    let uris = ["ms-msdt:/id", REDIRECT, "https://example.org/?state=x"];
    let client = ClientRecord {
        client_id: ClientId("fmb_client_earlier".to_owned()),
        name: Some("\u{3164}".to_owned()),
        redirect_uris: uris.map(str::to_owned).to_vec(),
        auth: ClientAuth::None,
        application_type: None,
        created_at: world.clock.now(),
        domain: None,
        registration_token: None,
        fingerprint: None,
    };
    let inserted = world.store.insert_client(client, 10, world.clock.now()).await;
    inserted.unwrap();
    for uri in ["ms-msdt:/id", "https://example.org/?state=x"] {
        let fields = with(&authorization("fmb_client_earlier"), &[("redirect_uri", uri)]);
        let page = Browser::default().authorize(&world, &fields).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{uri}");
        assert!(!page.headers.contains_key(header::LOCATION), "{uri}");
    }
    let page = Browser::default()
        .authorize(&world, &authorization("fmb_client_earlier"))
        .await;
    assert!(page.body.contains("An application without a name"), "{}", page.body);
    world.tokens("fmb_client_earlier", ALICE).await;
}

#[tokio::test]
async fn metadata_of_another_content_type_is_refused() {
    let world = World::new().await;
    let metadata = json!({"redirect_uris": [REDIRECT], "token_endpoint_auth_method": "none"});
    let register = async |types: &[&str]| {
        let mut request = Request::post("/oauth/register");
        for kind in types {
            request = request.header(header::CONTENT_TYPE, *kind);
        }
        world.send(request.body(metadata.to_string().into()).unwrap()).await
    };
    for types in [
        &[][..],
        &["text/plain"],
        &["text/plain; application/json"],
        &["application/x-www-form-urlencoded"],
        &["multipart/form-data"],
        &["application/jsonp"],
        &["application/json", "text/plain"],
    ] {
        let answer = register(types).await;
        assert_eq!(answer.error(), (415, "invalid_client_metadata".to_owned()), "{types:?}");
    }
    for kind in ["application/json", "Application/JSON; charset=utf-8"] {
        assert_eq!(register(&[kind]).await.status, StatusCode::CREATED, "{kind}");
    }
}

#[tokio::test]
async fn closed_registration_admits_only_configured_clients() {
    let mut config = Config::new(ISSUER);
    config.registration = Registration::Closed;
    config.clients = vec![StaticClient {
        client_id: ClientId("known".to_owned()),
        client_secret: Some("hush".to_owned().into()),
        name: Some("Known client".to_owned()),
        redirect_uris: vec![REDIRECT.to_owned()],
    }];
    let world = World::with(config).await;
    let refused = world.register(json!({"redirect_uris": [REDIRECT]})).await;
    assert_eq!(refused.error(), (403, "access_denied".to_owned()));
    let metadata = world.get("/.well-known/oauth-authorization-server").await.json();
    assert!(metadata.get("registration_endpoint").is_none());

    let code = Browser::default().sign_in(&world, "known", ALICE).await;
    assert_eq!(
        world.exchange("known", &code).await.error(),
        (401, "invalid_client".to_owned())
    );
    let form = [&code_form("known", &code)[..], &[("client_secret", "hush")]].concat();
    world.form("/oauth/token", &form).await.tokens();
}

#[tokio::test]
async fn a_client_must_authenticate_with_its_secret_in_exactly_one_way() {
    let world = World::new().await;
    let metadata = json!({"redirect_uris": [REDIRECT], "token_endpoint_auth_method": "client_secret_basic"});
    let json = world.register(metadata).await.json();
    let (id, secret) = (
        json["client_id"].as_str().unwrap(),
        json["client_secret"].as_str().unwrap(),
    );
    let basic = |id: &str, secret: &str| format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
    let request = |fields: &[(&str, &str)], authorization: Option<String>| {
        let mut request = form_request("/oauth/token", fields);
        if let Some(authorization) = authorization {
            request
                .headers_mut()
                .insert(header::AUTHORIZATION, authorization.parse().unwrap());
        }
        request
    };
    let code = Browser::default().sign_in(&world, id, ALICE).await;
    let form = code_form(id, &code);
    let bare = with(&form, &[("client_id", "")]);

    let wrong = world.send(request(&bare, Some(basic(id, "wrong")))).await;
    assert_eq!(wrong.error(), (401, "invalid_client".to_owned()));
    assert!(wrong.header(header::WWW_AUTHENTICATE).starts_with("Basic"));
    let unknown = world.send(request(&bare, Some(basic("unknown", secret)))).await;
    assert_eq!(
        (unknown.error(), &unknown.body),
        (wrong.error(), &wrong.body),
        "the answer does not tell which"
    );
    let body = world
        .send(request(&[&form[..], &[("client_secret", "wrong")]].concat(), None))
        .await;
    assert_eq!(body.error(), (401, "invalid_client".to_owned()));
    assert!(!body.headers.contains_key(header::WWW_AUTHENTICATE));
    let both = world
        .send(request(
            &[&form[..], &[("client_secret", secret)]].concat(),
            Some(basic(id, secret)),
        ))
        .await;
    assert_eq!(both.error(), (400, "invalid_request".to_owned()));
    let other = with(&form, &[("client_id", "other")]);
    assert_eq!(
        world.send(request(&other, Some(basic(id, secret)))).await.error().0,
        400
    );
    assert_eq!(
        world.send(request(&bare, None)).await.error(),
        (400, "invalid_request".to_owned())
    );

    let tokens = world.send(request(&bare, Some(basic(id, secret)))).await.tokens();
    // The secret is accepted in the body too, whichever method was registered.
    let fields = [
        ("grant_type", "refresh_token"),
        ("client_id", id),
        ("client_secret", secret),
        ("refresh_token", &tokens.refresh),
    ];
    world.form("/oauth/token", &fields).await.tokens();
}

#[tokio::test]
async fn a_token_request_must_be_a_form() {
    let world = World::new().await;
    let mut request = form_request("/oauth/token", &[("grant_type", "refresh_token")]);
    request
        .headers_mut()
        .insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
    assert_eq!(world.send(request).await.error(), (400, "invalid_request".to_owned()));
    let client = world.client().await;
    let twice = format!(
        "{}&grant_type=x",
        encode(&[("grant_type", "refresh_token"), ("client_id", &client)])
    );
    let mut request = form_request("/oauth/token", &[]);
    *request.body_mut() = twice.into();
    assert_eq!(world.send(request).await.error(), (400, "invalid_request".to_owned()));
    let other = world
        .form("/oauth/token", &[("grant_type", "password"), ("client_id", &client)])
        .await;
    assert_eq!(other.error(), (400, "unsupported_grant_type".to_owned()));
}
