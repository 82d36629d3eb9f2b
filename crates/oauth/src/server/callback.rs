//! The callback: the browser comes back from Forgejo, and the sign-in is brought to its end.
//!
//! From the code exchange on the sign-in runs on a task of its own (see `finish`): the exchange kills the user's former
//! refresh token, so that the new pair must reach the store even if the browser goes away.

mod complete;

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, header};
use secrecy::{ExposeSecret as _, SecretString};

use super::{
    Body, ServerState,
    approvals::{Approvals, Subject},
    authorize::{self, client_location, to_client},
    connections::BrowserSession,
    cookie::BrowserId,
    pages::{self, ErrorPage},
    params::Params,
    response, sign_in,
};
use crate::{
    ids::UserId,
    ports::PendingLookup,
    records::{ClientRequest, Purpose},
    secret,
};
use complete::{CompletedSignIn, SignInError};

/// `GET`: the browser is back.
pub(super) async fn callback(inner: &Arc<ServerState>, request: &Request<Bytes>) -> Response<Body> {
    let Ok(params) = Params::of_query(request) else {
        return pages::error(ErrorPage::BadRequest);
    };
    let Some(state) = params.value("state") else {
        return pages::error(ErrorPage::NoPending);
    };
    // Before the state is spent, so that the user can load the page again.
    let Some(slot) = inner.code_exchanges.try_acquire() else {
        tracing::warn!("too many sign-ins are talking to Forgejo");
        return pages::error(ErrorPage::Busy);
    };
    let Some(browser) = BrowserId::of(request.headers(), inner.settings.secure) else {
        return pages::error(ErrorPage::OtherBrowser);
    };
    let now = inner.clock.now();
    let own = secret::hash(browser.as_str());
    let pending = match inner.grants.take_pending(secret::hash(state), own, now).await {
        Ok(PendingLookup::Found(pending)) => pending,
        Ok(PendingLookup::OtherBrowser) => {
            tracing::warn!("a sign-in came back in another browser than it began in");
            return pages::error(ErrorPage::OtherBrowser);
        }
        Ok(PendingLookup::NotFound) => return pages::error(ErrorPage::NoPending),
        Err(error) => {
            response::log_store(&error);
            return pages::error(ErrorPage::Store);
        }
    };
    if let Some(error) = params.value("error") {
        // Forgejo's words are for its own log: its error may be anything.
        tracing::warn!(denied = error == "access_denied", "Forgejo refused an authorization");
        return SignInError::AtForgejo {
            denied: error == "access_denied",
        }
        .into_response(inner, &pending.purpose);
    }
    let Some(code) = params.value("code") else {
        return SignInError::AtForgejo { denied: false }.into_response(inner, &pending.purpose);
    };
    let code = SecretString::from(code.to_owned());
    let verifier = sign_in::verifier(&inner.sealer, state);
    let task = complete::finish(Arc::clone(inner), slot, pending.purpose.clone(), code, verifier);
    match inner.tasks.spawn(task).await {
        Ok(Ok(CompletedSignIn::Code {
            code,
            user,
            request: of,
        })) => {
            let mut response = to_client(
                inner,
                &of.redirect_uri,
                of.client_state.as_deref(),
                &[("code", code.expose_secret())],
            );
            remember(inner, request, &of, user, &mut response);
            response
        }
        Ok(Ok(CompletedSignIn::User { user, login })) => {
            let session = BrowserSession::begin(user, &login, now);
            session.open_page(inner, &browser)
        }
        Ok(Err(failure)) => failure.into_response(inner, &pending.purpose),
        Err(error) => {
            tracing::error!(%error, "a sign-in broke off");
            SignInError::AtForgejo { denied: false }.into_response(inner, &pending.purpose)
        }
    }
}

/// Has the browser remember an approval that was given just now. One that was remembered before ends in its time.
fn remember(
    inner: &ServerState,
    request: &Request<Bytes>,
    of: &ClientRequest,
    user: UserId,
    response: &mut Response<Body>,
) {
    if of.approved_by.is_some() {
        return;
    }
    let subject = Subject {
        client_id: &of.client_id.0,
        redirect_uri: &of.redirect_uri,
        scope: &of.scope,
    };
    let secure = inner.settings.secure;
    let cookie = Approvals::of(request.headers(), secure)
        .with(&inner.sealer, subject, user, inner.clock.now())
        .and_then(|approvals| approvals.set_cookie(secure));
    if let Some(cookie) = cookie {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
}

impl SignInError {
    /// The one place where a failed sign-in becomes a page or an answer to the client.
    fn into_response(self, inner: &ServerState, purpose: &Purpose) -> Response<Body> {
        let request = match purpose {
            Purpose::Client(request) => Some(request),
            Purpose::Connections => None,
        };
        let (error, description, page) = match self {
            Self::NotAllowed { login } => {
                let answer = [
                    ("error", "access_denied"),
                    ("error_description", "the user may not use this server"),
                ];
                let back = request.map(|request| {
                    client_location(inner, &request.redirect_uri, request.client_state.as_deref(), &answer)
                });
                return pages::not_allowed(inner, login.as_deref(), back.as_deref());
            }
            Self::OtherScope { granted } => {
                let again = request.map_or_else(
                    || inner.connections_uri(),
                    |request| authorize::page_uri(inner, request),
                );
                return pages::other_scope(inner, granted, &again);
            }
            Self::AskAgain => {
                let again = request.map_or_else(
                    || inner.connections_uri(),
                    |request| authorize::page_uri(inner, request),
                );
                return response::see_other(&again);
            }
            Self::AtForgejo { denied: true } => (
                "access_denied",
                "the user said no at Forgejo",
                ErrorPage::UpstreamRefused,
            ),
            Self::AtForgejo { denied: false } => (
                "server_error",
                "Forgejo refused the authorization",
                ErrorPage::UpstreamRefused,
            ),
            Self::Passing(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a sign-in failed for now");
                (
                    "temporarily_unavailable",
                    "Forgejo cannot be asked now",
                    ErrorPage::UpstreamAway,
                )
            }
            Self::Refused(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a sign-in was refused by Forgejo"
                );
                (
                    "server_error",
                    "Forgejo refused the sign-in",
                    ErrorPage::UpstreamRefused,
                )
            }
            Self::Store(error) => {
                response::log_store(&error);
                ("temporarily_unavailable", "try again in a moment", ErrorPage::Store)
            }
        };
        match request {
            Some(request) => to_client(
                inner,
                &request.redirect_uri,
                request.client_state.as_deref(),
                &[("error", error), ("error_description", description)],
            ),
            None => pages::error(page),
        }
    }
}
