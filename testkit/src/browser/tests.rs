//! The browser at pages that neither Forgejo nor the broker has. The broker's own tests show that
//! it gets hidden fields, cookies and `Origin` from this browser.

use axum::{
    Router,
    response::{Html, Redirect},
    routing::get,
};
use url::Url;

use super::{Browser, BrowserError};
use crate::http_server::HttpServer;

const CLIENT: &str = "http://127.0.0.1:9/callback";

const CONSENT: &str = r#"<form method="post"><button name="decision" value="approve">Yes</button></form>"#;

async fn start() -> (HttpServer, Url) {
    let forbidding = async || ([("content-security-policy", "form-action 'self'")], Html(CONSENT));
    let router = Router::new()
        .route("/loop", get(async || Redirect::to("/loop")))
        .route("/consent", get(forbidding).post(async || Redirect::to(CLIENT)));
    let server = HttpServer::start(0, router).await.unwrap();
    let url = format!("http://{}", server.address());
    (server, url.parse().unwrap())
}

#[tokio::test]
async fn redirect_that_the_page_forbids_its_form_is_blocked() {
    let (server, url) = start().await;
    let consent = url.join("/consent").unwrap();
    let blocked = Browser::new()
        .authorize(&consent, "anyone", "", CLIENT)
        .await
        .unwrap_err();
    let expected = matches!(&blocked, BrowserError::Blocked { target, .. } if target.starts_with(CLIENT));
    assert!(expected, "{blocked}");
    server.stop().await;
}

#[tokio::test]
async fn redirect_loop_ends() {
    let (server, url) = start().await;
    let url = url.join("/loop").unwrap();
    let error = Browser::new().authorize(&url, "anyone", "", CLIENT).await.unwrap_err();
    assert!(matches!(error, BrowserError::TooManyRequests(_)), "{error}");
    let error = Browser::new().open(&url).await.unwrap_err();
    assert!(matches!(error, BrowserError::TooManyRequests(_)), "{error}");
    server.stop().await;
}
