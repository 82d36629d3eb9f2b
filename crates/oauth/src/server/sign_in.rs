//! The way to Forgejo: a sign-in is kept as pending, and the browser is sent on with a state of its own.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::Response;
use secrecy::{ExposeSecret as _, SecretString};

use super::{
    Body, Inner,
    cookie::BrowserId,
    pages::{self, Trouble},
    respond,
};
use crate::{
    pkce,
    ports::PendingCaps,
    records::{PendingRecord, Purpose},
    seal::Sealer,
    secret,
};

/// How long a sign-in at Forgejo may take.
const PENDING_TTL: Duration = Duration::from_secs(10 * 60);
/// How many sign-ins may be under way.
const CAPS: PendingCaps = PendingCaps {
    all: 10_000,
    of_client: 1_000,
};

/// Keeps the sign-in and sends the browser to Forgejo.
pub(super) async fn begin(inner: &Inner, browser: &BrowserId, purpose: Purpose) -> Response<Body> {
    let accounts = &inner.accounts;
    let now = accounts.clock.now();
    let state = secret::mint("");
    let state = state.expose_secret();
    let challenge = pkce::challenge(verifier(&accounts.sealer, state).expose_secret());
    let pending = PendingRecord {
        state: secret::hash(state),
        browser: secret::hash(browser.as_str()),
        purpose,
        expires_at: now + PENDING_TTL,
    };
    match inner.store().insert_pending(pending, CAPS, now).await {
        Ok(true) => {
            let url = accounts
                .upstream
                .authorize_url(state, &challenge, &inner.callback_uri());
            respond::see_other(url.as_str())
        }
        Ok(false) => {
            tracing::warn!(caps = ?CAPS, "too many sign-ins are under way");
            pages::trouble(Trouble::Busy)
        }
        Err(error) => {
            respond::log_store(&error);
            pages::trouble(Trouble::Store)
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
