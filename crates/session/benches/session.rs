//! The cost of the registry itself: `cargo bench -p session`, or `cargo xtask bench session`.
//!
//! Scripted backends answer at once, so the figures are those of the registry: the dispatch of one
//! request among 10, 1,000 and 100,000 sessions; the memory of a dormant session and of an attached
//! one; a revival without the start of its backend; and requests during rotation, none of which may
//! fail. Plain loops and a sorted list of times, no framework: the figures compare two states of
//! the code on one machine.
#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::BodyExt;
use session::{
    Config, Registry,
    ports::{Caller, SystemClock},
    testing::{ScriptedCredentials, ScriptedSpawner, caller},
};
use tokio::{task::JoinSet, time::Instant};

/// Measured durations.
struct Times(Vec<Duration>);

/// The number of sessions for a measurement of memory.
const COUNT: usize = 50_000;
/// The arguments that select a measurement of memory.
const LIVE: &str = "live-memory";
const DORMANT: &str = "dormant-memory";
/// As long as the handshake of a client with a name and capabilities.
const SNAPSHOT: &[u8] = &[b'x'; 400];
/// The lifetime of a credential where sessions are rotated.
const LIFETIME: Duration = Duration::from_secs(1);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        match std::env::args().nth(1).as_deref() {
            Some(LIVE) => return live_memory().await,
            Some(DORMANT) => return dormant_memory().await,
            _ => {}
        }
        dispatch().await;
        // Each in a process of its own: memory that an earlier part has freed would be reused and
        // not be measured.
        for part in [LIVE, DORMANT] {
            let program = std::env::current_exe().expect("this program");
            let status = std::process::Command::new(program).arg(part).status();
            assert!(status.expect("this program starts").success());
        }
        revival().await;
        rotation().await;
    });
}

async fn dispatch() {
    let mut medians = Vec::new();
    for count in [10, 1_000, 100_000] {
        let registry = registry(config());
        let sessions = open(&registry, count, None).await;
        let mut times = Times(Vec::new());
        for round in 0..50_000_usize {
            // Far apart, so that caches do not help.
            let (caller, id) = &sessions[round.wrapping_mul(48_271) % count];
            // Made outside of the measurement, as by the server that has read it.
            let request = request(caller, Some(id), "ping");
            let began = Instant::now();
            must_answer(&registry, request).await;
            times.0.push(began.elapsed());
        }
        println!("dispatch among {count:>6} sessions: {}", times.summary());
        medians.push(times.quantile(0.5).as_secs_f64());
        registry.stop().await;
    }
    println!(
        "dispatch, last over first: {:.2} (aim: at most 1.5)",
        medians[2] / medians[0]
    );
}

async fn live_memory() {
    let live = registry(config());
    let before = resident();
    open(&live, COUNT, None).await;
    let each = resident().saturating_sub(before) / COUNT;
    println!("memory of a session with a backend: {each} bytes (aim: at most 24576)");
    live.stop().await;
}

async fn dormant_memory() {
    let dormant = registry(Config {
        idle_timeout: Duration::from_millis(1),
        reap_interval: Duration::from_millis(1),
        ..config()
    });
    // In batches, so that later sessions reuse the memory that earlier ones freed when they became
    // dormant.
    let before = resident();
    let mut all = Vec::new();
    for _ in 0..COUNT / 500 {
        all.extend(open(&dormant, 500, None).await);
        while dormant.stats().dormant < all.len() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let each = resident().saturating_sub(before) / COUNT;
    println!("memory of a dormant session: {each} bytes (aim: at most 2048)");
    dormant.stop().await;
}

async fn revival() {
    const DORMANT_SESSIONS: usize = 2_000;
    let registry = registry(Config {
        idle_timeout: Duration::from_millis(1),
        reap_interval: Duration::from_millis(1),
        ..config()
    });
    let sessions = open(&registry, DORMANT_SESSIONS, None).await;
    while registry.stats().dormant < DORMANT_SESSIONS {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut times = Times(Vec::new());
    for (caller, id) in &sessions {
        let began = Instant::now();
        ping(&registry, caller, id).await;
        times.0.push(began.elapsed());
    }
    println!(
        "revival over the backend's own start: {} (aim: under 3 ms)",
        times.summary()
    );
    registry.stop().await;
}

async fn rotation() {
    const SESSIONS: usize = 200;
    let spawner = spawner();
    let config = Config {
        rotate_interval: Duration::from_millis(20),
        ..config()
    };
    let registry = Arc::new(Registry::new(config, Arc::clone(&spawner) as _));
    let sessions = open(&registry, SESSIONS, Some(LIFETIME)).await;
    let over = Arc::new(AtomicBool::new(false));
    let mut load = JoinSet::new();
    for (caller, id) in sessions {
        let (registry, over) = (Arc::clone(&registry), Arc::clone(&over));
        load.spawn(async move {
            let mut requests = 0_usize;
            while !over.load(Ordering::Relaxed) {
                ping(&registry, &caller, &id).await;
                requests += 1;
                tokio::task::yield_now().await;
            }
            requests
        });
    }
    tokio::time::sleep(LIFETIME * 4).await;
    over.store(true, Ordering::Relaxed);
    let requests: usize = load.join_all().await.iter().sum();
    let rotations = spawner.spawn_count() - SESSIONS;
    println!("rotation under load: {requests} requests over {rotations} rotations, 0 errors");
    registry.stop().await;
}

fn config() -> Config {
    Config {
        max_sessions: 1 << 20,
        max_sessions_per_user: 1 << 20,
        retain: Duration::from_secs(3600),
        stop_deadline: Duration::from_secs(60),
        ..Config::default()
    }
}

fn spawner() -> Arc<ScriptedSpawner> {
    ScriptedSpawner::unrecorded(Bytes::from_static(SNAPSHOT))
}

fn registry(config: Config) -> Registry {
    Registry::new(config, spawner())
}

/// Opens sessions of 100 users, whose credentials expire if they have a lifetime.
async fn open(registry: &Registry, count: usize, lifetime: Option<Duration>) -> Vec<(Arc<Caller>, HeaderValue)> {
    let callers: Vec<_> = (0..100)
        .map(|user| {
            let credentials = match lifetime {
                Some(lifetime) => ScriptedCredentials::expiring(Arc::new(SystemClock), lifetime),
                None => ScriptedCredentials::permanent(),
            };
            Arc::new(Caller {
                credentials: Arc::new(credentials),
                ..Arc::unwrap_or_clone(caller(&format!("user-{user}/grant")))
            })
        })
        .collect();
    let mut sessions = Vec::with_capacity(count);
    for number in 0..count {
        let caller = &callers[number % callers.len()];
        let opened = registry.serve(request(caller, None, "initialize")).await.response;
        let id = opened.headers().get("mcp-session-id").cloned().expect("a session id");
        sessions.push((Arc::clone(caller), id));
    }
    sessions
}

async fn ping(registry: &Registry, caller: &Arc<Caller>, id: &HeaderValue) {
    must_answer(registry, request(caller, Some(id), "ping")).await;
}

async fn must_answer(registry: &Registry, request: Request<Bytes>) {
    let answer = registry.serve(request).await.response;
    assert_eq!(answer.status(), StatusCode::OK);
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    assert!(body.starts_with(br#"{"jsonrpc":"2.0","id":1,"result""#));
}

fn request(caller: &Arc<Caller>, id: Option<&HeaderValue>, method: &str) -> Request<Bytes> {
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#);
    let mut request = Request::new(Bytes::from(body));
    *request.method_mut() = Method::POST;
    if let Some(id) = id {
        request.headers_mut().insert("mcp-session-id", id.clone());
    }
    request.extensions_mut().insert(Arc::clone(caller));
    request
}

/// The resident memory of this process, in bytes.
fn resident() -> usize {
    const PAGE: usize = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or_default() * PAGE
}

impl Times {
    fn quantile(&self, of: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index within the list"
        )]
        let index = ((sorted.len() - 1) as f64 * of) as usize;
        sorted[index]
    }

    fn summary(&self) -> String {
        let [half, most, nearly] = [0.5, 0.99, 0.999].map(|of| self.quantile(of));
        format!("p50 {half:?}, p99 {most:?}, p99.9 {nearly:?}")
    }
}
