//! A callback without a code: the user declined at Forgejo, or Forgejo sent an error. The client is
//! told, as far as its request is known.

use bytes::Bytes;
use http::{Request, Response};

use super::{error::SignInError, take_pending};
use crate::{
    records::Purpose,
    secret,
    server::{Body, cookie::BrowserId, pages::ErrorPage, params::Params, state::ServerState},
};

/// The response to a callback without a code: a redirect to the client with `access_denied`, or
/// with `server_error` if Forgejo sent another error (RFC 6749 section 4.1.2.1).
pub(super) async fn declined(
    state: &ServerState,
    request: &Request<Bytes>,
    params: &Params,
) -> Result<Response<Body>, ErrorPage> {
    let error = params.value("error");
    // The error may be any text, so that it is not logged.
    let denied = matches!(error, None | Some("access_denied"));
    if denied {
        tracing::info!("sign-in declined by the user at Forgejo");
    } else {
        tracing::warn!("sign-in failed: Forgejo returned an error (check [forgejo])");
    }
    let browser = BrowserId::from_headers(request.headers(), state.settings.secure);
    let purpose = match (params.value("state"), browser) {
        (Some(forgejo_state), Some(browser)) => take_pending(state, forgejo_state, &browser).await?.purpose,
        (Some(_), None) => return Err(ErrorPage::OtherBrowser),
        (None, browser) => {
            let only = only_sign_in(state, browser.as_ref()).await?;
            only.ok_or(if error.is_some() {
                ErrorPage::UpstreamRefused
            } else {
                ErrorPage::SignInOver
            })?
        }
    };
    Ok(SignInError::Forgejo { denied }.into_response(state, &purpose))
}

/// The sign-in that is under way in a browser, if there is exactly one. It stays under way: any
/// page can lead a browser here, and must not be able to end a sign-in.
async fn only_sign_in(state: &ServerState, browser: Option<&BrowserId>) -> Result<Option<Purpose>, ErrorPage> {
    let Some(browser) = browser else {
        return Ok(None);
    };
    let browser = secret::hash(browser.as_str());
    let pending = state.grants.only_pending(browser, state.clock.now()).await?;
    Ok(pending.map(|pending| pending.purpose))
}
