//! From Forgejo's code to the broker's: the part of a sign-in that has to come to its end.
//!
//! Whatever the sign-in comes to, the pair that the exchange has yielded is kept if the user has an account: it has
//! killed the refresh token that earlier grants live on.

use std::{sync::Arc, time::Duration};

use secrecy::{ExposeSecret as _, SecretString};

use super::super::Inner;
use crate::{
    account::turns::{Place, Slot, Turn},
    ports::{GrantedScope, SignIn, StoreError, TokenPair, UpstreamError, UpstreamUser},
    records::{ClientRequest, CodeRecord, GrantRecord, Purpose},
    secret,
};

/// What a sign-in has come to.
pub(super) enum Done {
    /// A code for the client.
    Code {
        code: SecretString,
        user: i64,
        request: ClientRequest,
    },
    /// Somebody who wants to see their connections.
    User { user: i64, login: String },
}

/// Why a sign-in came to nothing.
pub(super) enum Failure {
    /// Forgejo sent the browser back without a code.
    AtForgejo { denied: bool },
    /// The user may not use this server. Without a login: Forgejo has locked them out.
    NotAllowed { login: Option<String> },
    /// What the user has granted at Forgejo is not what this server asks for.
    OtherScope { granted: Vec<String> },
    /// The approval that the browser remembered is not this user's, or not good any more.
    AskAgain,
    /// Forgejo could not be asked; a later try may succeed.
    Passing(UpstreamError),
    /// Forgejo refused, or refuses the broker itself.
    Refused(UpstreamError),
    /// The store cannot be used.
    Store(StoreError),
}

/// How often what an exchange has yielded is offered to the store.
const STORE_ATTEMPTS: u32 = 3;
/// How often a pair is renewed to find out whether it is the newest.
const SETTLING_RENEWALS: u32 = 3;

/// Finishes a sign-in.
pub(super) async fn finish(
    inner: Arc<Inner>,
    slot: Slot,
    purpose: Purpose,
    code: SecretString,
    verifier: SecretString,
) -> Result<Done, Failure> {
    let accounts = &inner.accounts;
    let mut turn = accounts.turns.begin(slot).await;
    let pair = accounts
        .upstream
        .exchange(&code, &verifier, &inner.callback_uri())
        .await;
    turn.exchanged();
    let pair = pair.map_err(Failure::upstream)?;
    // Asking again is harmless, and the pair would be lost without an answer.
    let user = match accounts.upstream.user(&pair.access_token).await {
        Err(UpstreamError::Unavailable(_)) => accounts.upstream.user(&pair.access_token).await,
        outcome => outcome,
    };
    let user = match user {
        // The token has just been made, so that it is the user who is refused.
        Err(UpstreamError::Refused(_)) => return Err(Failure::NotAllowed { login: None }),
        outcome => outcome.map_err(Failure::upstream)?,
    };
    match judge(&inner, &purpose, &pair, &user).await {
        Ok(()) => {}
        Err(failure @ Failure::NotAllowed { .. }) => {
            tracing::warn!(user = user.id, login = user.login, "the user may not use this server");
            // Whoever may not sign in may not go on with an earlier sign-in either.
            accounts.end_user(user.id).await.map_err(Failure::Store)?;
            return Err(failure);
        }
        Err(failure) => {
            settle(&inner, turn, user.id, pair, None).await?;
            return Err(failure);
        }
    }
    match purpose {
        Purpose::Connections => {
            settle(&inner, turn, user.id, pair, None).await?;
            Ok(Done::User {
                user: user.id,
                login: user.login,
            })
        }
        Purpose::Client(request) => {
            let code = secret::mint(secret::CODE);
            let grant = new_grant(&inner, &request, &user, &code);
            settle(&inner, turn, user.id, pair, Some(grant)).await?;
            Ok(Done::Code {
                code,
                user: user.id,
                request,
            })
        }
    }
}

/// Whether the sign-in may come to what it is for.
async fn judge(inner: &Inner, purpose: &Purpose, pair: &TokenPair, user: &UpstreamUser) -> Result<(), Failure> {
    if !is_allowed(inner, pair, user).await.map_err(Failure::upstream)? {
        return Err(Failure::NotAllowed {
            login: Some(user.login.clone()),
        });
    }
    let Purpose::Client(request) = purpose else {
        return Ok(());
    };
    if let Some(approver) = request.approved_by {
        let grants = inner.store().grants_of(user.id).await.map_err(Failure::Store)?;
        let goes_on = grants
            .iter()
            .any(|summary| summary.grant.client_id == request.client_id);
        if approver != user.id || !goes_on {
            tracing::info!(
                user = user.id,
                client = request.client_id,
                "a remembered approval does not count: the user is asked"
            );
            return Err(Failure::AskAgain);
        }
    }
    let scope = inner.accounts.upstream.granted_scope(&pair.access_token).await;
    match scope.map_err(Failure::upstream)? {
        GrantedScope::AsAsked => Ok(()),
        GrantedScope::Unknown => {
            tracing::warn!("Forgejo does not tell which scope a token has: it is taken to be the one asked for");
            Ok(())
        }
        GrantedScope::Other(granted) => {
            tracing::warn!(
                user = user.id,
                "the user's grant at Forgejo has another scope than the one asked for"
            );
            Err(Failure::OtherScope { granted })
        }
    }
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

fn new_grant(
    inner: &Inner,
    request: &ClientRequest,
    user: &UpstreamUser,
    code: &SecretString,
) -> (GrantRecord, CodeRecord) {
    let grant = GrantRecord {
        grant: secret::name("grant_"),
        user: user.id,
        login: user.login.clone(),
        client_id: request.client_id.clone(),
        scope: request.scope.clone(),
    };
    let code = CodeRecord {
        code: secret::hash(code.expose_secret()),
        grant: grant.grant.clone(),
        client_id: request.client_id.clone(),
        redirect_uri: request.redirect_uri.clone(),
        code_challenge: request.code_challenge.clone(),
        expires_at: inner.accounts.clock.now() + inner.settings.code_ttl,
    };
    (grant, code)
}

/// Puts a pair where it belongs in the order of the user's sign-ins, with the grant if there is one.
async fn settle(
    inner: &Inner,
    mut turn: Turn,
    user: i64,
    mut pair: TokenPair,
    grant: Option<(GrantRecord, CodeRecord)>,
) -> Result<(), Failure> {
    let accounts = &inner.accounts;
    let mut superseded = false;
    for renewal in 0..=SETTLING_RENEWALS {
        let placing = accounts.turns.placing.lock().await;
        let place = if superseded { Place::Older } else { turn.place(user) };
        if place == Place::Unclear && renewal < SETTLING_RENEWALS {
            drop(placing);
            let from = turn.moment();
            match accounts.upstream.refresh(&pair.refresh_token).await {
                Ok(renewed) => {
                    pair = renewed;
                    turn.renewed(from);
                }
                Err(UpstreamError::Refused(_)) => superseded = true,
                // It says nothing about the pair: the next renewal may.
                Err(UpstreamError::Misconfigured(_) | UpstreamError::Unavailable(_) | UpstreamError::Unexpected(_)) => {
                }
            }
            continue;
        }
        let newest = place != Place::Older;
        let outcome = store(inner, user, newest.then_some(&pair), grant.as_ref()).await;
        if outcome.is_ok() && newest {
            turn.stored(user);
        }
        return outcome.map_err(Failure::Store);
    }
    Ok(())
}

/// Keeps the outcome. The user's former pair is dead at Forgejo: a store that is busy is worth waiting for.
async fn store(
    inner: &Inner,
    user: i64,
    pair: Option<&TokenPair>,
    grant: Option<&(GrantRecord, CodeRecord)>,
) -> Result<(), StoreError> {
    let accounts = &inner.accounts;
    let account = pair.map(|pair| accounts.record(user, pair));
    let mut attempt = 1;
    loop {
        let outcome = match (grant, account.clone()) {
            (Some((grant, code)), account) => {
                let sign_in = SignIn {
                    account,
                    grant: grant.clone(),
                    code: code.clone(),
                };
                let now = accounts.clock.now();
                let signed_in = accounts.store.complete_sign_in(sign_in, now).await;
                signed_in.map(|signed_in| {
                    tracing::info!(
                        user,
                        login = grant.login,
                        client = grant.client_id,
                        grant = signed_in.grant,
                        "signed in"
                    );
                })
            }
            (None, Some(account)) => accounts.store.replace_account(account, None).await.map(drop),
            (None, None) => Ok(()),
        };
        match outcome {
            Err(error) if attempt == STORE_ATTEMPTS => {
                tracing::error!(user, "a sign-in is lost: the store does not take it");
                return Err(error);
            }
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(200) * attempt).await;
                attempt += 1;
            }
            Ok(()) => return Ok(()),
        }
    }
}

impl Failure {
    fn upstream(error: UpstreamError) -> Self {
        match error {
            UpstreamError::Unavailable(_) | UpstreamError::Unexpected(_) => Self::Passing(error),
            UpstreamError::Refused(_) | UpstreamError::Misconfigured(_) => Self::Refused(error),
        }
    }
}
