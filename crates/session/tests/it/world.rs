//! A registry with everything around it scripted: backends, credentials that expire, durable records, the wall clock.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Method, Request, Response};
use secrecy::SecretString;
use session::{
    Config, Registry, RegistryBuilder,
    ports::{
        Body, BoxError, BoxFuture, Caller, Change, Clock, Credential, CredentialError, Credentials, Event, Observer,
        Record, Records, RecordsError, SessionKey, Snapshot, UserId,
    },
};
use tokio::time::Instant;

use crate::fakes::{
    Outcome, RecordingBackend, ScriptedSpawner, TAKEN_BACK, caller, lock, request, rpc, session_id, text,
};

/// How long credentials live.
pub(crate) const LIFETIME: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) reg: Arc<Registry>,
    pub(crate) spawner: Arc<ScriptedSpawner>,
    pub(crate) records: Arc<MemoryRecords>,
    pub(crate) events: Arc<Heard>,
    wallets: Mutex<BTreeMap<String, Arc<Wallet>>>,
    clock: Arc<PausedClock>,
    config: Config,
}

/// The wall clock of paused time.
#[derive(Debug)]
struct PausedClock {
    start: Instant,
}

/// The credential of one user.
#[derive(Debug)]
pub(crate) struct Wallet {
    clock: Arc<PausedClock>,
    expires_at: Mutex<SystemTime>,
    /// The token as it stands.
    token: Mutex<&'static str>,
    pub(crate) refreshes: AtomicUsize,
    pub(crate) answers: Mutex<Answers>,
    /// How long a refresh takes.
    pub(crate) delay: Mutex<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    Renewed,
    Later,
    Never,
}

#[derive(Debug, Default)]
pub(crate) struct MemoryRecords {
    pub(crate) rows: Mutex<BTreeMap<SessionKey, (Record, Snapshot)>>,
    pub(crate) endings: Mutex<Vec<(SystemTime, SessionKey)>>,
    pub(crate) refuses: Mutex<bool>,
    /// What is told to those who open them.
    pub(crate) shared: Mutex<bool>,
    pub(crate) batches: AtomicUsize,
}

/// Remembers what happened.
#[derive(Debug, Default)]
pub(crate) struct Heard(pub(crate) Mutex<Vec<Event>>);

impl World {
    pub(crate) async fn new(config: Config) -> Self {
        Self::with(config, ScriptedSpawner::immediate(Outcome::Good)).await
    }

    pub(crate) async fn with(config: Config, spawner: Arc<ScriptedSpawner>) -> Self {
        let clock = Arc::new(PausedClock { start: Instant::now() });
        let (records, events) = (Arc::<MemoryRecords>::default(), Arc::<Heard>::default());
        let reg = build(&config, &spawner, &records, &events, &clock).await;
        Self {
            reg,
            spawner,
            records,
            events,
            wallets: Mutex::default(),
            clock,
            config,
        }
    }

    /// Another registry on the same records, as after a restart.
    pub(crate) async fn restart(&mut self) {
        self.reg = build(&self.config, &self.spawner, &self.records, &self.events, &self.clock).await;
    }

    pub(crate) fn lower_user_cap(&mut self, cap: usize) {
        self.config.max_sessions_per_user = cap;
    }

    pub(crate) fn wallet(&self, user: &str) -> Arc<Wallet> {
        let mut wallets = lock(&self.wallets);
        let wallet = wallets.entry(user.to_owned()).or_insert_with(|| {
            Arc::new(Wallet {
                clock: Arc::clone(&self.clock),
                expires_at: Mutex::new(self.clock.now() + LIFETIME),
                token: Mutex::new("token"),
                refreshes: AtomicUsize::new(0),
                answers: Mutex::new(Answers::Renewed),
                delay: Mutex::default(),
            })
        });
        Arc::clone(wallet)
    }

    pub(crate) fn request(&self, method: Method, who: &str, id: Option<&str>, body: &str) -> Request<Bytes> {
        let mut request = request(method, who, id, body);
        let caller = caller(who);
        let credentials = self.wallet(&caller.user.0) as Arc<dyn Credentials>;
        let caller = Caller {
            credentials,
            ..Arc::unwrap_or_clone(caller)
        };
        request.extensions_mut().insert(Arc::new(caller));
        request
    }

    pub(crate) async fn send(&self, method: Method, who: &str, id: Option<&str>, body: &str) -> Response<Body> {
        self.reg.serve(self.request(method, who, id, body)).await
    }

    /// Opens a session, with the whole handshake.
    pub(crate) async fn open(&self, who: &str) -> String {
        let response = self.send(Method::POST, who, None, &rpc("1", "initialize")).await;
        let id = session_id(&response).expect("a session id");
        drop(text(response).await);
        let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        drop(self.send(Method::POST, who, Some(&id), initialized).await);
        id
    }

    /// The status and the body of a ping.
    pub(crate) async fn ping(&self, who: &str, id: &str) -> (u16, String) {
        let response = self.send(Method::POST, who, Some(id), &rpc("77", "ping")).await;
        (response.status().as_u16(), text(response).await)
    }

    /// A ping that must be answered by the backend, with the id of the request.
    pub(crate) async fn must_answer(&self, who: &str, id: &str) {
        let (status, body) = self.ping(who, id).await;
        assert_eq!(
            (status, body.as_str()),
            (200, r#"{"jsonrpc":"2.0","id":77,"result":{}}"#)
        );
    }

    /// The backends of a session that run and have not been told to stop.
    pub(crate) fn serving(&self, tag: &str) -> Vec<Arc<RecordingBackend>> {
        let backends = lock(&self.spawner.backends);
        let of = backends
            .iter()
            .filter(|backend| &*backend.tag == tag && !backend.is_gone());
        of.filter(|backend| backend.stops.load(Ordering::SeqCst) == 0)
            .cloned()
            .collect()
    }

    pub(crate) fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        lock(&self.events.0).iter().filter(|event| wanted(event)).count()
    }
}

async fn build(
    config: &Config,
    spawner: &Arc<ScriptedSpawner>,
    records: &Arc<MemoryRecords>,
    events: &Arc<Heard>,
    clock: &Arc<PausedClock>,
) -> Arc<Registry> {
    let builder = RegistryBuilder::new(config.clone(), Arc::clone(spawner) as _)
        .records(Arc::clone(records) as _)
        .observer(Arc::clone(events) as _)
        .clock(Arc::clone(clock) as _);
    Arc::new(builder.open().await.expect("records"))
}

/// The user of a caller.
pub(crate) fn user(name: &str) -> UserId {
    caller(name).user.clone()
}

impl Wallet {
    pub(crate) fn expires_at(&self) -> SystemTime {
        *lock(&self.expires_at)
    }

    /// A sign-in has put a new credential here.
    pub(crate) fn replace(&self) {
        *lock(&self.expires_at) = self.clock.now() + LIFETIME;
        *lock(&self.token) = "token";
    }

    /// The user has taken the credential back upstream. Nothing here shows it.
    pub(crate) fn take_back(&self) {
        *lock(&self.token) = TAKEN_BACK;
    }
}

impl Credentials for Wallet {
    fn current(&self) -> BoxFuture<'_, Result<Credential, CredentialError>> {
        Box::pin(async {
            let expires_at = *lock(&self.expires_at);
            if expires_at > self.clock.now() {
                return Ok(Credential {
                    access_token: SecretString::from(*lock(&self.token)),
                    expires_at,
                });
            }
            self.refresh().await
        })
    }

    fn refresh(&self) -> BoxFuture<'_, Result<Credential, CredentialError>> {
        Box::pin(async {
            self.refreshes.fetch_add(1, Ordering::SeqCst);
            let delay = *lock(&self.delay);
            tokio::time::sleep(delay).await;
            let answers = *lock(&self.answers);
            match answers {
                Answers::Renewed => self.replace(),
                Answers::Later => return Err(CredentialError::Transient(BoxError::from("later"))),
                Answers::Never => return Err(CredentialError::Terminal(BoxError::from("never"))),
            }
            let expires_at = *lock(&self.expires_at);
            Ok(Credential {
                access_token: SecretString::from(*lock(&self.token)),
                expires_at,
            })
        })
    }
}

impl Clock for PausedClock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30) + self.start.elapsed()
    }
}

impl Observer for Heard {
    fn on(&self, event: Event) {
        lock(&self.0).push(event);
    }
}

impl Records for MemoryRecords {
    fn all(&self) -> BoxFuture<'_, Result<Vec<Record>, RecordsError>> {
        Box::pin(async { Ok(lock(&self.rows).values().map(|(record, _)| record.clone()).collect()) })
    }

    fn snapshot(&self, key: SessionKey) -> BoxFuture<'_, Result<Option<Snapshot>, RecordsError>> {
        Box::pin(async move { Ok(lock(&self.rows).get(&key).map(|(_, snapshot)| snapshot.clone())) })
    }

    fn ended(&self, most: usize) -> BoxFuture<'_, Result<Vec<SessionKey>, RecordsError>> {
        Box::pin(async move {
            let endings = lock(&self.endings);
            let newest = endings.iter().skip(endings.len().saturating_sub(most));
            Ok(newest.map(|(_, key)| *key).collect())
        })
    }

    fn forget_ended(&self, before: SystemTime, most: usize) -> BoxFuture<'_, Result<(), RecordsError>> {
        Box::pin(async move {
            let mut endings = lock(&self.endings);
            endings.retain(|(at, _)| *at >= before);
            let excess = endings.len().saturating_sub(most);
            endings.drain(..excess);
            Ok(())
        })
    }

    fn is_shared(&self) -> bool {
        *lock(&self.shared)
    }

    fn apply(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), RecordsError>> {
        Box::pin(async move {
            if *lock(&self.refuses) {
                return Err(RecordsError::Unavailable("no".into()));
            }
            self.batches.fetch_add(1, Ordering::SeqCst);
            let mut rows = lock(&self.rows);
            for change in changes {
                match change {
                    Change::Save(record, snapshot) => {
                        if !lock(&self.endings).iter().any(|(_, ended)| *ended == record.key) {
                            rows.insert(record.key, (record, snapshot));
                        }
                    }
                    Change::Touch(key, last_activity) => {
                        if let Some((record, _)) = rows.get_mut(&key) {
                            record.last_activity = last_activity;
                        }
                    }
                    Change::ExpireIfUnused {
                        key,
                        last_activity: used,
                        ..
                    } if rows.get(&key).is_some_and(|(record, _)| record.last_activity > used) => {}
                    Change::End(key, at) | Change::ExpireIfUnused { key, at, .. } => {
                        rows.remove(&key);
                        let mut endings = lock(&self.endings);
                        if !endings.iter().any(|(_, ended)| *ended == key) {
                            endings.push((at, key));
                        }
                    }
                }
            }
            Ok(())
        })
    }
}
