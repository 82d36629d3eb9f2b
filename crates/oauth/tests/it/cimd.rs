//! Clients with a metadata document at the URL that is their identifier, over real https.

use std::{sync::Arc, time::Duration, time::SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::StatusCode;
use oauth::{Config, config::Registration, ports::Clock as _};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair},
};
use serde_json::{Value, json};

use crate::{
    browser::{Browser, authorization},
    https::{Host, Page},
    world::{ALICE, ISSUER, REDIRECT, World, code_form, with},
};

const CLIENT: &str = "https://client.example/metadata.json";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

fn document() -> Value {
    json!({"client_id": CLIENT, "client_name": "A described client", "redirect_uris": [REDIRECT]})
}

/// A broker and the host of a client's document.
async fn described(document: &Value) -> (World, Host) {
    described_with(Config::new(ISSUER), document).await
}

async fn described_with(config: Config, document: &Value) -> (World, Host) {
    let host = Host::start().await;
    host.json("/metadata.json", document);
    let fetcher = host.fetcher(&["client.example", "keys.client.example"], &[]);
    (World::with_fetch(config, Some(Arc::new(fetcher))).await, host)
}

#[tokio::test]
async fn a_client_with_a_document_signs_in_without_registration() {
    let (mut world, host) = described(&document()).await;
    let metadata = world.get("/.well-known/oauth-authorization-server").await.json();
    assert_eq!(metadata["client_id_metadata_document_supported"], true);
    let mut browser = Browser::default();
    let page = browser.authorize(&world, &authorization(CLIENT)).await;
    assert!(
        page.body.contains("A described client") && page.body.contains("client.example"),
        "{}",
        page.body
    );
    let tokens = world.tokens(CLIENT, ALICE).await;
    assert_eq!(world.caller(&tokens.access).await.client().0, CLIENT);
    assert_eq!(host.requests("/metadata.json"), 1, "the document was cached");
    // A restart empties the cache.
    world.restart([7; 32]).await;
    let tokens = world.refresh(CLIENT, &tokens.refresh).await.tokens();
    assert_eq!(host.requests("/metadata.json"), 2);
    // The host is down when the cached document is stale: the client works for another day.
    let trouble = Page {
        status: StatusCode::SERVICE_UNAVAILABLE,
        ..Page::json("")
    };
    host.put("/metadata.json", trouble);
    world.clock.advance(Duration::from_secs(3601));
    let tokens = world.refresh(CLIENT, &tokens.refresh).await.tokens();
    // The client removes its document, which takes effect at once.
    host.remove("/metadata.json");
    let gone = world.refresh(CLIENT, &tokens.refresh).await;
    assert_eq!(gone.error(), (401, "invalid_client".to_owned()));
}

#[tokio::test]
async fn the_identifier_of_a_client_is_kept_as_the_client_writes_it() {
    const NAME: &str = "https://Client.example:443/metadata.json";
    let mut own = document();
    own["client_id"] = NAME.into();
    let (world, host) = described(&own).await;
    let page = Browser::default().authorize(&world, &authorization(NAME)).await;
    assert!(page.body.contains("<strong>client.example</strong>"), "{}", page.body);
    let tokens = world.tokens(NAME, ALICE).await;
    assert_eq!(world.caller(&tokens.access).await.client().0, NAME);
    let tokens = world.refresh(NAME, &tokens.refresh).await.tokens();
    assert_eq!(host.requests("/metadata.json"), 1, "the document was cached");
    let other = world.refresh(CLIENT, &tokens.refresh).await;
    assert_eq!(other.error(), (401, "invalid_client".to_owned()));
}

#[tokio::test]
async fn a_document_of_five_kilobytes_is_read_and_no_longer_one() {
    let length = |extra: usize| {
        let mut document = document();
        document["contacts"] = "x".repeat(extra).into();
        document
    };
    let overhead = length(0).to_string().len();
    for (bytes, status) in [(5 * 1024, StatusCode::OK), (5 * 1024 + 1, StatusCode::BAD_REQUEST)] {
        let (world, _host) = described(&length(bytes - overhead)).await;
        let page = Browser::default().authorize(&world, &authorization(CLIENT)).await;
        assert_eq!(page.status, status, "{bytes}");
    }
}

#[tokio::test]
async fn the_consent_page_names_the_host_of_the_redirect_uri_and_warns_of_local_ones() {
    for (uri, host, warned) in [
        ("https://app.example:8443/cb", "<strong>app.example</strong>", false),
        ("http://localhost:3000/cb", "<strong>localhost</strong>", true),
        ("http://[::1]:3000/cb", "<strong>[::1]</strong>", true),
    ] {
        let mut local = document();
        local["redirect_uris"] = json!([uri]);
        let (world, _host) = described(&local).await;
        let fields = with(&authorization(CLIENT), &[("redirect_uri", uri)]);
        let page = Browser::default().authorize(&world, &fields).await;
        assert!(page.body.contains(host), "{uri}: {}", page.body);
        assert!(page.body.contains("<strong>client.example</strong>"), "{uri}");
        assert_eq!(page.body.contains("a program on this device"), warned, "{uri}");
    }
}

#[tokio::test]
async fn an_unreadable_document_is_reported_as_a_passing_error() {
    let (world, host) = described(&document()).await;
    host.put(
        "/metadata.json",
        Page {
            status: StatusCode::BAD_GATEWAY,
            ..Page::json("")
        },
    );
    let page = Browser::default().authorize(&world, &authorization(CLIENT)).await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    let answer = world.refresh(CLIENT, "fmb_rt_x").await;
    assert_eq!(answer.error(), (503, "temporarily_unavailable".to_owned()));
}

#[tokio::test]
async fn an_invalid_document_makes_the_client_unknown() {
    for changed in [
        json!({"client_id": "https://client.example/other.json", "client_name": "x", "redirect_uris": [REDIRECT]}),
        json!({"client_id": CLIENT, "client_name": "x", "redirect_uris": [REDIRECT], "client_secret": "x"}),
        json!({"client_id": CLIENT, "client_name": "x".repeat(6000), "redirect_uris": [REDIRECT]}),
        json!([document()]),
    ] {
        let (world, _host) = described(&changed).await;
        let page = Browser::default().authorize(&world, &authorization(CLIENT)).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST);
        assert!(page.headers.get("location").is_none());
    }
    let (world, host) = described(&document()).await;
    for client in [
        "https://client.example/../metadata.json",
        "https://client.example/metadata.json#x",
        "http://client.example/metadata.json",
        "https://127.0.0.1/metadata.json",
        "https://user@client.example/metadata.json",
    ] {
        let page = Browser::default().authorize(&world, &authorization(client)).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{client}");
    }
    assert_eq!(host.requests("/metadata.json"), 0);
    // Other spellings of the URL are other clients, which this document does not describe.
    for client in [
        "https://client.example:443/metadata.json",
        "https://CLIENT.example/metadata.json",
    ] {
        let page = Browser::default().authorize(&world, &authorization(client)).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{client}");
    }
    assert_eq!(host.requests("/metadata.json"), 2);
    let wrong = with(&authorization(CLIENT), &[("redirect_uri", "https://evil.example/")]);
    let page = Browser::default().authorize(&world, &wrong).await;
    assert_eq!(page.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn the_allow_list_restricts_the_hosts_of_documents() {
    let config = |registration, domains: &[&str]| {
        let mut config = Config::new(ISSUER);
        config.registration = registration;
        config.allowed_client_domains = domains.iter().map(|&domain| domain.to_owned()).collect();
        config
    };
    for (config, supported, allowed) in [
        (config(Registration::Open, &[]), true, true),
        (config(Registration::AllowList, &["client.example"]), true, true),
        (config(Registration::AllowList, &["other.example"]), true, false),
        (config(Registration::AllowList, &[]), false, false),
        (config(Registration::Closed, &[]), false, false),
    ] {
        let (world, host) = described_with(config, &document()).await;
        let metadata = world.get("/.well-known/oauth-authorization-server").await.json();
        assert_eq!(metadata["client_id_metadata_document_supported"], supported);
        let page = Browser::default().authorize(&world, &authorization(CLIENT)).await;
        assert_eq!(page.status == StatusCode::OK, allowed);
        assert_eq!(host.requests("/metadata.json"), usize::from(allowed));
    }
    // Documents are switched off apart from registration.
    let mut switched_off = Config::new(ISSUER);
    switched_off.cimd = false;
    let (world, host) = described_with(switched_off, &document()).await;
    let metadata = world.get("/.well-known/oauth-authorization-server").await.json();
    assert_eq!(metadata["client_id_metadata_document_supported"], false);
    assert!(metadata["registration_endpoint"].is_string());
    let page = Browser::default().authorize(&world, &authorization(CLIENT)).await;
    assert_eq!(page.status, StatusCode::BAD_REQUEST);
    assert!(page.body.contains("client ID metadata document"), "{}", page.body);
    let refused = world.refresh(CLIENT, "fmb_rt_unknown").await;
    assert_eq!(refused.error(), (401, "invalid_client".to_owned()));
    assert!(refused.body.contains("metadata documents"), "{}", refused.body);
    assert_eq!(host.requests("/metadata.json"), 0);
    let client = world.client().await;
    world.tokens(&client, ALICE).await;
    // A server without a fetcher does not announce support.
    let metadata = World::new()
        .await
        .get("/.well-known/oauth-authorization-server")
        .await
        .json();
    assert_eq!(metadata["client_id_metadata_document_supported"], false);
}

/// A client's key for signing.
enum Signer {
    Es256(EcdsaKeyPair),
    Rs256(RsaKeyPair),
}

impl Signer {
    fn es256() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self::Es256(EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap())
    }

    fn rs256() -> Self {
        Self::Rs256(RsaKeyPair::from_pkcs8(include_bytes!("fixtures/rsa.pkcs8.der")).unwrap())
    }

    fn jwk(&self, id: &str) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Es256(pair) => {
                let point = pair.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "kid": id, "use": "sig", "alg": "ES256",
                       "x": encode(&point[1..33]), "y": encode(&point[33..])})
            }
            Self::Rs256(pair) => {
                let key = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(pair.public());
                json!({"kty": "RSA", "kid": id, "n": encode(&key.n), "e": encode(&key.e)})
            }
        }
    }

    fn sign(&self, id: &str, claims: &Value) -> String {
        let encode = |value: String| URL_SAFE_NO_PAD.encode(value);
        let algorithm = match self {
            Self::Es256(_) => "ES256",
            Self::Rs256(_) => "RS256",
        };
        let header = json!({"alg": algorithm, "kid": id}).to_string();
        let signed = format!("{}.{}", encode(header), encode(claims.to_string()));
        let random = SystemRandom::new();
        let signature = match self {
            Self::Es256(pair) => pair.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec(),
            Self::Rs256(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature)
                    .unwrap();
                signature
            }
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// The claims of a valid assertion.
fn claims(world: &World, id: &str) -> Value {
    let now = world
        .clock
        .now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    json!({"iss": CLIENT, "sub": CLIENT, "aud": ISSUER, "exp": now + 300, "iat": now, "jti": id})
}

fn signing_document() -> Value {
    let mut document = document();
    document["token_endpoint_auth_method"] = "private_key_jwt".into();
    document["jwks_uri"] = "https://keys.client.example/jwks.json".into();
    document
}

#[tokio::test]
async fn a_blocked_host_ends_the_grants_of_its_documents_and_is_not_fetched() {
    let (mut world, host) = described(&document()).await;
    let tokens = world.tokens(CLIENT, ALICE).await;
    world.config.blocked_clients = vec!["client.example".to_owned()];
    world.restart([7; 32]).await;
    assert_eq!(world.server.end_blocked_clients().await.unwrap(), 1);
    let fetched = host.requests("/metadata.json");
    assert!(world.authenticate(&tokens.access).await.is_err());
    let page = Browser::default().authorize(&world, &authorization(CLIENT)).await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    assert!(page.body.contains("has blocked the application"), "{}", page.body);
    let refused = world.refresh(CLIENT, &tokens.refresh).await;
    assert_eq!(refused.error(), (401, "invalid_client".to_owned()));
    assert_eq!(host.requests("/metadata.json"), fetched);
}

#[tokio::test]
async fn a_client_signs_with_either_algorithm_and_may_rotate_its_key() {
    let (world, host) = described(&signing_document()).await;
    let (first, second) = (Signer::es256(), Signer::rs256());
    host.json("/jwks.json", &json!({"keys": [first.jwk("first")]}));
    let code = Browser::default().sign_in(&world, CLIENT, ALICE).await;
    let bare = world.exchange(CLIENT, &code).await;
    assert_eq!(
        bare.error(),
        (401, "invalid_client".to_owned()),
        "a name alone is not enough"
    );

    let assertion = first.sign("first", &claims(&world, "1"));
    let signed = [
        ("client_assertion_type", ASSERTION_TYPE),
        ("client_assertion", assertion.as_str()),
    ];
    let tokens = world
        .form("/oauth/token", &[&code_form(CLIENT, &code)[..], &signed].concat())
        .await
        .tokens();
    let renew = async |assertion: &str, refresh: &str| {
        let fields = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh),
            ("client_assertion_type", ASSERTION_TYPE),
            ("client_assertion", assertion),
        ];
        world.form("/oauth/token", &fields).await
    };
    let replay = renew(&assertion, &tokens.refresh).await;
    assert_eq!(
        replay.error(),
        (401, "invalid_client".to_owned()),
        "an assertion is good once"
    );

    // A new key is found by its id, although the cached set is fresh for an hour.
    host.json("/jwks.json", &json!({"keys": [second.jwk("second")]}));
    world.clock.advance(Duration::from_secs(61));
    let tokens = renew(&second.sign("second", &claims(&world, "2")), &tokens.refresh)
        .await
        .tokens();
    let old = renew(&first.sign("first", &claims(&world, "3")), &tokens.refresh).await;
    assert_eq!(old.error(), (401, "invalid_client".to_owned()));

    // The revocation endpoint requires and accepts assertions, too.
    let fields = [("token", tokens.refresh.as_str()), ("client_id", CLIENT)];
    let bare = world.form("/oauth/revoke", &fields).await;
    assert_eq!(bare.error(), (401, "invalid_client".to_owned()));
    let assertion = second.sign("second", &claims(&world, "4"));
    let fields = [
        ("token", tokens.refresh.as_str()),
        ("client_assertion_type", ASSERTION_TYPE),
        ("client_assertion", &assertion),
    ];
    assert_eq!(world.form("/oauth/revoke", &fields).await.status, StatusCode::OK);
    assert!(world.authenticate(&tokens.access).await.is_err());
}

#[tokio::test]
async fn an_assertion_must_match_server_client_and_time() {
    let (world, host) = described(&signing_document()).await;
    let (mine, other) = (Signer::es256(), Signer::es256());
    host.json("/jwks.json", &json!({"keys": [mine.jwk("k")]}));
    let now = world
        .clock
        .now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let send = async |assertion: &str| {
        let fields = [
            ("grant_type", "refresh_token"),
            ("client_id", CLIENT),
            ("refresh_token", "fmb_rt_unknown"),
            ("client_assertion_type", ASSERTION_TYPE),
            ("client_assertion", assertion),
        ];
        world.form("/oauth/token", &fields).await
    };
    let mut refused = None;
    for (changes, why) in [
        (json!({"iss": "https://evil.example/x"}), "iss"),
        (json!({"sub": "https://evil.example/x"}), "sub"),
        (json!({"iss": null}), "no iss"),
        (json!({"aud": "https://other.example"}), "aud"),
        (
            json!({"aud": [ISSUER, "https://other.example"]}),
            "aud that is for another too",
        ),
        (json!({"aud": []}), "no aud"),
        (
            json!({"aud": "https://broker.example.evil.example"}),
            "aud that begins alike",
        ),
        (json!({"exp": now - 61}), "expired"),
        (json!({"exp": now + 3700}), "too long"),
        (json!({"exp": null}), "no exp"),
        (json!({"exp": -1e300}), "absurd exp"),
        (json!({"nbf": now + 100}), "not yet"),
        (json!({"iat": now + 100}), "from the future"),
        (json!({"jti": null}), "no jti"),
        (json!({"jti": ""}), "empty jti"),
    ] {
        let mut said = claims(&world, why);
        for (name, value) in changes.as_object().unwrap() {
            said[name] = value.clone();
        }
        let answer = send(&mine.sign("k", &said)).await;
        assert_eq!(answer.error(), (401, "invalid_client".to_owned()), "{why}");
        let body = refused.get_or_insert_with(|| answer.body.clone());
        assert_eq!(body, &answer.body, "the answer does not tell which");
    }
    let forged = send(&other.sign("k", &claims(&world, "forged"))).await;
    assert_eq!(forged.error(), (401, "invalid_client".to_owned()));
    let text = send("x.y.z").await;
    assert_eq!(text.error(), (401, "invalid_client".to_owned()));
    // A valid assertion gets past authentication: the refresh token is unknown.
    for (id, audience) in [
        ("a", ISSUER.to_owned()),
        ("b", format!("{ISSUER}/oauth/token")),
        ("c", format!("{ISSUER}/")),
    ] {
        let mut said = claims(&world, id);
        said["aud"] = audience.into();
        assert_eq!(
            send(&mine.sign("k", &said)).await.error(),
            (400, "invalid_grant".to_owned()),
            "{id}"
        );
    }
    let both = [
        ("grant_type", "refresh_token"),
        ("client_id", CLIENT),
        ("client_secret", "x"),
        ("client_assertion_type", ASSERTION_TYPE),
        ("client_assertion", "x"),
    ];
    assert_eq!(
        world.form("/oauth/token", &both).await.error(),
        (400, "invalid_request".to_owned())
    );
    let untyped = [
        ("grant_type", "refresh_token"),
        ("client_id", CLIENT),
        ("client_assertion", "x"),
    ];
    assert_eq!(
        world.form("/oauth/token", &untyped).await.error(),
        (400, "invalid_request".to_owned())
    );
}

#[tokio::test]
async fn a_registered_client_can_authenticate_with_keys() {
    let world = World::new().await;
    let signer = Signer::rs256();
    let metadata = json!({
        "redirect_uris": [REDIRECT],
        "token_endpoint_auth_method": "private_key_jwt",
        "jwks": {"keys": [signer.jwk("k")]},
    });
    let registered = world.register(metadata).await.json();
    assert_eq!(registered["jwks"]["keys"][0]["kid"], "k");
    assert!(registered.get("client_secret").is_none());
    let client = registered["client_id"].as_str().unwrap();
    let code = Browser::default().sign_in(&world, client, ALICE).await;
    let mut said = claims(&world, "1");
    said["iss"] = client.into();
    said["sub"] = client.into();
    let assertion = signer.sign("k", &said);
    let signed = [
        ("client_assertion_type", ASSERTION_TYPE),
        ("client_assertion", assertion.as_str()),
    ];
    world
        .form("/oauth/token", &[&code_form(client, &code)[..], &signed].concat())
        .await
        .tokens();
    let unreadable = json!({
        "redirect_uris": [REDIRECT],
        "token_endpoint_auth_method": "private_key_jwt",
        "jwks_uri": "https://keys.client.example/jwks.json",
    });
    let refused = world.register(unreadable).await;
    assert_eq!(
        refused.error(),
        (400, "invalid_client_metadata".to_owned()),
        "URLs are not read here"
    );
}
