//! One connection: HTTP/1.1, or HTTP/2 by prior knowledge, until it is idle, drained or cut.

use std::{convert::Infallible, future::Future, pin::pin, sync::Arc, time::Duration};

use hyper::{rt::Executor, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{app_state::AppState, config::HttpLimits, exchange};

/// How long a peer may take to agree that an idle connection ends.
const IDLE_CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection that was accepted just before a drain has to begin its first request. Whoever connected then has been
/// let in: to close on them would lose the request that is on its way.
const DRAIN_FIRST_REQUEST: Duration = Duration::from_secs(1);
/// How long a drain waits at most for a connection to be out of use for [`DRAIN_QUIET_PERIOD`]. Some never are: those with a stream that listens.
const DRAIN_QUIET_TIMEOUT: Duration = Duration::from_secs(1);
/// For how long nobody must have asked on a connection before it is closed by a drain. A request that is sent in the moment in
/// which its connection closes is lost (RFC 9112 section 9.3.1), and whoever asks all the time would sooner or later send one: they
/// are given the time to ask once more, and the answer tells them that the connection closes.
const DRAIN_QUIET_PERIOD: Duration = Duration::from_millis(500);
/// How long a drain waits at least before it closes a connection: for the runtime to hear of a request that lies in the socket already.
const DRAIN_SETTLE: Duration = Duration::from_millis(20);
/// How often a silent HTTP/2 peer is asked whether it is there, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// How many exchanges a connection has, its own view of being busy.
#[derive(Clone, Debug)]
struct Activity {
    now: watch::Sender<ConnectionUse>,
    /// Cancelled when the first one begins.
    begun: CancellationToken,
}

#[derive(Clone, Copy, Debug)]
struct ConnectionUse {
    exchanges: usize,
    /// When an exchange began or ended last.
    changed: Instant,
}

/// One exchange of a connection, until it is dropped.
struct ExchangeGuard(watch::Sender<ConnectionUse>);

/// Puts the tasks that hyper starts under our owner.
#[derive(Clone, Debug)]
struct TrackedExecutor(TaskTracker);

/// Serves a connection until it is over. `cut` ends it at once.
pub(crate) async fn run(stream: TcpStream, state: Arc<AppState>, cut: CancellationToken) {
    let limits = state.config.limits.clone();
    let draining = state.draining.clone();
    let builder = builder(&limits, state.tasks.clone());
    let activity = Activity::new();
    let begun = activity.clone();
    // A drain waits for the first request, and that has a token of its own by the time this one goes.
    let first = state.unfinished.token();
    let service = service_fn(move |request| {
        let (state, busy, unfinished) = (Arc::clone(&state), begun.begin(), state.unfinished.token());
        async move { Ok::<_, Infallible>(exchange::handle(state, request, busy, unfinished).await) }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));

    let idle = tokio::select! {
        outcome = connection.as_mut() => return log(outcome),
        () = draining.cancelled() => false,
        () = activity.idle_for(limits.idle_timeout) => true,
    };
    if !idle {
        tokio::select! {
            // First, so that a request of which the runtime has heard is begun before the connection is told to end.
            biased;
            outcome = connection.as_mut() => return log(outcome),
            () = activity.wait_until_quiet() => {}
            () = cut.cancelled() => {}
        }
    }
    drop(first);
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        outcome = connection => log(outcome),
        () = cut.cancelled() => tracing::debug!("connection cut"),
        () = sleep(IDLE_CLOSE_TIMEOUT), if idle => tracing::debug!("idle connection cut"),
    }
}

fn builder(limits: &HttpLimits, tasks: TaskTracker) -> auto::Builder<TrackedExecutor> {
    let head_bytes = limits.head_bytes.max(8192);
    let mut builder = auto::Builder::new(TrackedExecutor(tasks));
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(head_bytes)
        .max_headers(limits.head_fields)
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(limits.streams)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL);
    builder
}

fn log(outcome: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = outcome {
        // A peer that goes away or does not speak HTTP is no event for an operator.
        tracing::debug!(error, "connection ended");
    }
}

impl Activity {
    fn new() -> Self {
        Self {
            now: watch::Sender::new(ConnectionUse {
                exchanges: 0,
                changed: Instant::now(),
            }),
            begun: CancellationToken::new(),
        }
    }

    fn begin(&self) -> ExchangeGuard {
        self.now.send_modify(|usage| {
            usage.exchanges += 1;
            usage.changed = Instant::now();
        });
        self.begun.cancel();
        ExchangeGuard(self.now.clone())
    }

    /// Returns when a connection that is being drained may be told to end after what it has in hand.
    async fn wait_until_quiet(&self) {
        sleep(DRAIN_SETTLE).await;
        if self.begun.is_cancelled() {
            let _ = timeout(DRAIN_QUIET_TIMEOUT, self.idle_for(DRAIN_QUIET_PERIOD)).await;
        } else {
            let _ = timeout(DRAIN_FIRST_REQUEST, self.begun.cancelled()).await;
        }
    }

    /// Returns once there has been no exchange for `time`.
    async fn idle_for(&self, time: Duration) {
        let mut changes = self.now.subscribe();
        loop {
            let ConnectionUse { exchanges, changed } = *changes.borrow_and_update();
            tokio::select! {
                () = sleep_until(changed + time), if exchanges == 0 => return,
                // Any change, so that an exchange that is over in no time counts. The sender is `self`, so this cannot fail.
                _ = changes.changed() => {}
            }
        }
    }
}

impl Drop for ExchangeGuard {
    fn drop(&mut self) {
        self.0.send_modify(|usage| {
            usage.exchanges = usage.exchanges.saturating_sub(1);
            usage.changed = Instant::now();
        });
    }
}

impl<F> Executor<F> for TrackedExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_only_after_its_last_exchange() {
        let activity = Activity::new();
        let limit = Duration::from_secs(60);
        let began = Instant::now();
        let (first, second) = (activity.begin(), activity.begin());
        let exchanges = async {
            sleep(Duration::from_secs(100)).await;
            drop(first);
            sleep(Duration::from_secs(100)).await;
            drop(second);
            sleep(Duration::from_secs(30)).await;
            drop(activity.begin());
        };
        tokio::join!(activity.idle_for(limit), exchanges);
        assert_eq!(began.elapsed(), Duration::from_secs(290));
    }
}
