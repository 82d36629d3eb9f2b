//! The way to Forgejo: a sign-in is kept as pending, and the browser is sent on with a state of its own.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::Response;
use secrecy::{ExposeSecret as _, SecretString};

use super::{
    Body, ServerState,
    cookie::BrowserId,
    pages::{self, ErrorPage},
    rate_limits::TooManySignIns,
    response,
};
use crate::{
    pkce,
    records::{PendingRecord, Purpose},
    seal::Sealer,
    secret,
};

/// How long a sign-in at Forgejo may take.
const PENDING_TTL: Duration = Duration::from_secs(10 * 60);
/// How many minutes' worth of sign-ins may be under way: all that may begin within that time, and those that may begin at
/// once. A table that is full would keep everyone out until they have run out; so what a flood meets is the ceiling of
/// those that begin, which lets one in again after a moment.
const MINUTES: u32 = 10 + 1;
/// Keeps the sign-in and sends the browser to Forgejo.
pub(super) async fn begin(inner: &ServerState, browser: &BrowserId, purpose: Purpose) -> Response<Body> {
    let now = inner.clock.now();
    let client = match &purpose {
        Purpose::Client(request) => Some(&request.client_id),
        Purpose::Connections => None,
    };
    if let Err(TooManySignIns) = inner.rate_limits.sign_in(client, now) {
        return pages::error(ErrorPage::Busy);
    }
    let cap = inner.settings.sign_ins_per_minute.saturating_mul(MINUTES);
    let state = secret::mint("");
    let state = state.expose_secret();
    let challenge = pkce::challenge(verifier(&inner.sealer, state).expose_secret());
    let pending = PendingRecord {
        state: secret::hash(state),
        browser: secret::hash(browser.as_str()),
        purpose,
        expires_at: now + PENDING_TTL,
    };
    match inner.grants.insert_pending(pending, cap, now).await {
        Ok(true) => {
            let url = inner.upstream.authorize_url(state, &challenge, &inner.callback_uri());
            response::see_other(url.as_str())
        }
        Ok(false) => {
            tracing::warn!(cap, "too many sign-ins are under way");
            pages::error(ErrorPage::Busy)
        }
        Err(error) => {
            response::log_store(&error);
            pages::error(ErrorPage::Store)
        }
    }
}

/// The PKCE verifier for Forgejo. It is derived from the state, which only Forgejo and the browser have until the
/// callback, so that it need not be stored.
pub(super) fn verifier(sealer: &Sealer, state: &str) -> SecretString {
    URL_SAFE_NO_PAD
        .encode(sealer.keyed_hash("upstream verifier", &[state]))
        .into()
}
