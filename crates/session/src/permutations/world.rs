//! A registry with fakes around it that give way to others wherever they wait, and what must hold of it at rest.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Method, Request, Response, header};
use secrecy::SecretString;
use shuttle::future::{JoinHandle, spawn, yield_now};
use tokio_util::sync::CancellationToken;

use crate::{
    Config, Registry, RegistryBuilder, Stats,
    open::MCP_SESSION_ID,
    ports::{
        Backend, BackendGone, Body, BoxFuture, Caller, ClientId, Credential, CredentialError, Credentials, Event,
        GrantId, Observer, Snapshot, SpawnError, SpawnOrder, Spawner, UserId,
    },
    refusal::whole,
    registry::Shared,
    seat::Session,
};

/// Makes backends and knows all that it made.
#[derive(Debug, Default)]
pub(super) struct Yard {
    // These locks are no points of the scheduler: nobody gives way while one is held.
    made: Mutex<Vec<Arc<Fake>>>,
    /// Spawns under way, by session.
    under: Mutex<HashMap<Arc<str>, usize>>,
    pub(super) most_under: AtomicUsize,
    /// How often a session has moved to a fresh backend.
    pub(super) rotated: AtomicUsize,
}

#[derive(Debug)]
pub(super) struct Fake {
    tag: Arc<str>,
    done: CancellationToken,
    stops: AtomicUsize,
}

/// Counts a spawn while it is under way.
pub(super) struct Spawning<'a>(&'a Yard, Arc<str>);

/// What the upstream says of a credential.
#[derive(Debug, Default)]
pub(super) struct Wallet {
    pub(super) refreshes: AtomicUsize,
    pub(super) refused: AtomicBool,
}

pub(super) struct World {
    pub(super) reg: Arc<Registry>,
    pub(super) yard: Arc<Yard>,
    pub(super) wallet: Arc<Wallet>,
}

impl World {
    pub(super) fn new(config: Config) -> Self {
        let yard = Arc::<Yard>::default();
        let builder = RegistryBuilder::new(config, Arc::clone(&yard) as _).observer(Arc::clone(&yard) as _);
        let reg = Arc::new(builder.build());
        Self {
            reg,
            yard,
            wallet: Arc::default(),
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.reg.shared
    }

    pub(super) fn request(&self, method: Method, id: Option<&str>, body: &'static str) -> Request<Bytes> {
        let mut request = Request::new(Bytes::from_static(body.as_bytes()));
        *request.method_mut() = method;
        if let Some(id) = id {
            let id = id.parse().expect("a header value");
            request.headers_mut().insert(MCP_SESSION_ID, id);
        }
        request.extensions_mut().insert(Arc::new(Caller {
            grant: grant(),
            user: user(),
            client: ClientId("a-client".into()),
            credentials: Arc::clone(&self.wallet) as _,
        }));
        request
    }

    /// Serves a request on a task of its own: its status and the id of a session that it opened.
    pub(super) fn send(&self, request: Request<Bytes>) -> JoinHandle<(u16, Option<String>)> {
        let reg = Arc::clone(&self.reg);
        spawn(async move { answer(&reg, request).await })
    }

    pub(super) fn initialize(&self) -> Request<Bytes> {
        self.request(Method::POST, None, r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#)
    }

    pub(super) fn ping(&self, id: &str) -> Request<Bytes> {
        self.request(Method::POST, Some(id), r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#)
    }

    /// A session with a backend.
    pub(super) async fn open(&self) -> (String, Arc<Session>) {
        let (status, id) = answer(&self.reg, self.initialize()).await;
        assert_eq!(status, 200);
        (id.expect("an id"), self.only_session())
    }

    fn only_session(&self) -> Arc<Session> {
        let mut sessions = self.shared().table.select(|_| true);
        assert_eq!(sessions.len(), 1);
        sessions.remove(0)
    }

    pub(super) fn running(&self) -> Vec<Arc<Fake>> {
        let made = lock(&self.yard.made);
        made.iter().filter(|fake| !fake.done.is_cancelled()).cloned().collect()
    }

    pub(super) fn spawns(&self) -> usize {
        lock(&self.yard.made).len()
    }

    /// Waits until only keepers of backends in use are left, and looks at what must hold then: each backend that runs is
    /// the one in the seat of a session that has not ended, and the slots that are taken are those of the sessions.
    pub(super) async fn at_rest(&self) -> Stats {
        let sessions = self.shared().table.select(|_| true);
        // Keepers give slots back last, so that they are waited for by their slots.
        for _ in 0.. {
            let seated = sessions.iter().filter(|session| session.seat().is_some()).count();
            if self.running().len() <= seated && self.shared().caps.taken() <= sessions.len() {
                break;
            }
            yield_now().await;
        }
        for fake in self.running() {
            let of = sessions.iter().find(|session| session.tag == fake.tag);
            let seat = of
                .and_then(|session| session.seat())
                .expect("a backend that nobody owns");
            assert!(
                !seat.backend.is_gone(),
                "the backend that runs is not the one in the seat"
            );
        }
        assert_eq!(self.shared().caps.taken(), sessions.len());
        assert!(sessions.iter().all(|session| session.inner().flight.is_none()));
        self.reg.stats()
    }

    /// Stops the registry: nothing may be left.
    pub(super) async fn stop(self) {
        self.reg.stop().await;
        assert_eq!(self.running().len(), 0, "a backend is left");
        assert_eq!(self.reg.stats(), Stats::default());
        assert!(lock(&self.yard.under).values().all(|under| *under == 0));
    }
}

pub(super) async fn answer(reg: &Registry, request: Request<Bytes>) -> (u16, Option<String>) {
    let response = reg.serve(request).await;
    let id = response.headers().get(MCP_SESSION_ID);
    let id = id.map(|id| id.to_str().expect("text").to_owned());
    (response.status().as_u16(), id)
}

pub(super) fn durable() -> Config {
    Config {
        retain: Duration::from_secs(3600),
        idle_timeout: Duration::ZERO,
        ..Config::default()
    }
}

pub(super) fn grant() -> GrantId {
    GrantId("grant".into())
}

pub(super) fn user() -> UserId {
    UserId("user".into())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Spawner for Yard {
    fn spawn(&self, order: SpawnOrder) -> BoxFuture<'_, Result<Arc<dyn Backend>, SpawnError>> {
        Box::pin(async move {
            let _spawning = Spawning::begin(self, &order.tag);
            let current = order.caller.credentials.current().await;
            current.map_err(|error| SpawnError::Credentials(error.into()))?;
            yield_now().await;
            let fake = Arc::new(Fake {
                tag: order.tag,
                done: CancellationToken::new(),
                stops: AtomicUsize::new(0),
            });
            lock(&self.made).push(Arc::clone(&fake));
            Ok(fake as Arc<dyn Backend>)
        })
    }
}

impl Observer for Yard {
    fn on(&self, event: Event) {
        if event == Event::Rotated {
            self.rotated.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl<'a> Spawning<'a> {
    fn begin(yard: &'a Yard, tag: &Arc<str>) -> Self {
        let mut under = lock(&yard.under);
        let of = under.entry(Arc::clone(tag)).or_default();
        *of += 1;
        yard.most_under.fetch_max(*of, Ordering::SeqCst);
        Self(yard, Arc::clone(tag))
    }
}

impl Drop for Spawning<'_> {
    fn drop(&mut self) {
        if let Some(of) = lock(&self.0.under).get_mut(&self.1) {
            *of -= 1;
        }
    }
}

impl Fake {
    pub(super) fn die(&self) {
        self.done.cancel();
    }
}

impl Backend for Fake {
    fn serve(&self, _request: Request<Bytes>) -> BoxFuture<'_, Response<Body>> {
        Box::pin(async {
            yield_now().await;
            let mut response = Response::new(whole(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#));
            let json = header::HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            if self.done.is_cancelled() {
                response.extensions_mut().insert(BackendGone);
            }
            response
        })
    }

    fn done(&self) -> CancellationToken {
        self.done.clone()
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.stops.fetch_add(1, Ordering::SeqCst);
            yield_now().await;
            self.die();
        })
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot(Bytes::from_static(b"handshake")))
    }
}

impl Credentials for Wallet {
    fn current(&self) -> BoxFuture<'_, Result<Credential, CredentialError>> {
        Box::pin(async {
            yield_now().await;
            Ok(Credential {
                access_token: SecretString::from("token"),
                expires_at: SystemTime::UNIX_EPOCH,
            })
        })
    }

    fn refresh(&self) -> BoxFuture<'_, Result<Credential, CredentialError>> {
        Box::pin(async {
            self.refreshes.fetch_add(1, Ordering::SeqCst);
            yield_now().await;
            if self.refused.load(Ordering::SeqCst) {
                return Err(CredentialError::Terminal("refused".into()));
            }
            self.current().await
        })
    }
}
