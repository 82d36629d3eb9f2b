//! The browser at pages that Forgejo does not have.

use axum::{
    Router,
    body::Bytes,
    response::{Html, IntoResponse as _, Redirect, Response},
    routing::get,
};
use http::{HeaderMap, StatusCode};
use url::Url;

use super::{Browser, BrowserError};
use crate::http_server::HttpServer;

const CLIENT: &str = "http://127.0.0.1:9/callback";

const CONSENT: &str = r#"<form method="post" action="/oauth/authorize"><input type="hidden" name="csrf" value="a&amp;b">
<button name="decision" value="approve">Yes</button><button name="decision" value="deny">No</button></form>"#;

/// Serves a consent page with this content security policy; its hidden token and its cookie must
/// both come back.
async fn broker(policy: &'static str) -> (HttpServer, Url) {
    let consent = async move || {
        let cookie = "browser=tied; Path=/; HttpOnly; SameSite=Lax";
        let headers = [("set-cookie", cookie), ("content-security-policy", policy)];
        (headers, Html(CONSENT))
    };
    let router = Router::new()
        .route("/loop", get(async || Redirect::to("/loop")))
        .route("/oauth/authorize", get(consent).post(submit));
    let server = HttpServer::start(0, router).await.unwrap();
    let url = format!("http://{}/oauth/authorize?client_id=x", server.address());
    (server, url.parse().unwrap())
}

async fn submit(headers: HeaderMap, body: Bytes) -> Response {
    let header = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap());
    let tied = header("cookie") == "browser=tied" && header("origin") == format!("http://{}", header("host"));
    let answer = match body.as_ref() {
        b"csrf=a%26b&decision=approve" if tied => "code=1",
        b"csrf=a%26b&decision=deny" if tied => "error=access_denied",
        _ => return (StatusCode::FORBIDDEN, Html("<p>Not the same browser</p>")).into_response(),
    };
    Redirect::to(&format!("{CLIENT}?{answer}")).into_response()
}

#[tokio::test]
async fn submission_of_a_consent_page_has_its_hidden_field_and_cookie() {
    let (server, url) = broker("default-src 'none'").await;
    let redirect = Browser::new().authorize(&url, "anyone", "", CLIENT).await.unwrap();
    assert_eq!(redirect.query(), Some("code=1"));
    let redirect = Browser::new().deny(&url, "anyone", "", CLIENT).await.unwrap();
    assert_eq!(redirect.query(), Some("error=access_denied"));
    server.stop().await;
}

#[tokio::test]
async fn another_browser_cannot_submit_the_page() {
    let (server, url) = broker("").await;
    let page = Browser::new().get(&url).await.unwrap();
    let mut other = Browser::new();
    let refused = other.submit(&page, &page.forms()[0], &[("decision", "approve")]).await;
    let refused = refused.unwrap();
    let expected = (StatusCode::FORBIDDEN, "Not the same browser".to_owned());
    assert_eq!((refused.status, refused.text()), expected);
    server.stop().await;
}

#[tokio::test]
async fn redirect_that_the_page_forbids_its_form_is_blocked() {
    let (server, url) = broker("form-action 'self'").await;
    let blocked = Browser::new().authorize(&url, "anyone", "", CLIENT).await.unwrap_err();
    let expected = matches!(&blocked, BrowserError::Blocked { target, .. } if target.starts_with(CLIENT));
    assert!(expected, "{blocked}");
    server.stop().await;
}

#[tokio::test]
async fn redirect_loop_ends() {
    let (server, url) = broker("").await;
    let url = url.join("/loop").unwrap();
    let error = Browser::new().authorize(&url, "anyone", "", CLIENT).await.unwrap_err();
    assert!(matches!(error, BrowserError::TooManyRequests(_)), "{error}");
    let error = Browser::new().open(&url).await.unwrap_err();
    assert!(matches!(error, BrowserError::TooManyRequests(_)), "{error}");
    server.stop().await;
}
