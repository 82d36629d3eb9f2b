//! The browser at pages that Forgejo does not have.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use url::Url;

use super::{Browser, BrowserError};
use crate::serve::HttpServer;

const CLIENT: &str = "http://127.0.0.1:9/callback";

/// A consent page with a hidden token and a cookie that both must come back; `policy` is its content security policy.
async fn broker(policy: &'static str) -> (HttpServer, Url) {
    let server = HttpServer::start(
        0,
        Arc::new(move |request| {
            let response = respond(policy, &request);
            Box::pin(async move { Ok(response) })
        }),
    );
    let server = server.await.unwrap();
    let url = format!("http://{}/oauth/authorize?client_id=x", server.address())
        .parse()
        .unwrap();
    (server, url)
}

fn respond(policy: &str, request: &Request<Bytes>) -> Response<Full<Bytes>> {
    let header = |name: &str| request.headers().get(name).map_or("", |value| value.to_str().unwrap());
    if request.method() == "GET" && request.uri().path() == "/loop" {
        return Response::builder()
            .status(302)
            .header("location", "/loop")
            .body(Full::default())
            .unwrap();
    }
    if request.method() == "GET" {
        return Response::builder()
            .header("set-cookie", "browser=tied; Path=/; HttpOnly; SameSite=Lax")
            .header("content-security-policy", policy)
            .body(Full::from(
                r#"<form method="post" action="/oauth/authorize"><input type="hidden" name="csrf" value="a&amp;b">
                <button name="decision" value="approve">Yes</button><button name="decision" value="deny">No</button></form>"#,
            ))
            .unwrap();
    }
    let tied = header("cookie") == "browser=tied" && header("origin") == format!("http://{}", header("host"));
    let answer = match request.body().as_ref() {
        b"csrf=a%26b&decision=approve" if tied => "code=1",
        b"csrf=a%26b&decision=deny" if tied => "error=access_denied",
        _ => {
            return Response::builder()
                .status(403)
                .body(Full::from("<p>Not the same browser</p>"))
                .unwrap();
        }
    };
    Response::builder()
        .status(303)
        .header("location", format!("{CLIENT}?{answer}"))
        .body(Full::default())
        .unwrap()
}

#[tokio::test]
async fn a_brokers_consent_page_is_answered_with_its_hidden_field_and_cookie() {
    let (server, url) = broker("default-src 'none'").await;
    let redirect = Browser::new().authorize(&url, "nobody", "", CLIENT).await.unwrap();
    assert_eq!(redirect.query(), Some("code=1"));
    let redirect = Browser::new().deny(&url, "nobody", "", CLIENT).await.unwrap();
    assert_eq!(redirect.query(), Some("error=access_denied"));
    server.stop().await;
}

#[tokio::test]
async fn another_browser_cannot_submit_the_page() {
    let (server, url) = broker("").await;
    let page = Browser::new().get(&url).await.unwrap();
    let refused = Browser::new()
        .submit(&page, &page.forms()[0], &[("decision", "approve")])
        .await
        .unwrap();
    assert_eq!(
        (refused.status.as_u16(), refused.text().as_str()),
        (403, "Not the same browser")
    );
    server.stop().await;
}

#[tokio::test]
async fn a_redirect_that_the_page_forbids_its_form_is_blocked() {
    let (server, url) = broker("form-action 'self'").await;
    let blocked = Browser::new().authorize(&url, "nobody", "", CLIENT).await.unwrap_err();
    assert!(
        matches!(&blocked, BrowserError::Blocked { target, .. } if target.starts_with(CLIENT)),
        "{blocked}"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_loop_of_redirects_ends() {
    let (server, url) = broker("").await;
    let url = url.join("/loop").unwrap();
    let error = Browser::new().authorize(&url, "nobody", "", CLIENT).await.unwrap_err();
    assert!(matches!(error, BrowserError::TooManySteps(_)), "{error}");
    assert!(matches!(
        Browser::new().open(&url).await,
        Err(BrowserError::TooManySteps(_))
    ));
    server.stop().await;
}
