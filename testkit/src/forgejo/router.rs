//! One request from its counter through its faults to its endpoint.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use tokio::{sync::Notify, time::sleep};

use super::{
    api, authorize, exchange, oidc, signin,
    state::{State, seconds},
    wire::{self, Call, Reply},
};
use crate::serve::NoAnswer;

/// What the handle and the server share.
pub(super) struct Shared {
    /// Each endpoint leaves the state whole at every point where it could panic, so a poisoned lock is read on: the panic
    /// itself surfaces when the server stops. Never held across an await.
    state: Mutex<State>,
    /// Notified when a request arrives, and again when it took effect.
    pub(super) changed: Notify,
}

impl Shared {
    pub(super) fn new(state: State) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(state),
            changed: Notify::new(),
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves one request.
    pub(super) async fn serve(&self, request: Request<Bytes>) -> Result<Reply, NoAnswer> {
        let call = Call::new(request);
        let plan = {
            let mut state = self.state();
            state.counters.request(call.path());
            state.faults.plan(call.path())
        };
        self.changed.notify_waiters();
        if let Some(delay) = plan.delay {
            sleep(delay).await;
        }
        let reply = if plan.drop_before {
            Err(NoAnswer)
        } else if let Some(status) = plan.status {
            Ok(wire::text(status, "a fault was asked for"))
        } else if call.path() == "/login/oauth/access_token" {
            Ok(self.exchange(&call).await)
        } else {
            let now = self.now();
            Ok(route(&mut self.state(), &call, now))
        };
        self.changed.notify_waiters();
        if plan.drop_after { Err(NoAnswer) } else { reply }
    }

    /// This server's idea of the time, in seconds since the epoch.
    pub(super) fn now(&self) -> i64 {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the double's own clock, read here only and passed on as an argument"
        )]
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        seconds(elapsed).saturating_add(self.state().settings.clock_skew)
    }

    async fn exchange(&self, call: &Call) -> Reply {
        if call.method() != Method::POST {
            return wire::empty(StatusCode::METHOD_NOT_ALLOWED);
        }
        let now = self.now();
        let begun = exchange::begin(&mut self.state(), call, now);
        let window = self.state().settings.token_window;
        if !window.is_zero() {
            sleep(window).await;
        }
        match begun.and_then(|pending| exchange::finish(&mut self.state(), &pending, now)) {
            Ok(reply) => reply,
            Err(refused) => *refused,
        }
    }
}

fn route(state: &mut State, call: &Call, now: i64) -> Reply {
    let (get, post) = (call.method() == Method::GET, call.method() == Method::POST);
    match call.path() {
        "/" if get => signin::home(state, call),
        "/user/login" if get || post => signin::login(state, call),
        "/login/oauth/authorize" if get || post => authorize::authorize(state, call),
        "/login/oauth/grant" if post => authorize::grant(state, call),
        "/login/oauth/userinfo" if get || post => oidc::userinfo(state, call, now),
        "/login/oauth/introspect" if post => oidc::introspect(state, call, now),
        "/login/oauth/keys" if get => oidc::keys(),
        "/.well-known/openid-configuration" if get => oidc::discovery(state),
        "/"
        | "/user/login"
        | "/login/oauth/authorize"
        | "/login/oauth/grant"
        | "/login/oauth/userinfo"
        | "/login/oauth/introspect"
        | "/login/oauth/keys"
        | "/.well-known/openid-configuration" => wire::empty(StatusCode::METHOD_NOT_ALLOWED),
        path => match path.strip_prefix("/api/v1") {
            Some(rest) => api::serve(state, call, rest, now),
            None => wire::text(StatusCode::NOT_FOUND, "Not found."),
        },
    }
}
