//! What the registry itself costs: `cargo bench -p session`, or `cargo xtask bench session`.
//!
//! Backends are fakes that answer at once, so that what is measured is the registry: the dispatch of one request among 10,
//! 1,000 and 100,000 sessions; the memory of a dormant session and of one with a backend; a revival over its backend's own start;
//! and requests under rotation, none of which may fail. Plain loops and a sorted list of times, no framework: the numbers
//! are for comparing one state of the code with another on one machine.
#![expect(clippy::print_stdout, reason = "a benchmark talks to whoever runs it")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use session::{
    Config, Registry,
    ports::{
        Backend, Body, BoxFuture, Caller, ClientId, Credential, CredentialError, Credentials, GrantId, Snapshot,
        SpawnError, SpawnOrder, Spawner, UserId,
    },
};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

/// Makes backends that answer at once.
#[derive(Debug)]
struct Fakes {
    spawned: AtomicUsize,
    lifetime: Option<Duration>,
}

#[derive(Debug)]
struct Fake {
    done: CancellationToken,
    expires_at: Option<SystemTime>,
}

/// A credential that is renewed whenever that is asked for.
#[derive(Debug)]
struct Renewed {
    lifetime: Duration,
    until: AtomicU64,
}

/// The times that something took, or the sizes that something had.
struct Times(Vec<Duration>);

/// How many sessions the memory of one is measured by.
const COUNT: usize = 50_000;
/// The arguments by which this program measures memory.
const LIVE: &str = "live-memory";
const DORMANT: &str = "dormant-memory";
/// As long as that of a client that names itself and its capabilities.
const SNAPSHOT: &[u8] = &[b'x'; 400];

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
        // Each in a process of its own: what others have left free would be taken first, and not be seen.
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
        let registry = registry(config(), None);
        let sessions = open(&registry, count).await;
        let mut times = Times(Vec::new());
        for turn in 0..50_000_usize {
            // Far apart, so that neither the table nor a cache has an easy time.
            let (caller, id) = &sessions[turn.wrapping_mul(48_271) % count];
            // Whoever has read and authenticated a request has just made it.
            let request = request(caller, Some(id), "ping");
            let began = Instant::now();
            answered(&registry, request).await;
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
    let live = registry(config(), None);
    let before = resident();
    open(&live, COUNT).await;
    let each = resident().saturating_sub(before) / COUNT;
    println!("memory of a session with a backend: {each} bytes (aim: at most 24576)");
    live.stop().await;
}

async fn dormant_memory() {
    let dormant = registry(
        Config {
            idle_timeout: Duration::from_millis(1),
            reap_interval: Duration::from_millis(1),
            ..config()
        },
        None,
    );
    // A few first, so that what the sleepers leave free is taken again by those that follow.
    let before = resident();
    let mut all = Vec::new();
    for _ in 0..COUNT / 500 {
        all.extend(open(&dormant, 500).await);
        while dormant.stats().dormant < all.len() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let each = resident().saturating_sub(before) / COUNT;
    println!("memory of a dormant session: {each} bytes (aim: at most 2048)");
    dormant.stop().await;
}

async fn revival() {
    const SLEEPERS: usize = 2_000;
    let registry = registry(
        Config {
            idle_timeout: Duration::from_millis(1),
            reap_interval: Duration::from_millis(1),
            ..config()
        },
        None,
    );
    let sessions = open(&registry, SLEEPERS).await;
    while registry.stats().dormant < SLEEPERS {
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
    const MOVING: usize = 200;
    let lifetime = Duration::from_secs(1);
    let fakes = Arc::new(Fakes {
        spawned: AtomicUsize::new(0),
        lifetime: Some(lifetime),
    });
    let config = Config {
        rotate_interval: Duration::from_millis(20),
        ..config()
    };
    let registry = Arc::new(Registry::new(config, Arc::clone(&fakes) as _));
    let sessions = open(&registry, MOVING).await;
    let over = Arc::new(AtomicBool::new(false));
    let mut load = JoinSet::new();
    for (caller, id) in sessions {
        let (registry, over) = (Arc::clone(&registry), Arc::clone(&over));
        load.spawn(async move {
            let mut requests = 0_usize;
            while !over.load(Ordering::Relaxed) {
                // Panics on any answer but a good one.
                ping(&registry, &caller, &id).await;
                requests += 1;
                tokio::task::yield_now().await;
            }
            requests
        });
    }
    tokio::time::sleep(lifetime * 4).await;
    over.store(true, Ordering::Relaxed);
    let requests: usize = load.join_all().await.iter().sum();
    let moves = fakes.spawned.load(Ordering::Relaxed) - MOVING;
    println!("rotation under load: {requests} requests over {moves} moves, 0 errors");
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

fn registry(config: Config, lifetime: Option<Duration>) -> Arc<Registry> {
    let fakes = Fakes {
        spawned: AtomicUsize::new(0),
        lifetime,
    };
    Arc::new(Registry::new(config, Arc::new(fakes)))
}

async fn open(registry: &Registry, count: usize) -> Vec<(Arc<Caller>, HeaderValue)> {
    let mut sessions = Vec::with_capacity(count);
    for number in 0..count {
        let user = number % 100;
        let caller = Arc::new(Caller {
            grant: GrantId(format!("grant-{user}").into()),
            user: UserId(format!("user-{user}").into()),
            client: ClientId("bench".into()),
            credentials: Arc::new(Renewed {
                lifetime: Duration::from_secs(1),
                until: AtomicU64::new(0),
            }),
        });
        let opened = registry.serve(request(&caller, None, "initialize")).await;
        let id = opened.headers().get("mcp-session-id").cloned().expect("a session id");
        sessions.push((caller, id));
    }
    sessions
}

async fn ping(registry: &Registry, caller: &Arc<Caller>, id: &HeaderValue) {
    answered(registry, request(caller, Some(id), "ping")).await;
}

async fn answered(registry: &Registry, request: Request<Bytes>) {
    let answer = registry.serve(request).await;
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

/// The memory of this process that is in use, in bytes.
fn resident() -> usize {
    const PAGE: usize = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or_default() * PAGE
}

#[expect(clippy::disallowed_methods, reason = "credentials expire by the calendar")]
fn now() -> SystemTime {
    SystemTime::now()
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

impl Spawner for Fakes {
    fn spawn(&self, order: SpawnOrder) -> BoxFuture<'_, Result<Arc<dyn Backend>, SpawnError>> {
        Box::pin(async move {
            self.spawned.fetch_add(1, Ordering::Relaxed);
            let expires_at = match self.lifetime {
                Some(_) => {
                    let credential = order.caller.credentials.current().await;
                    Some(
                        credential
                            .map_err(|error| SpawnError::Credentials(error.into()))?
                            .expires_at,
                    )
                }
                None => None,
            };
            Ok(Arc::new(Fake {
                done: CancellationToken::new(),
                expires_at,
            }) as Arc<dyn Backend>)
        })
    }
}

impl Backend for Fake {
    fn serve(&self, _request: Request<Bytes>) -> BoxFuture<'_, Response<Body>> {
        Box::pin(async {
            let body = Full::new(Bytes::from_static(br#"{"jsonrpc":"2.0","id":1,"result":{}}"#));
            Response::new(body.map_err(|never| match never {}).boxed_unsync())
        })
    }

    fn done(&self) -> CancellationToken {
        self.done.clone()
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.done.cancel() })
    }

    fn snapshot(&self) -> Option<Snapshot> {
        // A copy of its own, as a backend that keeps a record has.
        Some(Snapshot(Bytes::copy_from_slice(SNAPSHOT)))
    }

    fn expires_at(&self) -> Option<SystemTime> {
        self.expires_at
    }
}

impl Credentials for Renewed {
    fn current(&self) -> BoxFuture<'_, Result<Credential, CredentialError>> {
        Box::pin(async {
            let until = SystemTime::UNIX_EPOCH + Duration::from_millis(self.until.load(Ordering::Relaxed));
            if until <= now() {
                return self.refresh().await;
            }
            Ok(Credential {
                access_token: "token".into(),
                expires_at: until,
            })
        })
    }

    fn refresh(&self) -> BoxFuture<'_, Result<Credential, CredentialError>> {
        Box::pin(async {
            let expires_at = now() + self.lifetime;
            let since = expires_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            self.until
                .store(u64::try_from(since.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
            Ok(Credential {
                access_token: "token".into(),
                expires_at: SystemTime::UNIX_EPOCH
                    + Duration::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            })
        })
    }
}
