//! The callback: the browser comes back from Forgejo, and the sign-in is brought to its end.
//!
//! From the code exchange on the sign-in runs on a task of its own: the exchange kills the user's former refresh
//! token, so that the new pair must reach the store even if the browser goes away. Sign-ins happen one at a time, so
//! that of two by the same user the later pair is the one that is kept.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use secrecy::{ExposeSecret as _, SecretString};

use super::{
    Body, Inner,
    authorize::{client_location, to_client, upstream_verifier},
    cookie::BrowserId,
    pages::{self, Trouble},
    params::Params,
    respond,
};
use crate::{
    ports::{SignIn, StoreError, TokenPair, UpstreamError, UpstreamUser},
    records::{CodeRecord, GrantRecord, PendingRecord},
    secret,
};

/// Why a sign-in came to nothing.
enum Failure {
    /// The user may not use this server.
    NotAllowed { login: String },
    /// Forgejo could not be asked; a later try may succeed.
    Passing(UpstreamError),
    /// Forgejo refused, or refuses the broker itself.
    Refused(UpstreamError),
    /// The store cannot be used.
    Store(StoreError),
}

/// How many sign-ins and renewals may be waiting for Forgejo.
const MAX_TASKS: usize = 1024;

/// `GET`: the browser is back.
pub(super) async fn callback(inner: &Arc<Inner>, request: &Request<Bytes>) -> Response<Body> {
    let Ok(params) = Params::of_query(request) else {
        return pages::trouble(Trouble::BadRequest);
    };
    let Some(state) = params.value("state") else {
        return pages::trouble(Trouble::NoPending);
    };
    // Before the state is spent, so that the user can load the page again.
    if inner.accounts.tasks.len() >= MAX_TASKS {
        return pages::trouble(Trouble::Busy);
    }
    let now = inner.accounts.clock.now();
    let pending = match inner.store().take_pending(secret::hash(state), now).await {
        Ok(Some(pending)) => pending,
        Ok(None) => return pages::trouble(Trouble::NoPending),
        Err(error) => {
            respond::log_store(&error);
            return pages::trouble(Trouble::Store);
        }
    };
    let browser = BrowserId::of(request.headers(), inner.settings.secure);
    if !browser.is_some_and(|browser| secret::same(&secret::hash(browser.as_str()).0, &pending.browser.0)) {
        tracing::warn!(
            client = pending.client_id,
            "a sign-in came back in another browser than it began in"
        );
        return pages::trouble(Trouble::OtherBrowser);
    }
    let to_client =
        |answer: &[(&str, &str)]| to_client(inner, &pending.redirect_uri, pending.client_state.as_deref(), answer);
    if let Some(error) = params.value("error") {
        return if error == "access_denied" {
            to_client(&[
                ("error", "access_denied"),
                ("error_description", "the user said no at Forgejo"),
            ])
        } else {
            // Forgejo's words are for its own log: its error may be anything.
            tracing::warn!(
                client = pending.client_id,
                "Forgejo refused an authorization with an error"
            );
            to_client(&[
                ("error", "server_error"),
                ("error_description", "Forgejo refused the authorization"),
            ])
        };
    }
    let Some(code) = params.value("code") else {
        return to_client(&[("error", "server_error"), ("error_description", "Forgejo gave no code")]);
    };
    let code = SecretString::from(code.to_owned());
    let verifier = upstream_verifier(&inner.accounts.sealer, state);
    let task = finish(Arc::clone(inner), pending.clone(), code, verifier);
    match inner.accounts.tasks.spawn(task).await {
        Ok(Ok(code)) => to_client(&[("code", code.expose_secret())]),
        Ok(Err(failure)) => failure.into_response(inner, &pending),
        Err(error) => {
            tracing::error!(%error, "a sign-in broke off");
            to_client(&[
                ("error", "server_error"),
                ("error_description", "the sign-in broke off"),
            ])
        }
    }
}

/// From Forgejo's code to the broker's.
async fn finish(
    inner: Arc<Inner>,
    pending: PendingRecord,
    code: SecretString,
    verifier: SecretString,
) -> Result<SecretString, Failure> {
    let accounts = &inner.accounts;
    let _one_at_a_time = accounts.sign_in.lock().await;
    let pair = accounts
        .upstream
        .exchange(&code, &verifier, &inner.callback_uri())
        .await
        .map_err(Failure::upstream)?;
    // Asking again is harmless, and the pair would be lost without an answer.
    let user = match accounts.upstream.user(&pair.access_token).await {
        Err(UpstreamError::Unavailable(_)) => accounts.upstream.user(&pair.access_token).await,
        outcome => outcome,
    };
    let user = user.map_err(Failure::upstream)?;
    let account = accounts.record(user.id, &pair);
    match is_allowed(&inner, &pair, &user).await {
        Ok(true) => {}
        Ok(false) => {
            tracing::warn!(user = user.id, login = user.login, "the user may not use this server");
            // Whoever may not sign in may not go on with an earlier sign-in either.
            accounts.end_user(user.id).await.map_err(Failure::Store)?;
            return Err(Failure::NotAllowed { login: user.login });
        }
        Err(error) => {
            // The exchange has killed the refresh token that earlier grants live on: they go on with this one.
            accounts
                .store
                .replace_account(account, None)
                .await
                .map_err(Failure::Store)?;
            return Err(Failure::upstream(error));
        }
    }
    let code = secret::mint(secret::CODE);
    let now = accounts.clock.now();
    let grant = GrantRecord {
        grant: secret::name("grant_"),
        user: user.id,
        login: user.login,
        client_id: pending.client_id.clone(),
    };
    let code_record = CodeRecord {
        code: secret::hash(code.expose_secret()),
        grant: grant.grant.clone(),
        client_id: pending.client_id,
        redirect_uri: pending.redirect_uri,
        code_challenge: pending.code_challenge,
        expires_at: now + inner.settings.code_ttl,
    };
    let signed_in = grant.clone();
    let displaced = accounts
        .store
        .complete_sign_in(
            SignIn {
                account,
                grant,
                code: code_record,
            },
            now,
        )
        .await
        .map_err(Failure::Store)?;
    tracing::info!(
        user = signed_in.user,
        login = signed_in.login,
        client = signed_in.client_id,
        grant = signed_in.grant,
        "signed in"
    );
    for grant in displaced {
        accounts.events.grant_ended(&grant);
    }
    accounts.events.user_signed_in(signed_in.user);
    Ok(code)
}

/// Whether a user may use this server: let in by Forgejo, and by one of the two lists unless both are empty.
async fn is_allowed(inner: &Inner, pair: &TokenPair, user: &UpstreamUser) -> Result<bool, UpstreamError> {
    let settings = &inner.settings;
    if !user.active {
        return Ok(false);
    }
    if (settings.allowed_users.is_empty() && settings.allowed_orgs.is_empty()) || inner.is_listed(&user.login) {
        return Ok(true);
    }
    for organization in &settings.allowed_orgs {
        if inner
            .accounts
            .upstream
            .is_member(&pair.access_token, organization, &user.login)
            .await?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Failure {
    fn upstream(error: UpstreamError) -> Self {
        match error {
            UpstreamError::Unavailable(_) | UpstreamError::Unexpected(_) => Self::Passing(error),
            UpstreamError::Refused(_) | UpstreamError::Misconfigured(_) => Self::Refused(error),
        }
    }

    fn into_response(self, inner: &Inner, pending: &PendingRecord) -> Response<Body> {
        let state = pending.client_state.as_deref();
        let uri = &pending.redirect_uri;
        let answer = match self {
            Self::NotAllowed { login } => {
                let answer = [
                    ("error", "access_denied"),
                    ("error_description", "the user may not use this server"),
                ];
                let back = client_location(inner, uri, state, &answer);
                return pages::not_allowed(inner, &login, &back);
            }
            Self::Passing(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a sign-in failed for now");
                [
                    ("error", "temporarily_unavailable"),
                    ("error_description", "Forgejo cannot be asked now"),
                ]
            }
            Self::Refused(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a sign-in was refused by Forgejo"
                );
                [
                    ("error", "server_error"),
                    ("error_description", "Forgejo refused the sign-in"),
                ]
            }
            Self::Store(error) => {
                respond::log_store(&error);
                [
                    ("error", "temporarily_unavailable"),
                    ("error_description", "try again in a moment"),
                ]
            }
        };
        to_client(inner, uri, state, &answer)
    }
}
