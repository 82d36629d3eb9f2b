//! The callback: the browser returns from Forgejo, and the sign-in is completed.
//!
//! The sign-in runs on its own task from the code exchange on (see `complete`). The exchange
//! invalidates the user's former refresh token, so the new tokens must reach the store even if the
//! browser goes away.

mod complete;
mod declined;
mod error;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::timeout;

use super::{
    Body, approvals::Approvals, authorization_response, cookie::BrowserId, pages::ErrorPage, params::Params, response,
    sign_in, state::ServerState,
};
use crate::{
    ids::UserId,
    ports::PendingLookup,
    records::{ClientRequest, PendingRecord},
    secret,
};
use complete::CompletedSignIn;
use error::SignInError;

/// The longest time for which a browser waits for its sign-in.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// The parameters that Forgejo sends.
const PARAMS: [&str; 3] = ["state", "code", "error"];

/// `GET`: the browser returns.
pub(super) async fn callback(state: &Arc<ServerState>, request: &Request<Bytes>) -> Result<Response<Body>, ErrorPage> {
    let params = Params::from_query(request, &PARAMS)?;
    let code = match (params.value("code"), params.value("error")) {
        (Some(code), None) => SecretString::from(code.to_owned()),
        (_, Some(_)) | (None, None) => return declined::declined(state, request, &params).await,
    };
    let forgejo_state = params.value("state").ok_or(ErrorPage::SignInOver)?;
    // Before the state is spent, so that the user can load the page again.
    let permit = state.code_exchanges.try_acquire().ok_or_else(|| {
        tracing::warn!(
            "sign-in delayed: too many code exchanges with Forgejo are running; the user can reload the page"
        );
        ErrorPage::TooManySignIns
    })?;
    let browser = BrowserId::from_headers(request.headers(), state.settings.secure).ok_or(ErrorPage::OtherBrowser)?;
    let pending = take_pending(state, forgejo_state, &browser).await?;
    let purpose = pending.purpose;
    let verifier = sign_in::pkce_verifier(&state.sealer, forgejo_state);
    let task = {
        let (state, purpose) = (Arc::clone(state), purpose.clone());
        async move {
            let _permit = permit;
            let complete = async |exchange| complete::complete(&state, exchange, purpose, code, verifier).await;
            state.code_exchanges.run(complete).await
        }
    };
    // The task goes on when the browser has left or got an answer.
    let completed = match timeout(ANSWER_TIMEOUT, state.tasks.spawn(task)).await {
        Ok(completed) => completed.unwrap_or_else(|error| {
            tracing::error!(%error, "sign-in failed: its task panicked, which is a bug");
            Err(SignInError::Forgejo { denied: false })
        }),
        Err(_elapsed) => Err(SignInError::TooSlow),
    };
    Ok(match completed {
        Ok(CompletedSignIn::Code {
            code,
            user,
            request: client_request,
        }) => {
            let params = [("code", code.expose_secret())];
            let location = authorization_response::location(state.settings.issuer(), &client_request, &params);
            let cookie = approval_cookie(state, request, &client_request, user);
            response::with_cookie(response::see_other(&location), cookie)
        }
        Ok(CompletedSignIn::Session(session)) => {
            let response = response::see_other(&state.settings.endpoint("connections"));
            response::with_cookie(response, session.set_cookie(state, &browser))
        }
        Err(error) => error.into_response(state, &purpose),
    })
}

async fn take_pending(
    state: &ServerState,
    forgejo_state: &str,
    browser: &BrowserId,
) -> Result<PendingRecord, ErrorPage> {
    let (hash, browser) = (secret::hash(forgejo_state), secret::hash(browser.as_str()));
    match state.grants.take_pending(hash, browser, state.clock.now()).await? {
        PendingLookup::Found(pending) => Ok(*pending),
        PendingLookup::OtherBrowser => {
            tracing::warn!("sign-in refused: it began in another browser; the user must start again");
            Err(ErrorPage::OtherBrowser)
        }
        PendingLookup::NotFound => Err(ErrorPage::SignInOver),
    }
}

/// The cookie that remembers an approval. One that was remembered before keeps its expiry.
fn approval_cookie(
    state: &ServerState,
    request: &Request<Bytes>,
    client_request: &ClientRequest,
    user: UserId,
) -> Option<HeaderValue> {
    if client_request.approved_by.is_some() {
        return None;
    }
    let secure = state.settings.secure;
    Approvals::from_headers(request.headers(), secure)
        .with(&state.sealer, client_request, user, state.clock.now())?
        .set_cookie(secure)
}
