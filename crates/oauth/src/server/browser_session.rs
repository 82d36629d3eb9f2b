//! The session of a user in a browser, for *Your connections*: a signed cookie, bound to the
//! browser's identifier. The server stores nothing of it.

use std::time::SystemTime;

use http::{HeaderMap, HeaderValue};

use super::{
    cookie::{BrowserId, CookieKind},
    signed_user::{self, Context, SignedUser},
    state::ServerState,
    unix_time::unix_seconds,
};
use crate::{ids::UserId, seal::Sealer};

/// A user in a browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BrowserSession {
    pub(super) user: UserId,
    pub(super) login: String,
}

/// The lifetime of a session, in seconds.
const MAX_AGE: u64 = 15 * 60;
const COOKIE: CookieKind = CookieKind::new("fmb-connections", MAX_AGE);
const PURPOSE: &str = "connections session";

impl BrowserSession {
    /// The session of a request, if it is valid in this browser and its user may still use this
    /// server.
    pub(super) fn from_request(state: &ServerState, headers: &HeaderMap, browser: &BrowserId) -> Option<Self> {
        let value = COOKIE.read(headers, state.settings.secure)?;
        Self::open(&state.sealer, browser, &value, state.clock.now())
            .filter(|session| state.settings.still_allows(&session.login))
    }

    /// The header that starts the session in a browser.
    pub(super) fn set_cookie(&self, state: &ServerState, browser: &BrowserId) -> Option<HeaderValue> {
        let value = self.seal(&state.sealer, browser, state.clock.now());
        COOKIE.set(&value, state.settings.secure)
    }

    /// The header that ends the session of a browser.
    pub(super) fn clear_cookie(secure: bool) -> Option<HeaderValue> {
        COOKIE.clear(secure)
    }

    fn seal(&self, sealer: &Sealer, browser: &BrowserId, now: SystemTime) -> Vec<u8> {
        let expires_at = unix_seconds(now) + MAX_AGE;
        let context: Context<'_> = (&[browser.as_str()], &[&self.login]);
        let signed = SignedUser::sign(sealer, PURPOSE, context, self.user, expires_at);
        [signed.encode(), self.login.as_bytes().to_vec()].concat()
    }

    fn open(sealer: &Sealer, browser: &BrowserId, bytes: &[u8], now: SystemTime) -> Option<Self> {
        let (signed, login) = bytes.split_first_chunk::<{ signed_user::LENGTH }>()?;
        let (signed, login) = (SignedUser::decode(signed)?, std::str::from_utf8(login).ok()?);
        let is_valid = signed.verify(sealer, PURPOSE, (&[browser.as_str()], &[login]));
        (is_valid && unix_seconds(now) < signed.expires_at).then(|| Self {
            user: signed.user,
            login: login.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    use http::header;

    use super::*;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    #[test]
    fn a_session_is_valid_in_its_browser_until_it_expires_and_only_unchanged() {
        let (sealer, browser) = (Sealer::with_key([7; 32]), BrowserId::mint());
        let session = BrowserSession {
            user: UserId(11),
            login: "alice".to_owned(),
        };
        let value = session.seal(&sealer, &browser, now());
        let open = BrowserSession::open;
        assert_eq!(open(&sealer, &browser, &value, now()), Some(session));
        assert_eq!(open(&sealer, &BrowserId::mint(), &value, now()), None);
        assert_eq!(open(&Sealer::with_key([8; 32]), &browser, &value, now()), None);
        let last = now() + Duration::from_secs(MAX_AGE - 1);
        assert!(open(&sealer, &browser, &value, last).is_some());
        assert_eq!(open(&sealer, &browser, &value, last + Duration::from_secs(1)), None);
        for at in 0..value.len() {
            let mut changed = value.clone();
            changed[at] ^= 1;
            assert_eq!(open(&sealer, &browser, &changed, now()), None, "byte {at}");
            assert_eq!(open(&sealer, &browser, &value[..at], now()), None, "cut at {at}");
        }
    }

    /// The order of the hashed parts is written out here, so that a change of it fails the test.
    #[test]
    fn a_cookie_of_an_earlier_version_stays_valid() {
        let (sealer, browser) = (Sealer::with_key([7; 32]), BrowserId::mint());
        let parts = [browser.as_str(), "11", "1800000900", "alice"];
        let hash = sealer.keyed_hash("connections session", &parts);
        let bytes = [
            &11_i64.to_be_bytes()[..],
            &1_800_000_900_u64.to_be_bytes(),
            &hash,
            b"alice",
        ]
        .concat();
        let cookie = format!("fmb-connections={}", URL_SAFE_NO_PAD.encode(bytes));
        let headers = HeaderMap::from_iter([(header::COOKIE, cookie.parse().unwrap())]);
        let value = COOKIE.read(&headers, false).unwrap();
        let session = BrowserSession {
            user: UserId(11),
            login: "alice".to_owned(),
        };
        assert_eq!(
            BrowserSession::open(&sealer, &browser, &value, now()),
            Some(session.clone())
        );
        assert_eq!(session.seal(&sealer, &browser, now()), value);
    }
}
