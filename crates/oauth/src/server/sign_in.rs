//! The begin of a sign-in: it is stored as pending, and the browser goes to Forgejo with a `state`
//! of its own.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::Response;
use secrecy::{ExposeSecret as _, SecretString};

use super::{Body, cookie::BrowserId, pages::ErrorPage, response, state::ServerState};
use crate::{
    pkce,
    records::{PendingRecord, Purpose},
    seal::Sealer,
    secret,
};

/// The time that a user has to sign in at Forgejo.
const PENDING_TTL: Duration = Duration::from_secs(10 * 60);
/// The largest number of pending sign-ins, in minutes of `sign_ins_per_minute`: all that may begin
/// within their lifetime, and a burst. A full table would lock everyone out until its sign-ins
/// expire, so a flood meets the rate limit first, which admits another sign-in after a moment.
const MAX_PENDING_MINUTES: u32 = 10 + 1;

/// Stores a pending sign-in and sends the browser to Forgejo.
pub(super) async fn begin(
    state: &ServerState,
    browser: &BrowserId,
    purpose: Purpose,
) -> Result<Response<Body>, ErrorPage> {
    let now = state.clock.now();
    let client = match &purpose {
        Purpose::Client(request) => Some(&request.client_id),
        Purpose::Connections => None,
    };
    state
        .rate_limits
        .sign_in(client)
        .map_err(|_| ErrorPage::TooManySignIns)?;
    let max_pending = state
        .settings
        .config
        .sign_ins_per_minute
        .saturating_mul(MAX_PENDING_MINUTES);
    let forgejo_state = secret::mint("");
    let forgejo_state = forgejo_state.expose_secret();
    let challenge = pkce::challenge(pkce_verifier(&state.sealer, forgejo_state).expose_secret());
    let pending = PendingRecord {
        state: secret::hash(forgejo_state),
        browser: secret::hash(browser.as_str()),
        purpose,
        expires_at: now + PENDING_TTL,
    };
    if !state.grants.insert_pending(pending, max_pending, now).await? {
        tracing::warn!(
            limit = max_pending,
            "sign-in refused: too many unfinished sign-ins (the limit derives from oauth.sign_ins_per_minute)"
        );
        return Err(ErrorPage::TooManySignIns);
    }
    let callback = state.settings.endpoint("callback");
    let url = state.upstream.authorize_url(forgejo_state, &challenge, &callback);
    Ok(response::see_other(url.as_str()))
}

/// The PKCE verifier for Forgejo. It derives from the `state`, which only Forgejo and the browser
/// have until the callback, so that it need not be stored.
pub(super) fn pkce_verifier(sealer: &Sealer, forgejo_state: &str) -> SecretString {
    URL_SAFE_NO_PAD
        .encode(sealer.keyed_hash("upstream verifier", &[forgejo_state]))
        .into()
}
