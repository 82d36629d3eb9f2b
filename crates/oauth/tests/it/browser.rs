//! A browser: it keeps cookies, reads and answers the consent page, signs in, and returns.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Request, StatusCode, header};

use oauth::ids::UserId;

use crate::world::{Answer, CHALLENGE, REDIRECT, World, encode, form_request};

/// A browser with its cookies, which do not expire.
#[derive(Clone, Debug, Default)]
pub(crate) struct Browser {
    cookies: BTreeMap<String, String>,
}

/// The fields of a valid authorization request.
pub(crate) fn authorization(client: &str) -> [(&str, &str); 6] {
    [
        ("response_type", "code"),
        ("client_id", client),
        ("redirect_uri", REDIRECT),
        ("state", "xyz"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ]
}

impl Browser {
    /// The value of a cookie.
    pub(crate) fn cookie(&self, name: &str) -> Option<&str> {
        self.cookies.get(name).map(String::as_str)
    }

    /// Sets or removes a cookie.
    pub(crate) fn plant(&mut self, name: &str, value: Option<&str>) {
        match value {
            Some(value) => self.cookies.insert(name.to_owned(), value.to_owned()),
            None => self.cookies.remove(name),
        };
    }

    /// Opens an address of the broker.
    pub(crate) async fn open(&mut self, world: &World, path_and_query: &str) -> Answer {
        self.send(world, Request::get(path_and_query).body(Bytes::new()).unwrap())
            .await
    }

    pub(crate) async fn authorize(&mut self, world: &World, fields: &[(&str, &str)]) -> Answer {
        self.open(world, &format!("/oauth/authorize?{}", encode(fields))).await
    }

    /// Sends the form of a consent page.
    pub(crate) async fn answer(&mut self, world: &World, page: &Answer, decision: &str) -> Answer {
        let mut fields = hidden_fields(&page.body);
        fields.push(("decision".to_owned(), decision.to_owned()));
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
        self.send(world, form_request("/oauth/authorize", &fields)).await
    }

    /// Approves a client's request, up to the redirect to Forgejo.
    pub(crate) async fn approve(&mut self, world: &World, client: &str) -> Answer {
        let page = self.authorize(world, &authorization(client)).await;
        assert_eq!(page.status, StatusCode::OK, "{page:?}");
        self.answer(world, &page, "approve").await
    }

    /// Signs in at Forgejo and returns to the callback.
    pub(crate) async fn return_from(&mut self, world: &World, to_forgejo: &Answer, user: UserId) -> Answer {
        let code = world.upstream.sign_in(user, to_forgejo.location().as_str());
        let state = to_forgejo.parameter("state").unwrap();
        self.open(
            world,
            &format!("/oauth/callback?{}", encode(&[("code", &code), ("state", &state)])),
        )
        .await
    }

    /// Runs a complete sign-in and returns the client's code.
    pub(crate) async fn sign_in(&mut self, world: &World, client: &str, user: UserId) -> String {
        let to_forgejo = self.approve(world, client).await;
        let back = self.return_from(world, &to_forgejo, user).await;
        back.parameter("code").unwrap_or_else(|| panic!("no code: {back:?}"))
    }

    pub(crate) async fn send(&mut self, world: &World, mut request: Request<Bytes>) -> Answer {
        let pairs: Vec<String> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if !pairs.is_empty() {
            let cookies = pairs.join("; ").parse().unwrap();
            request.headers_mut().insert(header::COOKIE, cookies);
        }
        let answer = world.send(request).await;
        for set in answer.headers.get_all(header::SET_COOKIE) {
            let set = set.to_str().unwrap();
            let (name, value) = set.split(';').next().unwrap().split_once('=').unwrap();
            self.plant(name, Some(value).filter(|_| !set.contains("Max-Age=0;")));
        }
        answer
    }
}

/// The hidden fields of a page, unescaped.
pub(crate) fn hidden_fields(page: &str) -> Vec<(String, String)> {
    let value_of = |tag: &str, attribute: &str| {
        let from = tag.find(&format!("{attribute}=\"")).unwrap() + attribute.len() + 2;
        let value = &tag[from..from + tag[from..].find('"').unwrap()];
        value
            .replace("&#38;", "&")
            .replace("&#34;", "\"")
            .replace("&#60;", "<")
            .replace("&#62;", ">")
            .replace("&#39;", "'")
    };
    page.split("<input type=\"hidden\"")
        .skip(1)
        .map(|tag| (value_of(tag, "name"), value_of(tag, "value")))
        .collect()
}
