//! Approvals that a browser remembers, so that a client that signs in again does not ask its user
//! again.
//!
//! For each approval the cookie holds the user, the expiry, and a keyed hash over these and the
//! client, its redirect URI and the scope. It cannot be made or changed without the key, and it
//! does not reveal the clients of a user.
//!
//! - An approval only skips the consent page. The user still signs in at Forgejo, and at the
//!   callback must be the user who gave the approval and still have a grant for the client; else
//!   the page is shown after all. A planted cookie therefore approves nothing for another user, and
//!   ending a connection ends its approvals in all browsers.
//! - Only an `https` redirect URI of another machine is remembered. Any program on the user's
//!   device can listen on a loopback port or claim a private scheme, and pose as any client that
//!   uses them (RFC 8252 section 8.6).

use std::time::SystemTime;

use http::{HeaderMap, HeaderValue};

use super::{
    cookie::CookieKind,
    signed_user::{self, SignedUser},
    unix_time::unix_seconds,
};
use crate::{ids::UserId, records::ClientRequest, redirect_uri, seal::Sealer};

/// The approvals of a browser, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Approvals(Vec<SignedUser>);

/// The lifetime of an approval, in seconds.
const MAX_AGE: u64 = 30 * 24 * 60 * 60;
/// The largest number of approvals of a browser.
const MAX_APPROVALS: usize = 16;

const COOKIE: CookieKind = CookieKind::new("fmb-approvals", MAX_AGE);
const PURPOSE: &str = "approval";

impl Approvals {
    /// The approvals of a request. They are verified when one is looked up.
    pub(super) fn from_headers(headers: &HeaderMap, secure: bool) -> Self {
        let bytes = COOKIE
            .read(headers, secure)
            .filter(|bytes| bytes.len() <= MAX_APPROVALS * signed_user::LENGTH)
            .unwrap_or_default();
        let (entries, []) = bytes.as_chunks::<{ signed_user::LENGTH }>() else {
            return Self::default();
        };
        Self(entries.iter().filter_map(SignedUser::decode).collect())
    }

    /// The user who has approved a request in this browser.
    pub(super) fn approver(&self, sealer: &Sealer, request: &ClientRequest, now: SystemTime) -> Option<UserId> {
        if !redirect_uri::is_remote_https(&request.redirect_uri) {
            return None;
        }
        let now = unix_seconds(now);
        self.0
            .iter()
            // The upper bound keeps a clock that was wrong once from making approvals that last
            // forever.
            .filter(|approval| (now + 1..=now + MAX_AGE).contains(&approval.expires_at))
            .find(|approval| is_for(approval, sealer, request))
            .map(|approval| approval.user)
    }

    /// These and a new one, which replaces an earlier one for the same request. `None` if it must
    /// not be remembered.
    pub(super) fn with(&self, sealer: &Sealer, request: &ClientRequest, user: UserId, now: SystemTime) -> Option<Self> {
        if !redirect_uri::is_remote_https(&request.redirect_uri) {
            return None;
        }
        let expires_at = unix_seconds(now) + MAX_AGE;
        let new = SignedUser::sign(sealer, PURPOSE, (&parts(request), &[]), user, expires_at);
        let others = self.0.iter().filter(|approval| !is_for(approval, sealer, request));
        let approvals = std::iter::once(new).chain(others.cloned());
        Some(Self(approvals.take(MAX_APPROVALS).collect()))
    }

    /// The header that stores them in the browser.
    pub(super) fn set_cookie(&self, secure: bool) -> Option<HeaderValue> {
        let bytes: Vec<u8> = self.0.iter().flat_map(SignedUser::encode).collect();
        COOKIE.set(&bytes, secure)
    }
}

fn is_for(approval: &SignedUser, sealer: &Sealer, request: &ClientRequest) -> bool {
    approval.verify(sealer, PURPOSE, (&parts(request), &[]))
}

/// The parts of a request that an approval covers.
fn parts(request: &ClientRequest) -> [&str; 3] {
    [&request.client_id.0, &request.redirect_uri, &request.scope]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    use http::header;

    use super::*;
    use crate::ids::ClientId;

    const URI: &str = "https://app.example/callback";

    fn sealer() -> Sealer {
        Sealer::with_key([7; 32])
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn request(client_id: &str, redirect_uri: &str) -> ClientRequest {
        ClientRequest {
            client_id: ClientId(client_id.to_owned()),
            redirect_uri: redirect_uri.to_owned(),
            client_state: None,
            code_challenge: String::new(),
            scope: "mcp".to_owned(),
            approved_by: None,
        }
    }

    fn approved(client_id: &str) -> Approvals {
        let none = Approvals::default();
        none.with(&sealer(), &request(client_id, URI), UserId(11), now())
            .unwrap()
    }

    /// The approvals as the browser sends them back.
    fn returned(approvals: &Approvals) -> Approvals {
        let set = approvals.set_cookie(true).unwrap();
        let pair = set.to_str().unwrap().split(';').next().unwrap();
        Approvals::from_headers(&HeaderMap::from_iter([(header::COOKIE, pair.parse().unwrap())]), true)
    }

    #[test]
    fn an_approval_is_for_its_client_redirect_uri_and_scope() {
        let approvals = returned(&approved("one"));
        let approver = |request: ClientRequest| approvals.approver(&sealer(), &request, now());
        assert_eq!(approver(request("one", URI)), Some(UserId(11)));
        assert_eq!(approver(request("two", URI)), None);
        assert_eq!(approver(request("one", "https://app.example/other")), None);
        let other_scope = ClientRequest {
            scope: "mcp more".to_owned(),
            ..request("one", URI)
        };
        assert_eq!(approver(other_scope), None);
    }

    #[test]
    fn a_changed_approval_is_refused() {
        let original = approved("one");
        for at in 0..signed_user::LENGTH {
            let set = original.set_cookie(true).unwrap();
            let value = set.to_str().unwrap().split(['=', ';']).nth(1).unwrap().to_owned();
            let mut bytes = URL_SAFE_NO_PAD.decode(value).unwrap();
            bytes[at] ^= 1;
            let cookie = format!("__Host-fmb-approvals={}", URL_SAFE_NO_PAD.encode(bytes));
            let changed =
                Approvals::from_headers(&HeaderMap::from_iter([(header::COOKIE, cookie.parse().unwrap())]), true);
            assert_eq!(
                changed.approver(&sealer(), &request("one", URI), now()),
                None,
                "byte {at}"
            );
        }
        let other_key = Sealer::with_key([8; 32]);
        assert_eq!(original.approver(&other_key, &request("one", URI), now()), None);
    }

    #[test]
    fn an_approval_expires_after_thirty_days() {
        let approvals = approved("one");
        let after = |seconds| approvals.approver(&sealer(), &request("one", URI), now() + Duration::from_secs(seconds));
        assert_eq!(after(MAX_AGE - 1), Some(UserId(11)));
        assert_eq!(after(MAX_AGE), None);
    }

    #[test]
    fn a_redirect_uri_of_this_device_is_not_remembered() {
        for uri in [
            "http://127.0.0.1:4711/callback",
            "http://localhost/callback",
            "https://localhost/callback",
            "https://127.0.0.1/callback",
            "https://[::1]/callback",
            "cursor://anysphere.cursor-mcp/oauth/callback",
        ] {
            let none = Approvals::default();
            assert_eq!(
                none.with(&sealer(), &request("one", uri), UserId(11), now()),
                None,
                "{uri}"
            );
        }
    }

    #[test]
    fn a_browser_remembers_a_limited_number_and_each_once() {
        let mut approvals = Approvals::default();
        for round in 0..40 {
            let client = format!("client {}", round % 20);
            approvals = approvals
                .with(&sealer(), &request(&client, URI), UserId(11), now())
                .unwrap();
            approvals = approvals
                .with(&sealer(), &request(&client, URI), UserId(12), now())
                .unwrap();
        }
        let approvals = returned(&approvals);
        assert_eq!(approvals.0.len(), MAX_APPROVALS);
        assert_eq!(
            approvals.approver(&sealer(), &request("client 19", URI), now()),
            Some(UserId(12))
        );
        assert_eq!(approvals.approver(&sealer(), &request("client 3", URI), now()), None);
        assert!(approvals.set_cookie(true).unwrap().len() < 2048);
    }

    #[test]
    fn a_malformed_cookie_is_ignored() {
        for value in ["", "!", "AAAA", &"A".repeat(5000)] {
            let cookie = format!("fmb-approvals={value}");
            let headers = HeaderMap::from_iter([(header::COOKIE, cookie.parse().unwrap())]);
            assert_eq!(Approvals::from_headers(&headers, false), Approvals::default());
        }
    }
}
