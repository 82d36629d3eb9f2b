//! The opening of a session: caps, spawn, handshake, id.
//!
//! Nothing of an opening survives its failure, and a client that goes away takes the opening with it: until the answer is
//! known to be good, the session hangs on a guard that ends it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use tokio::time::Instant;
use tracing::{Instrument, Span};

use crate::{
    caps::{Full, Hold, Slot},
    ending::Shut,
    exchange,
    id::SessionId,
    keeper::{self, Place, StartError},
    life::Life,
    ports::{
        AuthenticatedAt, BackendGone, Body, Caller, EndReason, Event, QuotaScope, SpawnError, SpawnPurpose, UserId,
    },
    refusal::{Holder, Refusal, whole},
    registry::Shared,
    renewals::{self, Verdict},
    seat::{Pin, Seat, Session},
    shallow,
    sync::timeout_at,
    wake::describe,
};

/// The header that names a session (MCP 2025-11-25, transports, "Session Management").
pub(crate) const MCP_SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

/// How many bytes of an `initialize` answer are looked at. Servers send instructions there, not data.
const MAX_ANSWER: usize = 1024 * 1024;

/// Ends the session on drop, unless it went live.
struct Opening<'a> {
    shared: &'a Arc<Shared>,
    session: Arc<Session>,
}

/// Why a handshake did not come about.
enum Unopened {
    /// The client is told so.
    Refused(Refusal),
    /// The backend did not start, or was gone before it had answered. With another credential it may: nobody has been told yet.
    Died(StartError),
}

/// Opens a session with the client's `initialize`, and fills `of` with its span. A backend that ended at its start is made once
/// more if the credential could be renewed.
///
/// # Errors
///
/// What the client is told instead. Nothing is left of the session then.
pub(crate) async fn open(
    shared: &Arc<Shared>,
    caller: &Arc<Caller>,
    request: Request<Bytes>,
    of: &mut Option<Span>,
) -> Result<Response<Body>, Refusal> {
    let slot = take_slot(shared, &caller.user)?;
    let id = SessionId::draw().map_err(|error| {
        tracing::error!(%error, "no session can be opened");
        Refusal::Internal
    })?;
    let checked = request.extensions().get::<AuthenticatedAt>().copied();
    let (grant, user) = (caller.grant.clone(), caller.user.clone());
    let session = Session::new(id.key(), grant, user, Life::Opening, Instant::now());
    let session = Arc::new(session);
    session.bind_caller(caller);
    let span = of.insert(session.span.clone()).clone();
    session.inner().hold = Some(Hold::new(slot, session.gone.clone().drop_guard()));
    shared
        .table
        .insert(Arc::clone(&session))
        .map_err(|_closed| Refusal::Stopping)?;
    let opening = Opening { shared, session };
    opening.admit(checked)?;
    match opening.shake_hands(request).instrument(span).await? {
        (Judged::Open(mut response), seat) => {
            let pin = opening.go_live(&seat)?;
            response.headers_mut().insert(MCP_SESSION_ID, id.into_header());
            shared.observer.on(Event::Opened);
            Ok(exchange::pinned(response, pin))
        }
        // What a backend says that is being stopped since the grant has ended is not what the client has to know.
        (Judged::Refused(_), _) if opening.session.is_revoked() => Err(opening.refusal(&StartError::Ended)),
        (Judged::Refused(response), _) => Ok(response),
        (Judged::Gone | Judged::Broken, _) => Err(opening.refusal(&StartError::Ended)),
    }
}

/// What a backend's answer to `initialize` means for the session.
enum Judged {
    Open(Response<Body>),
    Refused(Response<Body>),
    /// The backend was gone.
    Gone,
    Broken,
}

/// A session is worth keeping if its handshake succeeded. A stream has not ended yet and gets the benefit of the doubt.
async fn judge(mut response: Response<Body>) -> Judged {
    response.headers_mut().remove(MCP_SESSION_ID);
    if response.extensions().get::<BackendGone>().is_some() {
        return Judged::Gone;
    }
    if response.status() != StatusCode::OK {
        return Judged::Refused(response);
    }
    if is_stream(&response) {
        return Judged::Open(response);
    }
    let (parts, body) = response.into_parts();
    match limited(body).collect().await {
        Ok(answer) => {
            let answer = answer.to_bytes();
            let success = shallow::is_success(&answer);
            let response = Response::from_parts(parts, whole(answer));
            if success {
                Judged::Open(response)
            } else {
                Judged::Refused(response)
            }
        }
        Err(error) => {
            tracing::warn!(error, "the answer to initialize cannot be read");
            Judged::Broken
        }
    }
}

/// The body, failing beyond [`MAX_ANSWER`]. Boxed again, so that the future that reads it is plainly `Send`.
fn limited(body: Body) -> Body {
    Limited::new(body, MAX_ANSWER).boxed_unsync()
}

fn is_stream(response: &Response<Body>) -> bool {
    response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
}

fn take_slot(shared: &Shared, user: &UserId) -> Result<Slot, Refusal> {
    let config = &shared.config;
    let full = loop {
        match shared.caps.take(user) {
            Ok(slot) => return Ok(slot),
            Err(full) if displace(shared, full, user) => {}
            Err(full) => break full,
        }
    };
    shared.observer.on(Event::QuotaExceeded(match full {
        Full::User => QuotaScope::User,
        Full::Total => QuotaScope::Total,
    }));
    Err(match full {
        Full::User => {
            let now = Instant::now();
            let mut held = shared.table.select(|session| session.user == *user);
            held.sort_by_key(|session| session.opened);
            let idle: Vec<_> = held.iter().map(|session| session.inner().life.idle(now)).collect();
            // The idlest one is reaped first; if all are in use, nobody knows.
            let first = idle.iter().flatten().max();
            let wait = first.map_or(config.reap_interval, |idle| config.idle_timeout.saturating_sub(*idle));
            let sessions = held
                .iter()
                .zip(idle)
                .map(|(session, idle)| holder(session, idle, now))
                .collect();
            tracing::info!(user = %user.0, "the user's session cap is reached");
            Refusal::UserCap {
                limit: config.max_sessions_per_user,
                sessions,
                retry_after: wait,
            }
        }
        Full::Total => {
            tracing::warn!("the session cap is reached");
            Refusal::TotalCap {
                retry_after: config.reap_interval,
            }
        }
    })
}

/// Ends the dormant session that has been idle for longest, so that its place is free; false if there is none.
fn displace(shared: &Shared, full: Full, user: &UserId) -> bool {
    let of_user = |session: &Session| full == Full::Total || session.user == *user;
    let mut asleep: Vec<_> = shared
        .table
        .select(|session| of_user(session) && session.seat().is_none())
        .into_iter()
        .filter_map(|session| {
            let last_activity = session.inner().life.last_activity()?;
            Some((last_activity, session))
        })
        .collect();
    asleep.sort_by_key(|(last_activity, _)| *last_activity);
    asleep
        .iter()
        .any(|(_, session)| shared.end(session, EndReason::Evicted, Shut::Dormant))
}

fn holder(session: &Session, idle: Option<Duration>, now: Instant) -> Holder {
    Holder {
        tag: session.tag.to_string(),
        age_seconds: now.saturating_duration_since(session.opened).as_secs(),
        idle_seconds: idle.map(|idle| idle.as_secs()),
    }
}

impl Opening<'_> {
    /// Not if the grant was ended after the bearer had been checked. Asked when the session is in the table, so that a revocation
    /// after this finds it there.
    fn admit(&self, checked: Option<AuthenticatedAt>) -> Result<(), Refusal> {
        let (shared, session) = (self.shared, &self.session);
        if checked.is_some_and(|checked| shared.revocations.since(checked, &session.grant, &session.user)) {
            shared.end(session, EndReason::Revoked, Shut::Whatever);
            return Err(self.refusal(&StartError::Ended));
        }
        Ok(())
    }

    /// Has a backend answer the client's `initialize`, and another one if the first ended at its start and the credential could
    /// be renewed.
    async fn shake_hands(&self, request: Request<Bytes>) -> Result<(Judged, Arc<Seat>), Refusal> {
        let (shared, session) = (self.shared, &self.session);
        let mark = shared.renewals.mark();
        let error = match self.attempt(request.clone()).await {
            Err(Unopened::Died(error)) => error,
            outcome => return outcome.map_err(|unopened| self.given_up(unopened)),
        };
        let Some(credentials) = session.credentials() else {
            return Err(self.refusal(&error));
        };
        match renewals::ask(shared, &session.user, credentials, mark).await {
            Verdict::Again => {
                tracing::info!(session = %session.tag, "once more with a renewed credential");
                let outcome = self.attempt(request).await;
                outcome.map_err(|unopened| self.given_up(unopened))
            }
            Verdict::SignIn => Err(Refusal::SignIn),
            Verdict::AsItIs => Err(self.refusal(&error)),
        }
    }

    /// Starts a backend and has it answer. Both share one limit: a server that never talks has not started.
    async fn attempt(&self, request: Request<Bytes>) -> Result<(Judged, Arc<Seat>), Unopened> {
        let (shared, session) = (self.shared, &self.session);
        let deadline = Instant::now() + shared.config.start_timeout;
        let started = keeper::start(shared, session, None, SpawnPurpose::Opening).await;
        let started = started.map_err(|error| match error {
            StartError::Spawn(SpawnError::Failed(_)) => self.died(error),
            StartError::Spawn(_) | StartError::TimedOut | StartError::Ended => self.refusal(&error).into(),
        })?;
        let seat = keeper::sit_down(shared, session, started, Place::Empty);
        let seat = seat.ok_or_else(|| self.refusal(&StartError::Ended))?;
        let _entered = Arc::clone(&seat).enter();
        let answer = timeout_at(deadline, seat.backend.serve(exchange::outward(request))).await;
        // A timeout looks at what it waits for before it looks at the clock: an answer of after the deadline comes through, and
        // a stream of then may only say that there is no answer yet.
        let answer = answer.ok().filter(|_| Instant::now() <= deadline);
        let Some(answer) = answer else {
            return Err(self.refusal(&StartError::TimedOut).into());
        };
        match judge(answer).await {
            Judged::Gone => {
                keeper::lost(shared, session, &seat);
                Err(self.died(StartError::Ended))
            }
            judged @ (Judged::Open(_) | Judged::Refused(_) | Judged::Broken) => Ok((judged, seat)),
        }
    }

    /// The session is the client's from now on, pinned by the answer that carries its id.
    fn go_live(&self, seat: &Arc<Seat>) -> Result<Pin, Refusal> {
        seat.mark_answered();
        {
            let mut inner = self.session.inner();
            // Not if its backend has died meanwhile.
            if self.session.is_seated(seat) && inner.life.go_live(Instant::now()) {
                inner.streak.cleared();
            }
        }
        // Nor if it was ended: its grant was, or the registry stops.
        let pin = self
            .session
            .pin(self.shared)
            .ok_or_else(|| self.refusal(&StartError::Ended))?;
        self.shared.mark_dirty(&self.session);
        Ok(pin)
    }

    /// The backend has ended by itself, unless the session was ended first.
    fn died(&self, error: StartError) -> Unopened {
        if self.session.is_revoked() || self.shared.table.is_closed() {
            Unopened::Refused(self.refusal(&error))
        } else {
            Unopened::Died(error)
        }
    }

    /// What the client is told in the end.
    fn given_up(&self, unopened: Unopened) -> Refusal {
        match unopened {
            Unopened::Refused(refusal) => refusal,
            Unopened::Died(error) => self.refusal(&error),
        }
    }

    fn refusal(&self, error: &StartError) -> Refusal {
        let _within = self.session.span.enter();
        let tag = &self.session.tag;
        let reason = describe(error);
        match error {
            StartError::Ended if self.shared.table.is_closed() => Refusal::Stopping,
            // Whatever has become of the backend: the end of a grant often comes before the failure that it causes.
            _ if self.session.is_revoked() => {
                tracing::info!(session = %tag, reason, "the user has to sign in again");
                Refusal::SignIn
            }
            StartError::Spawn(SpawnError::Credentials(_)) => {
                tracing::info!(session = %tag, reason, "the user has to sign in again");
                Refusal::SignIn
            }
            StartError::Spawn(SpawnError::Unavailable(_)) => {
                tracing::warn!(session = %tag, reason, "no backend can be started now");
                Refusal::Unavailable
            }
            StartError::Spawn(SpawnError::Failed(_) | SpawnError::NotReady(_))
            | StartError::TimedOut
            | StartError::Ended => {
                tracing::warn!(session = %tag, reason, "the session was not opened");
                Refusal::NotStarted
            }
        }
    }
}

impl From<Refusal> for Unopened {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if self.session.inner().life.is_opening() {
            self.shared.end(&self.session, EndReason::NotOpened, Shut::Whatever);
        }
    }
}
