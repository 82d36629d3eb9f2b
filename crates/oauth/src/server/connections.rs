//! Your connections: a user sees which clients have a grant, and ends any of them.
//!
//! Who the user is they show by the same sign-in at Forgejo as for a client (state, PKCE, the cookie of the browser),
//! which here ends in a short session of this browser in place of a code. The session is a signed cookie, bound to the
//! cookie of the browser: nothing of it is stored, and it allows nothing but this page. Changes are POSTs with a keyed
//! hash over the browser and the session, so that no other site can make them.

use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use url::Url;

use super::{
    Body, ServerState,
    cookie::{BrowserId, CookieKind},
    pages::{self, Connection, ErrorPage},
    params::Params,
    response, same_origin, sign_in,
};
use crate::{
    ids::{GrantId, UserId},
    ports::StoreError,
    records::Purpose,
    seal::Sealer,
};

/// A user in a browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BrowserSession {
    user: UserId,
    login: String,
    /// In seconds since 1970.
    expires_at: u64,
}

/// How long a session lasts, in seconds.
const MAX_AGE: u64 = 15 * 60;
const COOKIE: CookieKind = CookieKind::new("fmb-connections", MAX_AGE);

/// Purposes of keyed hashes.
const SESSION: &str = "connections session";
const FORM: &str = "connections form";

/// `GET`: shows the page, or the way to it.
pub(super) async fn show(inner: &ServerState, request: &Request<Bytes>) -> Response<Body> {
    let secure = inner.settings.secure;
    let browser = BrowserId::of(request.headers(), secure).unwrap_or_else(BrowserId::mint);
    let session = BrowserSession::of(inner, request.headers(), &browser);
    let csrf = URL_SAFE_NO_PAD.encode(inner.sealer.keyed_hash(FORM, &form_parts(&browser, session.as_ref())));
    let mut response = match session {
        None => pages::connect(inner, &csrf),
        Some(session) => match connections(inner, session.user).await {
            Ok(connections) => {
                let ended = request.uri().query() == Some("ended");
                pages::connections(inner, &session.login, &csrf, ended, connections)
            }
            Err(error) => {
                response::log_store(&error);
                pages::error(ErrorPage::Store)
            }
        },
    };
    if let Some(cookie) = browser.set_cookie(secure) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// `POST`: the user wants something.
pub(super) async fn act(inner: &ServerState, request: &Request<Bytes>) -> Response<Body> {
    if !same_origin::is_own_form(inner, request.headers()) {
        return pages::error(ErrorPage::OtherSite);
    }
    let Ok(params) = Params::of_form(request) else {
        return pages::error(ErrorPage::BadRequest);
    };
    let Some(browser) = BrowserId::of(request.headers(), inner.settings.secure) else {
        return pages::error(ErrorPage::OtherBrowser);
    };
    let session = BrowserSession::of(inner, request.headers(), &browser);
    let seal = URL_SAFE_NO_PAD.decode(params.value("csrf").unwrap_or_default());
    let parts = form_parts(&browser, session.as_ref());
    if !seal.is_ok_and(|seal| inner.sealer.verifies(FORM, &parts, &seal)) {
        return pages::error(ErrorPage::OldPage);
    }
    let here = inner.connections_uri();
    let outcome = match (params.value("action"), session) {
        (Some("sign-in"), _) => return sign_in::begin(inner, &browser, Purpose::Connections).await,
        (Some("sign-out"), _) => {
            let mut response = response::see_other(&here);
            if let Some(cookie) = COOKIE.clear(inner.settings.secure) {
                response.headers_mut().append(header::SET_COOKIE, cookie);
            }
            return response;
        }
        (Some("end"), Some(session)) => end(inner, &session, params.value("grant").unwrap_or_default()).await,
        (Some("end-all"), Some(session)) => end_all(inner, &session).await,
        // The session has run out since the page was made: the page says what to do.
        (Some("end" | "end-all"), None) => return response::see_other(&here),
        (Some(_) | None, _) => return pages::error(ErrorPage::BadRequest),
    };
    match outcome {
        Ok(()) => response::see_other(&format!("{here}?ended")),
        Err(error) => {
            response::log_store(&error);
            pages::error(ErrorPage::Store)
        }
    }
}

/// Ends a grant of the user. One that is not there, or not theirs, is left alone without a word.
async fn end(inner: &ServerState, session: &BrowserSession, grant: &str) -> Result<(), StoreError> {
    let grant = GrantId(grant.to_owned());
    let grants = inner.grants.grants_of_user(session.user).await?;
    if grants.iter().any(|summary| summary.grant.id == grant) {
        inner.revocations.end_grant(grant.clone()).await?;
        tracing::info!(user = session.user.0, grant = grant.0, "grant ended by its user");
    }
    Ok(())
}

async fn end_all(inner: &ServerState, session: &BrowserSession) -> Result<(), StoreError> {
    inner.revocations.end_user(session.user).await?;
    tracing::info!(user = session.user.0, "all grants ended by their user");
    Ok(())
}

async fn connections(inner: &ServerState, user: UserId) -> Result<Vec<Connection>, StoreError> {
    let mut connections = Vec::new();
    for summary in inner.grants.grants_of_user(user).await? {
        let grant = summary.grant;
        let client = inner.known_client(&grant.client_id).await?;
        let (name, domain) = client.map_or((None, None), |client| (client.name, client.domain));
        // The identifier of a client with a document is its URL, which was fetched when the user said yes.
        let domain = domain.or_else(|| {
            let url = Url::parse(&grant.client_id.0).ok()?;
            (url.scheme() == "https").then_some(url.host_str()?.to_owned())
        });
        connections.push(Connection {
            name: name.unwrap_or_else(|| "An application without a name".to_owned()),
            domain,
            created_at: summary.created_at,
            last_used_at: summary.last_used_at,
            sessions: inner.events.sessions(&grant.id),
            grant: grant.id.0,
        });
    }
    Ok(connections)
}

impl BrowserSession {
    /// A session of a user who has just signed in.
    pub(super) fn begin(user: UserId, login: &str, now: SystemTime) -> Self {
        Self {
            user,
            login: login.to_owned(),
            expires_at: seconds(now) + MAX_AGE,
        }
    }

    /// Sends the browser to its page.
    pub(super) fn open_page(&self, inner: &ServerState, browser: &BrowserId) -> Response<Body> {
        let mut response = response::see_other(&inner.connections_uri());
        let value = self.seal(&inner.sealer, browser);
        if let Some(cookie) = COOKIE.set(&value, inner.settings.secure) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        response
    }

    /// The one of a request, if it is good in this browser and its user may still use this server.
    fn of(inner: &ServerState, headers: &HeaderMap, browser: &BrowserId) -> Option<Self> {
        let value = COOKIE.read(headers, inner.settings.secure)?;
        let now = inner.clock.now();
        Self::open(&inner.sealer, browser, value, now).filter(|session| inner.still_allowed(&session.login))
    }

    fn seal(&self, sealer: &Sealer, browser: &BrowserId) -> String {
        let (user, expires_at) = (self.user.to_string(), self.expires_at.to_string());
        let hash = sealer.keyed_hash(SESSION, &[browser.as_str(), &user, &expires_at, &self.login]);
        let mut bytes = Vec::with_capacity(8 + 8 + 32 + self.login.len());
        bytes.extend_from_slice(&self.user.0.to_be_bytes());
        bytes.extend_from_slice(&self.expires_at.to_be_bytes());
        bytes.extend_from_slice(&hash);
        bytes.extend_from_slice(self.login.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn open(sealer: &Sealer, browser: &BrowserId, value: &str, now: SystemTime) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(value).ok()?;
        let (user, rest) = bytes.split_first_chunk::<8>()?;
        let (expires_at, rest) = rest.split_first_chunk::<8>()?;
        let (hash, login) = rest.split_first_chunk::<32>()?;
        let session = Self {
            user: UserId(i64::from_be_bytes(*user)),
            login: String::from_utf8(login.to_vec()).ok()?,
            expires_at: u64::from_be_bytes(*expires_at),
        };
        let (user, expires_at) = (session.user.to_string(), session.expires_at.to_string());
        let parts = [browser.as_str(), &user, &expires_at, &session.login];
        (sealer.verifies(SESSION, &parts, hash) && seconds(now) < session.expires_at).then_some(session)
    }
}

/// What a form of the page is bound to.
fn form_parts<'a>(browser: &'a BrowserId, session: Option<&'a BrowserSession>) -> [&'a str; 2] {
    [browser.as_str(), session.map_or("", |session| session.login.as_str())]
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    #[test]
    fn a_session_is_good_in_its_browser_for_its_time_and_unchanged() {
        let (sealer, browser) = (Sealer::with_key([7; 32]), BrowserId::mint());
        let session = BrowserSession::begin(UserId(11), "alice", now());
        let value = session.seal(&sealer, &browser);
        assert_eq!(BrowserSession::open(&sealer, &browser, &value, now()), Some(session));
        assert_eq!(BrowserSession::open(&sealer, &BrowserId::mint(), &value, now()), None);
        assert_eq!(
            BrowserSession::open(&Sealer::with_key([8; 32]), &browser, &value, now()),
            None
        );
        let later = now() + Duration::from_secs(MAX_AGE);
        assert_eq!(BrowserSession::open(&sealer, &browser, &value, later), None);
        let bytes = URL_SAFE_NO_PAD.decode(&value).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let changed = URL_SAFE_NO_PAD.encode(changed);
            assert_eq!(
                BrowserSession::open(&sealer, &browser, &changed, now()),
                None,
                "byte {at}"
            );
            let cut = URL_SAFE_NO_PAD.encode(&bytes[..at]);
            assert_eq!(
                BrowserSession::open(&sealer, &browser, &cut, now()),
                None,
                "cut at {at}"
            );
        }
    }
}
