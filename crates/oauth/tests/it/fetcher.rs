//! The hardened fetcher against a real https host.

use http::{StatusCode, header};
use oauth::fetch::{Document, Fetch as _, FetchError, HardenedFetcher};
use url::Url;

use crate::https::{Host, Page};

async fn fetch(fetcher: &HardenedFetcher, url: &str) -> Result<Document, FetchError> {
    fetcher.fetch(&Url::parse(url).unwrap(), 100).await
}

fn page(status: u16, kind: &'static str, body: &str) -> Page {
    Page {
        status: StatusCode::from_u16(status).unwrap(),
        headers: vec![(header::CONTENT_TYPE, kind)],
        body: body.to_owned(),
    }
}

#[tokio::test]
async fn document_is_read_with_its_freshness_lifetime() {
    let host = Host::start().await;
    host.put("/a", Page::json("{}"));
    host.put("/b", page(200, "application/client+json", "{\"b\":1}"));
    let fetcher = host.fetcher(&["client.example"], &[]);
    let document = fetch(&fetcher, "https://client.example/a").await.unwrap();
    assert_eq!(
        (document.body.as_slice(), document.fresh_for.unwrap().as_secs()),
        (&b"{}"[..], 3600)
    );
    let document = fetch(&fetcher, "https://client.example/b").await.unwrap();
    assert_eq!(
        (document.body.as_slice(), document.fresh_for),
        (&b"{\"b\":1}"[..], None)
    );
}

#[tokio::test]
async fn refused_and_unavailable_responses_are_distinguished() {
    let host = Host::start().await;
    let redirect = Page {
        headers: vec![
            (header::LOCATION, "https://client.example/good"),
            (header::CONTENT_TYPE, "application/json"),
        ],
        ..page(302, "application/json", "{}")
    };
    host.put("/good", Page::json("{}"));
    host.put("/redirect", redirect);
    host.put("/html", page(200, "text/html", "{}"));
    host.put("/long", Page::json(" ".repeat(101)));
    host.put("/full", Page::json(" ".repeat(100)));
    host.put("/created", page(201, "application/json", "{}"));
    host.put("/unavailable", page(503, "application/json", "{}"));
    host.put("/busy", page(429, "application/json", "{}"));
    let fetcher = host.fetcher(&["client.example"], &[]);
    for (path, refused) in [
        ("/redirect", true),
        ("/html", true),
        ("/long", true),
        ("/created", true),
        ("/missing", true),
        ("/unavailable", false),
        ("/busy", false),
    ] {
        let outcome = fetch(&fetcher, &format!("https://client.example{path}"))
            .await
            .unwrap_err();
        assert_eq!(
            matches!(outcome, FetchError::Refused(_)),
            refused,
            "{path}: {outcome:?}"
        );
        assert_eq!(
            matches!(outcome, FetchError::Unavailable(_)),
            !refused,
            "{path}: {outcome:?}"
        );
    }
    assert!(fetch(&fetcher, "https://client.example/full").await.is_ok());
    assert_eq!(host.requests("/good"), 0, "the redirect was not followed");
}

#[tokio::test]
async fn name_with_a_private_address_is_forbidden() {
    let host = Host::start().await;
    let answers: &[(&str, &[&str])] = &[
        ("loopback.example", &["127.0.0.1"]),
        ("private.example", &["10.0.0.8"]),
        ("metadata.example", &["169.254.169.254"]),
        ("mapped.example", &["::ffff:127.0.0.1"]),
        ("translated.example", &["64:ff9b::7f00:1"]),
        ("unique-local.example", &["fd12:3456::1"]),
        ("zero.example", &["0.0.0.0"]),
        ("both.example", &["93.184.216.34", "127.0.0.1"]),
        ("six.example", &["2606:4700::1111", "::1"]),
    ];
    let fetcher = host.fetcher(&[], answers);
    for (name, _) in answers {
        let outcome = fetch(&fetcher, &format!("https://{name}:{}/", host.address.port())).await;
        assert!(matches!(outcome, Err(FetchError::Forbidden(_))), "{name}: {outcome:?}");
    }
    for url in [
        "http://client.example/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://localhost/",
        "https://user@client.example/",
    ] {
        let outcome = fetch(&fetcher, url).await;
        assert!(matches!(outcome, Err(FetchError::Forbidden(_))), "{url}: {outcome:?}");
    }
    assert_eq!(host.requests("/"), 0);
}

#[tokio::test]
async fn certificate_of_another_name_or_authority_is_refused() {
    let host = Host::start().await;
    host.put("/a", Page::json("{}"));
    let fetcher = host.fetcher(&["stranger.example"], &[]);
    let outcome = fetch(&fetcher, "https://stranger.example/a").await;
    assert!(matches!(outcome, Err(FetchError::Unavailable(_))), "{outcome:?}");
    let usual = HardenedFetcher::new().unwrap();
    let outcome = fetch(&usual, &format!("https://127.0.0.1:{}/a", host.address.port())).await;
    assert!(matches!(outcome, Err(FetchError::Forbidden(_))), "{outcome:?}");
    assert_eq!(host.requests("/a"), 0);
}

#[tokio::test]
async fn usual_fetcher_does_not_reach_loopback_by_name() {
    // Every machine resolves this name to itself, as a hostile name server would resolve any name.
    let usual = HardenedFetcher::new().unwrap();
    let outcome = fetch(&usual, "https://localhost.localdomain/").await;
    assert!(matches!(outcome, Err(FetchError::Forbidden(_))), "{outcome:?}");
}
