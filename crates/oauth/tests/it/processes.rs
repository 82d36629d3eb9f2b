//! Several processes on one store: whatever they do at once, nobody loses access that they did not take away.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use http::StatusCode;
use oauth::{
    AccountError,
    ids::{LeaseOwner, TokenVersion},
    ports::{
        AccountStore as _, BoxFuture, ExchangeStore as _, GrantedScope, LeaseStore as _, RefusalOutcome,
        RevocationStore as _, Upstream, UpstreamError, UpstreamTokens, UpstreamUser,
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

/// How one process reaches the upstream that all share: its answers can be kept on their way, or take their time.
#[derive(Debug)]
struct Line {
    upstream: Arc<ScriptedUpstream>,
    answers: Gate,
    /// What asks whose a token is goes through this.
    questions: Gate,
    dice: Option<Arc<Dice>>,
}

/// Numbers that look random and are the same for one seed (xorshift).
#[derive(Debug)]
struct Dice(Mutex<u64>);

impl Line {
    fn to(world: &World) -> Arc<Self> {
        Arc::new(Self {
            upstream: Arc::clone(&world.upstream),
            answers: Gate::default(),
            questions: Gate::default(),
            dice: None,
        })
    }

    fn with_dice(world: &World, dice: &Arc<Dice>) -> Arc<Self> {
        Arc::new(Self {
            upstream: Arc::clone(&world.upstream),
            answers: Gate::default(),
            questions: Gate::default(),
            dice: Some(Arc::clone(dice)),
        })
    }

    async fn way(&self) {
        if let Some(dice) = &self.dice {
            dice.dawdle().await;
        }
    }

    async fn way_back(&self) {
        self.answers.pass().await;
        self.way().await;
    }
}

impl Dice {
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

    /// Lets others go first, some of them.
    async fn dawdle(&self) {
        for _ in 0..self.below(200) {
            tokio::task::yield_now().await;
        }
    }
}

impl Upstream for Line {
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
            self.way().await;
            let answer = self.upstream.exchange(code, verifier, redirect_uri).await;
            self.way_back().await;
            answer
        })
    }

    fn refresh<'a>(&'a self, refresh_token: &'a SecretString) -> BoxFuture<'a, Result<UpstreamTokens, UpstreamError>> {
        Box::pin(async move {
            self.way().await;
            let answer = self.upstream.refresh(refresh_token).await;
            self.way_back().await;
            answer
        })
    }

    fn user<'a>(&'a self, access_token: &'a SecretString) -> BoxFuture<'a, Result<UpstreamUser, UpstreamError>> {
        Box::pin(async move {
            self.way().await;
            self.questions.pass().await;
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

/// Long enough for whoever could go on to do so, as a rule: what must not happen in it has not happened by then.
async fn a_while(world: &World) {
    for _ in 0..100 {
        world.store.account(ALICE).await.unwrap();
    }
}

/// Does all of them, side by side.
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
    let one = World::new().await;
    let two = one.another(Line::to(&one)).await;
    let client = one.client().await;
    let tokens = one.tokens(&client, ALICE).await;
    one.clock.advance(Duration::from_secs(3600));
    let (a, b) = (
        one.caller(&tokens.access).await.account(),
        two.caller(&tokens.access).await.account(),
    );
    let (a, b) = tokio::join!(a.current(), b.current());
    for token in [a.unwrap(), b.unwrap()] {
        assert_eq!(token.access_token.expose_secret(), "access-11-2");
    }
    assert_eq!(one.upstream.renewals.arrivals(), 1);
}

#[tokio::test]
async fn who_finds_a_renewal_under_way_elsewhere_gets_its_pair() {
    let one = World::new().await;
    let line = Line::to(&one);
    let two = one.another(Arc::clone(&line) as _).await;
    let client = one.client().await;
    let tokens = one.tokens(&client, ALICE).await;
    let (here, there) = (
        one.caller(&tokens.access).await.account(),
        two.caller(&tokens.access).await.account(),
    );
    one.clock.advance(Duration::from_secs(3600));
    line.answers.hold();
    let waits = async {
        // The pair that is in the store is dead from here on.
        line.answers.arrival(1).await;
        let mut current = Box::pin(here.current());
        tokio::select! {
            biased;
            outcome = &mut current => panic!("it is waited for: {outcome:?}"),
            () = a_while(&one) => {}
        }
        line.answers.release();
        current.await
    };
    let (there, here) = tokio::join!(there.current(), waits);
    for token in [there.unwrap(), here.unwrap()] {
        assert_eq!(token.access_token.expose_secret(), "access-11-2");
    }
    assert_eq!(one.upstream.renewals.arrivals(), 1);
    assert!(one.events.take().is_empty() && two.events.take().is_empty());
}

#[tokio::test]
async fn who_waits_has_the_new_pair_as_soon_as_it_is_there() {
    let one = World::new().await;
    let line = Line::to(&one);
    let two = one.another(Arc::clone(&line) as _).await;
    let client = one.client().await;
    let tokens = one.tokens(&client, ALICE).await;
    let (here, there) = (
        one.caller(&tokens.access).await.account(),
        two.caller(&tokens.access).await.account(),
    );
    one.clock.advance(Duration::from_secs(3600));
    line.questions.hold();
    let waits = async {
        // The new pair is in the store, and the lease is held.
        line.questions.arrival(1).await;
        let token = here.current().await;
        line.questions.release();
        token
    };
    let (there, here) = tokio::join!(there.current(), waits);
    for token in [there.unwrap(), here.unwrap()] {
        assert_eq!(token.access_token.expose_secret(), "access-11-2");
    }
    assert_eq!(one.upstream.renewals.arrivals(), 1);
}

#[tokio::test]
async fn who_lacks_the_key_that_another_process_seals_with_ends_nobody() {
    let one = World::new().await;
    let mut two = one.another(Line::to(&one)).await;
    let client = one.client().await;
    let tokens = one.tokens(&client, ALICE).await;
    two.restart_with_keys(&[(1, [7; 32]), (2, [9; 32])]).await;
    assert_eq!(two.server.reseal_accounts().await.unwrap(), 1);
    let account = one.caller(&tokens.access).await.account();
    for outcome in [account.current().await, account.refresh().await] {
        let error = outcome.unwrap_err();
        assert!(matches!(error, AccountError::Transient(_)), "{error:?}");
    }
    assert!(one.events.take().is_empty());
    let account = two.caller(&tokens.access).await.account();
    let token = account.refresh().await.unwrap();
    assert_eq!(token.access_token.expose_secret(), "access-11-2");
}

#[tokio::test]
async fn the_lease_of_a_killed_process_runs_out_and_nobody_is_thrown_out() {
    let one = World::new().await;
    let client = one.client().await;
    let tokens = one.tokens(&client, ALICE).await;
    one.upstream.renewals.hold();
    let dies = Runtime::new().unwrap();
    let entered = dies.enter();
    let two = one.another(Line::to(&one)).await;
    let account = two.caller(&tokens.access).await.account();
    dies.spawn(async move { account.refresh().await });
    drop(entered);
    one.upstream.renewals.arrival(1).await;
    // Its tasks end where they are, and say nothing more.
    let dead = tokio::task::spawn_blocking(|| dies.shutdown_timeout(Duration::from_secs(60)));
    dead.await.unwrap();
    drop(two);

    one.upstream.renewals.release();
    let account = one.caller(&tokens.access).await.account();
    let mut refresh = Box::pin(account.refresh());
    tokio::select! {
        biased;
        outcome = &mut refresh => panic!("the lease is held: {outcome:?}"),
        () = a_while(&one) => {}
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
async fn who_comes_back_alone_waits_for_no_lease() {
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

    // While another process has the store open, either may be its own.
    let other = world.another(Line::to(&world)).await;
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
    // And no exchange keeps a refusal from being judged.
    let version = world.store.account(ALICE).await.unwrap().unwrap().version;
    let judged = world
        .store
        .end_refused_user(ALICE, Some(version), LeaseOwner(1), None, now)
        .await
        .unwrap();
    assert_eq!(judged, RefusalOutcome::Revoked);
}

#[tokio::test]
async fn a_lease_is_its_owners_until_it_is_given_back_or_runs_out() {
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
        "who has lost it does not give back that of another"
    );
    world.store.release_lease(ALICE, LeaseOwner(2)).await.unwrap();
    assert!(lease(1, 29, 19).await);
}

#[tokio::test]
async fn a_refusal_is_judged_when_the_exchanges_that_had_begun_have_ended_and_the_pair_is_the_same() {
    let world = World::new().await;
    let client = world.client().await;
    world.tokens(&client, ALICE).await;
    let now = oauth::ports::Clock::now(world.clock.as_ref());
    let later = now + Duration::from_secs(10);
    let there = world.store.account(ALICE).await.unwrap().unwrap();
    let judge = async |version, known, now| {
        world
            .store
            .end_refused_user(ALICE, version, LeaseOwner(1), known, now)
            .await
            .unwrap()
    };
    let version = Some(there.version);
    let replaced = RefusalOutcome::Replaced(Box::new(there));
    assert_eq!(
        judge(version.map(|version| TokenVersion(version.0 ^ 1)), None, now).await,
        replaced
    );
    assert_eq!(judge(None, None, now).await, replaced);

    assert!(
        world
            .store
            .acquire_lease(ALICE, LeaseOwner(2), later, now)
            .await
            .unwrap()
            .acquired
    );
    assert_eq!(judge(version, None, now).await, RefusalOutcome::LeaseHeld);
    world.store.release_lease(ALICE, LeaseOwner(2)).await.unwrap();

    let first = world.store.begin_exchange(later).await.unwrap();
    assert_eq!(judge(version, None, now).await, RefusalOutcome::ExchangeRunning(first));
    // Whoever asks while one is under way waits for no writer.
    let writing = world.store.writer().begin_with("BEGIN IMMEDIATE").await.unwrap();
    assert_eq!(
        judge(version, Some(first), now).await,
        RefusalOutcome::ExchangeRunning(first)
    );
    drop(writing);
    let second = world.store.begin_exchange(later).await.unwrap();
    assert!(second > first);
    assert_eq!(
        judge(version, Some(first), now).await,
        RefusalOutcome::ExchangeRunning(first)
    );
    world
        .store
        .extend_exchange(first, later + Duration::from_secs(5))
        .await
        .unwrap();
    assert_eq!(
        judge(version, Some(first), later).await,
        RefusalOutcome::ExchangeRunning(first)
    );
    world.store.end_exchange(first).await.unwrap();
    // Whose pair it is that the second one will bring is not known, but it has not killed this one.
    assert_eq!(judge(version, Some(first), now).await, RefusalOutcome::Revoked);
    assert_eq!(
        judge(version, Some(first), now).await,
        RefusalOutcome::Revoked,
        "there is nothing more to end"
    );
}

#[tokio::test]
async fn a_refusal_is_not_judged_while_another_process_signs_the_user_in() {
    let one = World::new().await;
    let line = Line::to(&one);
    let two = one.another(Arc::clone(&line) as _).await;
    let client = one.client().await;
    let tokens = one.tokens(&client, ALICE).await;
    let account = one.caller(&tokens.access).await.account();
    let mut browser = Browser::default();
    let to_forgejo = browser.approve(&two, &client).await;
    line.answers.hold();
    let meanwhile = async {
        // The exchange has killed the pair in the store, and its own is on the way.
        line.answers.arrival(1).await;
        let mut refresh = Box::pin(account.refresh());
        tokio::select! {
            biased;
            outcome = &mut refresh => panic!("it is waited for: {outcome:?}"),
            () = one.upstream.renewals.arrival(1) => {}
        }
        line.answers.release();
        refresh.await
    };
    let (back, refreshed) = tokio::join!(browser.return_from(&two, &to_forgejo, ALICE), meanwhile);
    assert!(back.parameter("code").is_some(), "{back:?}");
    assert_eq!(refreshed.unwrap().access_token.expose_secret(), "access-11-2");
    assert!(one.events.take().is_empty() && two.events.take().is_empty());
    one.caller(&tokens.access).await;
}

#[tokio::test]
async fn of_two_sign_ins_in_two_processes_the_living_pair_is_kept() {
    let one = World::new().await;
    let line = Line::to(&one);
    let two = one.another(Arc::clone(&line) as _).await;
    let client = one.client().await;
    let first = one.tokens(&client, ALICE).await;
    let mut browser = Browser::default();
    let to_forgejo = browser.approve(&two, &client).await;
    line.answers.hold();
    let meanwhile = async {
        line.answers.arrival(1).await;
        // This one comes second and is done first.
        one.tokens(&client, ALICE).await;
        line.answers.release();
    };
    let (back, ()) = tokio::join!(browser.return_from(&two, &to_forgejo, ALICE), meanwhile);
    two.exchange(&client, &back.parameter("code").unwrap()).await.tokens();
    let account = two.caller(&first.access).await.account();
    account.refresh().await.unwrap();
    assert!(one.events.take().is_empty() && two.events.take().is_empty());
}

#[tokio::test]
async fn what_one_process_ends_the_other_hears_within_a_second() {
    let one = World::new().await;
    let two = one.another(Line::to(&one)).await;
    let client = one.client().await;
    let (alice, bob) = (one.tokens(&client, ALICE).await, one.tokens(&client, BOB).await);
    for process in [&one, &two] {
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

    // And without anyone who asks: a user whom the upstream has refused.
    let grant = two.caller(&bob.access).await.grant().to_owned();
    one.upstream.deactivate(BOB);
    one.caller(&bob.access).await.account().refresh().await.unwrap_err();
    two.server.poll_revocations().await.unwrap();
    assert_eq!(two.events.take(), [format!("grant {grant}")]);
    two.authenticate(&bob.access).await.unwrap_err();
    two.server.poll_revocations().await.unwrap();
    assert!(two.events.take().is_empty(), "it is told once");
}

#[tokio::test]
async fn tokens_that_one_process_revokes_without_their_grant_are_refused_by_the_other() {
    let one = World::new().await;
    let two = one.another(Line::to(&one)).await;
    let client = one.client().await;
    let other = one.tokens(&client, ALICE).await;
    let code = Browser::default().sign_in(&one, &client, ALICE).await;
    let tokens = one.exchange(&client, &code).await.tokens();
    two.caller(&tokens.access).await;
    two.caller(&other.access).await;
    assert_eq!(one.exchange(&client, &code).await.status, StatusCode::BAD_REQUEST);
    one.clock.advance(Duration::from_secs(1));
    two.authenticate(&tokens.access).await.unwrap_err();
    two.caller(&other.access).await;
    assert!(two.events.take().is_empty(), "the grant goes on");
}

#[tokio::test]
async fn who_has_not_listened_for_too_long_forgets_all_bearers() {
    const MANY: usize = 12_000;
    let one = World::new().await;
    let two = one.another(Line::to(&one)).await;
    let client = one.client().await;
    let tokens = one.tokens(&client, ALICE).await;
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

/// Renewals, refreshes and sign-ins in two processes, in an order that the dice say: nobody loses a grant. More schedules
/// with `OAUTH_SCHEDULES`.
#[tokio::test]
async fn whatever_two_processes_do_at_once_no_grant_is_lost() {
    let schedules = std::env::var("OAUTH_SCHEDULES").ok();
    let schedules = schedules.map_or(6, |count| count.parse().unwrap());
    for seed in 1..=schedules {
        schedule(seed).await;
    }
}

async fn schedule(seed: u64) {
    let dice = Dice::new(seed);
    let base = World::new().await;
    let processes = [
        base.another(Line::with_dice(&base, &dice)).await,
        base.another(Line::with_dice(&base, &dice)).await,
    ];
    let client = base.client().await;
    let held: Mutex<Vec<Tokens>> = Mutex::new(vec![base.tokens(&client, ALICE).await]);
    for round in 0..8 {
        // A token that has little left, or much.
        base.clock.advance(Duration::from_secs(1 + dice.below(3600)));
        let acts = (0..2 + dice.below(5)).map(|_| {
            let process = &processes[usize::try_from(dice.below(2)).unwrap()];
            let (what, dice, client, held) = (dice.below(10), &dice, &client, &held);
            async move {
                dice.dawdle().await;
                let tokens = held.lock().unwrap().last().unwrap().clone();
                match what {
                    0..=2 => {
                        let tokens = process.tokens(client, ALICE).await;
                        held.lock().unwrap().push(tokens);
                    }
                    3..=5 => {
                        let account = process.caller(&tokens.access).await.account();
                        account.refresh().await.unwrap();
                    }
                    6..=7 => {
                        let account = process.caller(&tokens.access).await.account();
                        account.current().await.unwrap();
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
        // A clock that has gone on for long lets bearers expire: the client refreshes, as clients do.
        let tokens = held.lock().unwrap().last().unwrap().clone();
        let refreshed = processes[0].refresh(&client, &tokens.refresh).await.tokens();
        held.lock().unwrap().push(refreshed);
    }
    let last = held.lock().unwrap().last().unwrap().clone();
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
