//! Several processes on one store: their concurrent work ends no access that no process has
//! revoked.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use http::StatusCode;
use oauth::{
    Account, AccountError, UpstreamToken,
    ids::{LeaseOwner, TokenVersion},
    ports::{
        AccountStore as _, BoxFuture, GrantedScope, RefusalOutcome, RefusedTokens, RevocationStore as _, Upstream,
        UpstreamError, UpstreamTokens, UpstreamUser,
    },
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::runtime::Runtime;
use url::Url;

use crate::{
    browser::Browser,
    scripted_upstream::{Gate, ScriptedUpstream},
    world::{ALICE, BOB, Tokens, World},
};

/// The connection of one process to the shared upstream. A test holds or delays its answers.
#[derive(Debug)]
struct UpstreamLink {
    upstream: Arc<ScriptedUpstream>,
    answers: Gate,
    /// Lookups of users pass this gate.
    user_lookups: Gate,
    rng: Option<Arc<TestRng>>,
}

/// Pseudorandom numbers, the same for one seed (xorshift).
#[derive(Debug)]
struct TestRng(Mutex<u64>);

impl UpstreamLink {
    fn to(world: &World) -> Arc<Self> {
        Arc::new(Self {
            upstream: Arc::clone(&world.upstream),
            answers: Gate::default(),
            user_lookups: Gate::default(),
            rng: None,
        })
    }

    fn with_rng(world: &World, rng: &Arc<TestRng>) -> Arc<Self> {
        Arc::new(Self {
            upstream: Arc::clone(&world.upstream),
            answers: Gate::default(),
            user_lookups: Gate::default(),
            rng: Some(Arc::clone(rng)),
        })
    }

    async fn delay(&self) {
        if let Some(rng) = &self.rng {
            rng.yield_randomly().await;
        }
    }

    async fn return_path(&self) {
        self.answers.pass().await;
        self.delay().await;
    }
}

impl TestRng {
    fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)))
    }

    fn below(&self, bound: u64) -> u64 {
        let mut state = self.0.lock().unwrap();
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state % bound
    }

    /// Yields to other tasks a random number of times.
    async fn yield_randomly(&self) {
        for _ in 0..self.below(200) {
            tokio::task::yield_now().await;
        }
    }
}

impl Upstream for UpstreamLink {
    fn name(&self) -> &str {
        self.upstream.name()
    }

    fn permissions(&self) -> Vec<String> {
        self.upstream.permissions()
    }

    fn reads_organizations(&self) -> bool {
        self.upstream.reads_organizations()
    }

    fn authorize_url(&self, state: &str, challenge: &str, redirect_uri: &str) -> Url {
        self.upstream.authorize_url(state, challenge, redirect_uri)
    }

    fn exchange<'a>(
        &'a self,
        code: &'a SecretString,
        verifier: &'a SecretString,
        redirect_uri: &'a str,
    ) -> BoxFuture<'a, Result<UpstreamTokens, UpstreamError>> {
        Box::pin(async move {
            self.delay().await;
            let answer = self.upstream.exchange(code, verifier, redirect_uri).await;
            self.return_path().await;
            answer
        })
    }

    fn refresh<'a>(&'a self, refresh_token: &'a SecretString) -> BoxFuture<'a, Result<UpstreamTokens, UpstreamError>> {
        Box::pin(async move {
            self.delay().await;
            let answer = self.upstream.refresh(refresh_token).await;
            self.return_path().await;
            answer
        })
    }

    fn user<'a>(&'a self, access_token: &'a SecretString) -> BoxFuture<'a, Result<UpstreamUser, UpstreamError>> {
        Box::pin(async move {
            self.delay().await;
            self.user_lookups.pass().await;
            self.upstream.user(access_token).await
        })
    }

    fn granted_scope<'a>(
        &'a self,
        access_token: &'a SecretString,
    ) -> BoxFuture<'a, Result<GrantedScope, UpstreamError>> {
        self.upstream.granted_scope(access_token)
    }

    fn settings_url(&self) -> Url {
        self.upstream.settings_url()
    }

    fn is_member<'a>(
        &'a self,
        access_token: &'a SecretString,
        organization: &'a str,
        login: &'a str,
    ) -> BoxFuture<'a, Result<bool, UpstreamError>> {
        self.upstream.is_member(access_token, organization, login)
    }
}

/// Two processes on one store, and a user who has signed in at the first.
struct TwoProcesses {
    one: World,
    two: World,
    /// The connection of the second process.
    link: Arc<UpstreamLink>,
    client: String,
    tokens: Tokens,
}

impl TwoProcesses {
    async fn new() -> Self {
        let one = World::new().await;
        let link = UpstreamLink::to(&one);
        let two = one.another(Arc::clone(&link) as _).await;
        let client = one.client().await;
        let tokens = one.tokens(&client, ALICE).await;
        Self {
            one,
            two,
            link,
            client,
            tokens,
        }
    }

    /// The account of the user in each process, after the upstream token has expired.
    async fn expired_accounts(&self) -> (Account, Account) {
        let here = self.one.caller(&self.tokens.access).await.account();
        let there = self.two.caller(&self.tokens.access).await.account();
        self.one.clock.advance(Duration::from_secs(3600));
        (here, there)
    }

    /// Both processes have the tokens of one renewal.
    fn assert_one_renewal(&self, tokens: [Result<UpstreamToken, AccountError>; 2]) {
        for token in tokens {
            assert_eq!(token.unwrap().access_token.expose_secret(), "access-11-2");
        }
        assert_eq!(self.one.upstream.renewals.arrivals(), 1);
    }

    fn assert_nothing_ended(&self) {
        assert!(self.one.events.take().is_empty() && self.two.events.take().is_empty());
    }
}

/// Waits long enough for a task that can continue to do so, as a rule.
async fn settle(world: &World) {
    for _ in 0..100 {
        world.store.account(ALICE).await.unwrap();
    }
}

/// Runs all actions concurrently.
async fn join_all<F: Future<Output = ()>>(acts: impl Iterator<Item = F>) {
    let mut acts: Vec<_> = acts.map(Box::pin).collect();
    poll_fn(|context| {
        acts.retain_mut(|act| act.as_mut().poll(context).is_pending());
        if acts.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

#[tokio::test]
async fn processes_share_one_renewal() {
    let processes = TwoProcesses::new().await;
    let (here, there) = processes.expired_accounts().await;
    let (here, there) = tokio::join!(here.valid_token(), there.valid_token());
    processes.assert_one_renewal([here, there]);
}

#[tokio::test]
async fn process_gets_the_tokens_of_a_renewal_in_another_process() {
    let processes = TwoProcesses::new().await;
    let (here, there) = processes.expired_accounts().await;
    let answers = &processes.link.answers;
    answers.hold();
    let waits = async {
        // The stored tokens are invalid from here on.
        answers.arrival(1).await;
        let mut current = Box::pin(here.valid_token());
        tokio::select! {
            biased;
            outcome = &mut current => panic!("the renewal is still running: {outcome:?}"),
            () = settle(&processes.one) => {}
        }
        answers.release();
        current.await
    };
    let (there, here) = tokio::join!(there.valid_token(), waits);
    processes.assert_one_renewal([there, here]);
    processes.assert_nothing_ended();
}

#[tokio::test]
async fn waiting_process_gets_the_new_tokens_once_they_are_stored() {
    let processes = TwoProcesses::new().await;
    let (here, there) = processes.expired_accounts().await;
    let user_lookups = &processes.link.user_lookups;
    user_lookups.hold();
    let waits = async {
        // The new tokens are in the store, and the lease is held.
        user_lookups.arrival(1).await;
        let token = here.valid_token().await;
        user_lookups.release();
        token
    };
    let (there, here) = tokio::join!(there.valid_token(), waits);
    processes.assert_one_renewal([there, here]);
}

#[tokio::test]
async fn process_without_the_newest_key_ends_nothing() {
    let TwoProcesses {
        one, mut two, tokens, ..
    } = TwoProcesses::new().await;
    two.restart_with_keys(&[(1, [7; 32]), (2, [9; 32])]).await;
    assert_eq!(two.server.reseal_accounts().await.unwrap(), 1);
    let account = one.caller(&tokens.access).await.account();
    for outcome in [account.valid_token().await, account.refresh().await] {
        let error = outcome.unwrap_err();
        assert!(matches!(error, AccountError::Transient(_)), "{error:?}");
    }
    assert!(one.events.take().is_empty());
    let account = two.caller(&tokens.access).await.account();
    let token = account.refresh().await.unwrap();
    assert_eq!(token.access_token.expose_secret(), "access-11-2");
}

#[tokio::test]
async fn lease_of_a_dead_process_expires_and_ends_nothing() {
    let one = World::new().await;
    let client = one.client().await;
    let tokens = one.tokens(&client, ALICE).await;
    one.upstream.renewals.hold();
    let dies = Runtime::new().unwrap();
    let entered = dies.enter();
    let two = one.another(UpstreamLink::to(&one)).await;
    let account = two.caller(&tokens.access).await.account();
    dies.spawn(async move { account.refresh().await });
    drop(entered);
    one.upstream.renewals.arrival(1).await;
    // Its tasks end where they are, and store nothing more.
    let dead = tokio::task::spawn_blocking(|| dies.shutdown_timeout(Duration::from_secs(60)));
    dead.await.unwrap();
    drop(two);

    one.upstream.renewals.release();
    let account = one.caller(&tokens.access).await.account();
    let mut refresh = Box::pin(account.refresh());
    tokio::select! {
        biased;
        outcome = &mut refresh => panic!("the lease is still held: {outcome:?}"),
        () = settle(&one) => {}
    }
    assert_eq!(one.upstream.renewals.arrivals(), 1);
    one.clock.advance(Duration::from_secs(10));
    assert_eq!(
        refresh.await.unwrap().access_token.expose_secret(),
        "access-11-2",
        "the dead one had not reached the upstream"
    );
    assert!(one.events.take().is_empty());
    one.caller(&tokens.access).await;
}

#[tokio::test]
async fn only_process_does_not_wait_for_leases_of_dead_ones() {
    const DEAD: LeaseOwner = LeaseOwner(4711);
    let mut world = World::new().await;
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    let now = oauth::ports::Clock::now(world.clock.as_ref());
    let later = now + Duration::from_secs(1000);
    assert!(
        world
            .store
            .acquire_lease(ALICE, DEAD, later, now)
            .await
            .unwrap()
            .acquired
    );
    world.store.begin_exchange(later).await.unwrap();

    // While another process has the store open, it may hold the lease and run the exchange.
    let other = world.another(UpstreamLink::to(&world)).await;
    world.restart([7; 32]).await;
    assert!(
        !world
            .store
            .acquire_lease(ALICE, LeaseOwner(1), later, now)
            .await
            .unwrap()
            .acquired
    );
    other.store.close().await;
    world.restart([7; 32]).await;
    let account = world.caller(&tokens.access).await.account();
    account.refresh().await.unwrap();
    // No exchange delays a refusal.
    let version = world.store.account(ALICE).await.unwrap().unwrap().version;
    let refused = RefusedTokens {
        user: ALICE,
        version: Some(version),
        owner: LeaseOwner(1),
        newest: None,
    };
    let outcome = world.store.end_refused_user(refused, now).await.unwrap();
    assert_eq!(outcome, RefusalOutcome::Revoked);
}

#[tokio::test]
async fn lease_is_held_until_it_is_released_or_expires() {
    let world = World::new().await;
    let now = oauth::ports::Clock::now(world.clock.as_ref());
    let at = |seconds| now + Duration::from_secs(seconds);
    let lease = async |owner, until, now| {
        world
            .store
            .acquire_lease(ALICE, LeaseOwner(owner), at(until), at(now))
            .await
            .unwrap()
            .acquired
    };
    assert!(lease(1, 10, 0).await);
    assert!(!lease(2, 20, 9).await, "it is held");
    assert!(lease(1, 19, 9).await, "its owner extends it");
    assert!(!lease(2, 20, 18).await);
    assert!(lease(2, 29, 19).await, "it has run out");
    world.store.release_lease(ALICE, LeaseOwner(1)).await.unwrap();
    assert!(
        !lease(1, 29, 19).await,
        "an owner that has lost the lease does not release that of another"
    );
    world.store.release_lease(ALICE, LeaseOwner(2)).await.unwrap();
    assert!(lease(1, 29, 19).await);
}

#[tokio::test]
async fn refusal_ends_a_user_only_without_running_exchange_lease_or_newer_tokens() {
    let world = World::new().await;
    let client = world.client().await;
    world.tokens(&client, ALICE).await;
    let now = oauth::ports::Clock::now(world.clock.as_ref());
    let later = now + Duration::from_secs(10);
    let there = world.store.account(ALICE).await.unwrap().unwrap();
    let outcome_of = async |version, newest, now| {
        let refused = RefusedTokens {
            user: ALICE,
            version,
            owner: LeaseOwner(1),
            newest,
        };
        world.store.end_refused_user(refused, now).await.unwrap()
    };
    let version = Some(there.version);
    let replaced = RefusalOutcome::Replaced(Box::new(there));
    assert_eq!(
        outcome_of(version.map(|version| TokenVersion(version.0 ^ 1)), None, now).await,
        replaced
    );
    assert_eq!(outcome_of(None, None, now).await, replaced);

    assert!(
        world
            .store
            .acquire_lease(ALICE, LeaseOwner(2), later, now)
            .await
            .unwrap()
            .acquired
    );
    assert_eq!(outcome_of(version, None, now).await, RefusalOutcome::LeaseHeld);
    world.store.release_lease(ALICE, LeaseOwner(2)).await.unwrap();

    let first = world.store.begin_exchange(later).await.unwrap();
    assert_eq!(
        outcome_of(version, None, now).await,
        RefusalOutcome::ExchangeRunning(first)
    );
    // A call during an exchange does not wait for a writer.
    let writing = world.store.writer().begin_with("BEGIN IMMEDIATE").await.unwrap();
    assert_eq!(
        outcome_of(version, Some(first), now).await,
        RefusalOutcome::ExchangeRunning(first)
    );
    drop(writing);
    let second = world.store.begin_exchange(later).await.unwrap();
    assert!(second > first);
    assert_eq!(
        outcome_of(version, Some(first), now).await,
        RefusalOutcome::ExchangeRunning(first)
    );
    world
        .store
        .extend_exchange(first, later + Duration::from_secs(5))
        .await
        .unwrap();
    assert_eq!(
        outcome_of(version, Some(first), later).await,
        RefusalOutcome::ExchangeRunning(first)
    );
    world.store.end_exchange(first).await.unwrap();
    // The user of the second exchange is unknown, but it has not invalidated these tokens.
    assert_eq!(outcome_of(version, Some(first), now).await, RefusalOutcome::Revoked);
    assert_eq!(
        outcome_of(version, Some(first), now).await,
        RefusalOutcome::Revoked,
        "there is nothing more to end"
    );
}

#[tokio::test]
async fn refusal_waits_for_a_sign_in_in_another_process() {
    let TwoProcesses {
        one,
        two,
        link,
        client,
        tokens,
    } = &TwoProcesses::new().await;
    let account = one.caller(&tokens.access).await.account();
    let mut browser = Browser::default();
    let to_forgejo = browser.approve(two, client).await;
    link.answers.hold();
    let meanwhile = async {
        // The exchange has invalidated the stored tokens, and its own are on the way.
        link.answers.arrival(1).await;
        let mut refresh = Box::pin(account.refresh());
        tokio::select! {
            biased;
            outcome = &mut refresh => panic!("the sign-in is still running: {outcome:?}"),
            () = one.upstream.renewals.arrival(1) => {}
        }
        link.answers.release();
        refresh.await
    };
    let (back, refreshed) = tokio::join!(browser.return_from(two, &to_forgejo, ALICE), meanwhile);
    assert!(back.parameter("code").is_some(), "{back:?}");
    assert_eq!(refreshed.unwrap().access_token.expose_secret(), "access-11-2");
    assert!(one.events.take().is_empty() && two.events.take().is_empty());
    one.caller(&tokens.access).await;
}

#[tokio::test]
async fn valid_tokens_of_sign_ins_in_two_processes_are_kept() {
    let TwoProcesses {
        one,
        two,
        link,
        client,
        tokens,
    } = &TwoProcesses::new().await;
    let mut browser = Browser::default();
    let to_forgejo = browser.approve(two, client).await;
    link.answers.hold();
    let meanwhile = async {
        link.answers.arrival(1).await;
        // This sign-in begins second and completes first.
        one.tokens(client, ALICE).await;
        link.answers.release();
    };
    let (back, ()) = tokio::join!(browser.return_from(two, &to_forgejo, ALICE), meanwhile);
    two.exchange(client, &back.parameter("code").unwrap()).await.tokens();
    let account = two.caller(&tokens.access).await.account();
    account.refresh().await.unwrap();
    assert!(one.events.take().is_empty() && two.events.take().is_empty());
}

#[tokio::test]
async fn revocation_reaches_the_other_process_within_a_second() {
    let TwoProcesses {
        one,
        two,
        client,
        tokens: alice,
        ..
    } = &TwoProcesses::new().await;
    let bob = one.tokens(client, BOB).await;
    for process in [one, two] {
        process.caller(&alice.access).await;
        process.caller(&bob.access).await;
    }
    let grant = two.caller(&alice.access).await.grant().to_owned();
    let fields = [("client_id", client.as_str()), ("token", &alice.refresh)];
    assert_eq!(one.form("/oauth/revoke", &fields).await.status, StatusCode::OK);
    assert_eq!(one.events.take(), [format!("grant {grant}")]);
    one.authenticate(&alice.access).await.unwrap_err();

    one.clock.advance(Duration::from_secs(1));
    two.authenticate(&alice.access).await.unwrap_err();
    two.caller(&bob.access).await;
    assert_eq!(
        two.events.take(),
        [format!("grant {grant}")],
        "its sessions end there too"
    );

    // A user whom the upstream has refused, and a process without requests.
    let grant = two.caller(&bob.access).await.grant().to_owned();
    one.upstream.deactivate(BOB);
    one.caller(&bob.access).await.account().refresh().await.unwrap();
    one.server.finish_sign_ins().await;
    two.server.poll_revocations().await.unwrap();
    assert_eq!(two.events.take(), [format!("grant {grant}")]);
    two.authenticate(&bob.access).await.unwrap_err();
    two.server.poll_revocations().await.unwrap();
    assert!(two.events.take().is_empty(), "a revocation is read once");
}

#[tokio::test]
async fn family_revocation_reaches_the_other_process() {
    let TwoProcesses {
        one,
        two,
        client,
        tokens: other,
        ..
    } = &TwoProcesses::new().await;
    let code = Browser::default().sign_in(one, client, ALICE).await;
    let tokens = one.exchange(client, &code).await.tokens();
    two.caller(&tokens.access).await;
    two.caller(&other.access).await;
    assert_eq!(one.exchange(client, &code).await.status, StatusCode::BAD_REQUEST);
    one.clock.advance(Duration::from_secs(1));
    two.authenticate(&tokens.access).await.unwrap_err();
    two.caller(&other.access).await;
    assert!(two.events.take().is_empty(), "the grant goes on");
}

#[tokio::test]
async fn process_behind_a_truncated_revocation_log_drops_its_cache() {
    const MANY: usize = 12_000;
    let TwoProcesses { one, two, tokens, .. } = &TwoProcesses::new().await;
    two.caller(&tokens.access).await;
    let grant = one.caller(&tokens.access).await.grant().to_owned();
    one.store.end_grant(&grant).await.unwrap();
    let mut change = one.store.writer().begin().await.unwrap();
    for _ in 0..MANY {
        sqlx::query("INSERT INTO oauth_endings (grant_id, ended) VALUES ('another', 1)")
            .execute(&mut *change)
            .await
            .unwrap();
    }
    change.commit().await.unwrap();
    one.server.purge_expired().await.unwrap();
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM oauth_endings")
        .fetch_one(one.store.readers())
        .await
        .unwrap();
    assert_eq!(kept, 10_000);
    one.clock.advance(Duration::from_secs(1));
    two.authenticate(&tokens.access).await.unwrap_err();
}

/// Renewals, refreshes and sign-ins in two processes, in a random order. `OAUTH_SCHEDULES` sets the
/// number of schedules.
#[tokio::test]
async fn random_schedules_in_two_processes_lose_no_grant() {
    let schedules = std::env::var("OAUTH_SCHEDULES").ok();
    let schedules = schedules.map_or(6, |count| count.parse().unwrap());
    for seed in 1..=schedules {
        schedule(seed).await;
    }
}

async fn schedule(seed: u64) {
    let rng = TestRng::new(seed);
    let base = World::new().await;
    let processes = [
        base.another(UpstreamLink::with_rng(&base, &rng)).await,
        base.another(UpstreamLink::with_rng(&base, &rng)).await,
    ];
    let client = base.client().await;
    let issued: Mutex<Vec<Tokens>> = Mutex::new(vec![base.tokens(&client, ALICE).await]);
    for round in 0..8 {
        // The token is close to its expiry, or not.
        base.clock.advance(Duration::from_secs(1 + rng.below(3600)));
        let acts = (0..2 + rng.below(5)).map(|_| {
            let process = &processes[usize::try_from(rng.below(2)).unwrap()];
            let (what, rng, client, issued) = (rng.below(10), &rng, &client, &issued);
            async move {
                rng.yield_randomly().await;
                let tokens = issued.lock().unwrap().last().unwrap().clone();
                match what {
                    0..=2 => {
                        let tokens = process.tokens(client, ALICE).await;
                        issued.lock().unwrap().push(tokens);
                    }
                    3..=5 => {
                        let account = process.caller(&tokens.access).await.account();
                        account.refresh().await.unwrap();
                    }
                    6..=7 => {
                        let account = process.caller(&tokens.access).await.account();
                        account.valid_token().await.unwrap();
                    }
                    _ => {
                        process.refresh(client, &tokens.refresh).await.tokens();
                    }
                }
            }
        });
        join_all(acts).await;
        for process in &processes {
            assert!(process.events.take().is_empty(), "seed {seed}, round {round}");
        }
        // Access tokens may have expired: the client refreshes.
        let tokens = issued.lock().unwrap().last().unwrap().clone();
        let refreshed = processes[0].refresh(&client, &tokens.refresh).await.tokens();
        issued.lock().unwrap().push(refreshed);
    }
    let last = issued.lock().unwrap().last().unwrap().clone();
    for process in &processes {
        let account = process.caller(&last.access).await.account();
        account.refresh().await.unwrap();
    }
    let grants: i64 = sqlx::query_scalar("SELECT count(*) FROM oauth_grants")
        .fetch_one(base.store.readers())
        .await
        .unwrap();
    assert_eq!(grants, 1, "seed {seed}");
}
