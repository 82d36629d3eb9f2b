//! Approvals that a browser remembers, so that a client which signs in again does not ask its user again.
//!
//! The cookie holds, for each approval, who gave it, until when it counts, and a keyed hash over these and the client,
//! its redirect URI and the scope. So nobody can make or change one without the key, and the cookie does not say which
//! clients a user has.
//!
//! What an approval is good for:
//!
//! - It only saves the question. Where it is used, the user still signs in at Forgejo, and at the callback it must be
//!   the user who gave it, who must still have a grant for the client; else the question is asked after all. So a
//!   cookie that somebody planted approves nothing for anyone else, and ending a connection ends its approvals in all
//!   browsers.
//! - Only an `https` redirect URI of another machine is remembered. Whatever runs on the user's device can listen on a
//!   loopback port or claim a private scheme, and pose as any client that uses them (RFC 8252 section 8.6).

use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue};
use url::Url;

use super::cookie::CookieKind;
use crate::{ids::UserId, redirect_uri, seal::Sealer};

/// What is approved.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub(super) client_id: &'a str,
    pub(super) redirect_uri: &'a str,
    pub(super) scope: &'a str,
}

/// The approvals of a browser, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Approvals(Vec<Approval>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Approval {
    user: UserId,
    expires_at: u64,
    hash: [u8; 32],
}

/// How long an approval counts, in seconds.
const MAX_AGE: u64 = 30 * 24 * 60 * 60;
/// How many a browser remembers.
const MAX_COUNT: usize = 16;
/// The bytes of one.
const LENGTH: usize = 8 + 8 + 32;

const COOKIE: CookieKind = CookieKind::new("fmb-approvals", MAX_AGE);
const PURPOSE: &str = "approval";

impl Approvals {
    /// Those that a request brings. Whether they are genuine shows only when one is looked for.
    pub(super) fn of(headers: &HeaderMap, secure: bool) -> Self {
        let bytes = COOKIE
            .read(headers, secure)
            .filter(|value| value.len() <= MAX_COUNT * LENGTH * 4 / 3)
            .and_then(|value| URL_SAFE_NO_PAD.decode(value).ok())
            .unwrap_or_default();
        let (entries, []) = bytes.as_chunks::<LENGTH>() else {
            return Self::default();
        };
        Self(entries.iter().filter_map(Approval::read).collect())
    }

    /// Who has approved this here, if anyone has.
    pub(super) fn approver(&self, sealer: &Sealer, subject: Subject<'_>, now: SystemTime) -> Option<UserId> {
        if !may_be_remembered(subject.redirect_uri) {
            return None;
        }
        let now = seconds(now);
        self.0
            .iter()
            // The upper bound as well: a clock that was wrong once must not make approvals for ever.
            .filter(|approval| (now + 1..=now + MAX_AGE).contains(&approval.expires_at))
            .find(|approval| approval.is_for(sealer, subject))
            .map(|approval| approval.user)
    }

    /// These and one more, in the place of an earlier one for the same. `None` if it is not to be remembered.
    pub(super) fn with(&self, sealer: &Sealer, subject: Subject<'_>, user: UserId, now: SystemTime) -> Option<Self> {
        if !may_be_remembered(subject.redirect_uri) {
            return None;
        }
        let expires_at = seconds(now) + MAX_AGE;
        let hash = sealer.keyed_hash(PURPOSE, &parts(subject, &user.to_string(), &expires_at.to_string()));
        let new = Approval { user, expires_at, hash };
        let others = self
            .0
            .iter()
            .filter(|approval| !approval.is_for(sealer, subject))
            .cloned();
        Some(Self(std::iter::once(new).chain(others).take(MAX_COUNT).collect()))
    }

    /// The header that has the browser remember them.
    pub(super) fn set_cookie(&self, secure: bool) -> Option<HeaderValue> {
        let mut bytes = Vec::with_capacity(self.0.len() * LENGTH);
        for approval in &self.0 {
            bytes.extend_from_slice(&approval.user.0.to_be_bytes());
            bytes.extend_from_slice(&approval.expires_at.to_be_bytes());
            bytes.extend_from_slice(&approval.hash);
        }
        COOKIE.set(&URL_SAFE_NO_PAD.encode(bytes), secure)
    }
}

impl Approval {
    fn read(bytes: &[u8; LENGTH]) -> Option<Self> {
        let (user, rest) = bytes.split_first_chunk::<8>()?;
        let (expires_at, hash) = rest.split_first_chunk::<8>()?;
        Some(Self {
            user: UserId(i64::from_be_bytes(*user)),
            expires_at: u64::from_be_bytes(*expires_at),
            hash: hash.try_into().ok()?,
        })
    }

    fn is_for(&self, sealer: &Sealer, subject: Subject<'_>) -> bool {
        let (user, expires_at) = (self.user.to_string(), self.expires_at.to_string());
        sealer.verifies(PURPOSE, &parts(subject, &user, &expires_at), &self.hash)
    }
}

fn parts<'a>(subject: Subject<'a>, user: &'a str, expires_at: &'a str) -> [&'a str; 5] {
    [subject.client_id, subject.redirect_uri, subject.scope, user, expires_at]
}

fn may_be_remembered(uri: &str) -> bool {
    Url::parse(uri).is_ok_and(|url| url.scheme() == "https" && !redirect_uri::is_loopback(&url))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs()
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    const URI: &str = "https://app.example/callback";

    fn sealer() -> Sealer {
        Sealer::with_key([7; 32])
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn subject<'a>(client_id: &'a str, redirect_uri: &'a str) -> Subject<'a> {
        Subject {
            client_id,
            redirect_uri,
            scope: "mcp",
        }
    }

    fn approved(client_id: &str) -> Approvals {
        let none = Approvals::default();
        none.with(&sealer(), subject(client_id, URI), UserId(11), now())
            .unwrap()
    }

    /// Through the browser and back.
    fn returned(approvals: &Approvals) -> Approvals {
        let set = approvals.set_cookie(true).unwrap();
        let pair = set.to_str().unwrap().split(';').next().unwrap();
        Approvals::of(&HeaderMap::from_iter([(header::COOKIE, pair.parse().unwrap())]), true)
    }

    #[test]
    fn an_approval_is_for_its_client_redirect_uri_and_scope() {
        let approvals = returned(&approved("one"));
        let approver = |subject| approvals.approver(&sealer(), subject, now());
        assert_eq!(approver(subject("one", URI)), Some(UserId(11)));
        assert_eq!(approver(subject("two", URI)), None);
        assert_eq!(approver(subject("one", "https://app.example/other")), None);
        let wider = Subject {
            scope: "mcp more",
            ..subject("one", URI)
        };
        assert_eq!(approver(wider), None);
    }

    #[test]
    fn nobody_can_change_one() {
        let genuine = approved("one");
        for at in 0..LENGTH {
            let set = genuine.set_cookie(true).unwrap();
            let value = set.to_str().unwrap().split(['=', ';']).nth(1).unwrap().to_owned();
            let mut bytes = URL_SAFE_NO_PAD.decode(value).unwrap();
            bytes[at] ^= 1;
            let cookie = format!("__Host-fmb-approvals={}", URL_SAFE_NO_PAD.encode(bytes));
            let changed = Approvals::of(&HeaderMap::from_iter([(header::COOKIE, cookie.parse().unwrap())]), true);
            assert_eq!(
                changed.approver(&sealer(), subject("one", URI), now()),
                None,
                "byte {at}"
            );
        }
        let other_key = Sealer::with_key([8; 32]);
        assert_eq!(genuine.approver(&other_key, subject("one", URI), now()), None);
    }

    #[test]
    fn it_counts_for_thirty_days() {
        let approvals = approved("one");
        let after = |seconds| approvals.approver(&sealer(), subject("one", URI), now() + Duration::from_secs(seconds));
        assert_eq!(after(MAX_AGE - 1), Some(UserId(11)));
        assert_eq!(after(MAX_AGE), None);
    }

    #[test]
    fn what_may_lead_to_any_program_of_the_device_is_not_remembered() {
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
                none.with(&sealer(), subject("one", uri), UserId(11), now()),
                None,
                "{uri}"
            );
        }
    }

    #[test]
    fn a_browser_remembers_a_few_and_each_once() {
        let mut approvals = Approvals::default();
        for round in 0..40 {
            let client = format!("client {}", round % 20);
            approvals = approvals
                .with(&sealer(), subject(&client, URI), UserId(11), now())
                .unwrap();
            approvals = approvals
                .with(&sealer(), subject(&client, URI), UserId(12), now())
                .unwrap();
        }
        let approvals = returned(&approvals);
        assert_eq!(approvals.0.len(), MAX_COUNT);
        assert_eq!(
            approvals.approver(&sealer(), subject("client 19", URI), now()),
            Some(UserId(12))
        );
        assert_eq!(approvals.approver(&sealer(), subject("client 3", URI), now()), None);
        assert!(approvals.set_cookie(true).unwrap().len() < 2048);
    }

    #[test]
    fn a_cookie_of_another_form_is_none() {
        for value in ["", "!", "AAAA", &"A".repeat(5000)] {
            let cookie = format!("fmb-approvals={value}");
            let headers = HeaderMap::from_iter([(header::COOKIE, cookie.parse().unwrap())]);
            assert_eq!(Approvals::of(&headers, false), Approvals::default());
        }
    }
}
