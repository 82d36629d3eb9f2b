//! The broker is killed in the middle of things, over and over: of a code exchange, of a refresh, of the renewal of Forgejo's
//! token. Afterwards nobody has lost more than the step that was never answered, and the client recovers by itself.
//!
//! A few rounds in the normal run; `CRASH_ROUNDS=500` for the whole. Where the kill falls is drawn from a seed, which a failure
//! names; `CRASH_SEED` repeats it (as far as a scheduler repeats anything).

use std::time::Duration;

use http::StatusCode;
use testkit::{Browser, Client, client::ClientError};
use tokio::time::{Instant, sleep};

use crate::harness::{Harness, login_of, open_session, password};

/// Rounds in the normal run, of all three kinds together.
const ROUNDS: u64 = 9;

const HOUR: Duration = Duration::from_secs(3600);

/// What the broker is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Exchange,
    Refresh,
    Renewal,
}

const STEPS: [Step; 3] = [Step::Exchange, Step::Refresh, Step::Renewal];

/// Whether a step's answer reached the client before the kill.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    answered: u32,
    lost: u32,
    /// Forgejo had spent the refresh token and the answer never came to rest: the user signs in again.
    signed_in_again: u32,
}

/// Draws when to kill (xorshift; nothing here needs to be unpredictable).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Somewhere in the time that the step takes, early more often than late.
    fn within(&mut self, typical: Duration) -> Duration {
        let parts = u32::try_from(self.next() % 1_000).unwrap_or_default();
        let early = f64::from(parts) / 1_000.0;
        typical.mul_f64(1.1 * early * early.sqrt())
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

#[tokio::test]
async fn a_kill_at_any_point_loses_no_more_than_the_step_that_was_never_answered() {
    let rounds = number("CRASH_ROUNDS", ROUNDS);
    let clock = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    let seed = number("CRASH_SEED", u64::from(clock.subsec_nanos()) | 1);
    let mut draw = Random(seed);
    let mut harness = Harness::new(&[("child.start_timeout", "20s")]).await;
    let client = harness.signed_in("alice").await;
    // Another user, whom none of it may touch.
    let witness = harness.signed_in("bob").await;
    let typical = [
        time_of(&harness, &client, Step::Exchange).await,
        time_of(&harness, &client, Step::Refresh).await,
        time_of(&harness, &client, Step::Renewal).await,
    ];
    let mut tallies = [Tally::default(); 3];
    for round in 0..rounds {
        let at = usize::try_from(round % 3).unwrap_or_default();
        let step = STEPS[at];
        let told = format!("round {round}, {step:?}, CRASH_SEED={seed}");
        let delay = draw.within(typical[at]);
        play(&mut harness, &client, step, delay, &mut tallies[at], &told).await;

        let session = witness.another_session();
        open_session(&session).await;
        session.delete().await.unwrap();
        witness
            .refresh()
            .await
            .unwrap_or_else(|error| panic!("{told}: bob: {error}"));
    }
    println!("seed {seed}, {rounds} rounds: {tallies:?}");
    let [exchange, refresh, renewal] = tallies;
    let lost = exchange.lost + refresh.lost + renewal.lost;
    assert!(lost > 0, "no kill fell into a step: {tallies:?}, seed {seed}");
    if rounds >= 100 {
        let answered = exchange.answered + refresh.answered + renewal.answered;
        assert!(answered > 0, "every kill fell into a step: {tallies:?}, seed {seed}");
        for tally in tallies {
            assert!(
                tally.lost > 0,
                "a step that was never broken off: {tallies:?}, seed {seed}"
            );
        }
    }
}

/// One kill, one restart, and what the client does then.
async fn play(harness: &mut Harness, client: &Client, step: Step, delay: Duration, tally: &mut Tally, told: &str) {
    prepare(harness, client, step).await;
    let (old_refresh, before) = (client.refresh_token(), harness.forgejo.counters().refreshes);
    let session = client.another_session();
    let broker = &mut harness.broker;
    let (outcome, killed) = tokio::join!(take(client, &session, step), async {
        sleep(delay).await;
        broker.kill().await
    });
    killed.unwrap();
    broker
        .start_again()
        .await
        .unwrap_or_else(|error| panic!("{told}: {error:#}"));
    if outcome.is_ok() {
        tally.answered += 1;
    } else {
        tally.lost += 1;
    }
    match step {
        Step::Exchange if outcome.is_err() => {
            // The code may be spent, and then the sign-in begins anew; the registration is still good.
            if let Err(error) = client.exchange().await {
                assert_eq!(error.status(), Some(StatusCode::BAD_REQUEST), "{told}: {error}");
                consent(client).await;
                client
                    .exchange()
                    .await
                    .unwrap_or_else(|error| panic!("{told}: {error}"));
            }
        }
        Step::Refresh if outcome.is_err() => {
            assert_eq!(client.refresh_token(), old_refresh);
            client
                .refresh()
                .await
                .unwrap_or_else(|error| panic!("{told}: the refresh token was lost: {error}"));
        }
        Step::Exchange | Step::Refresh | Step::Renewal => {}
    }
    let again = client.another_session();
    match again.initialize().await {
        Ok(_) => {}
        Err(error) => {
            // Only Forgejo's own single use can cost the sign-in: its token was spent, and the answer was in the air.
            let spent = harness.forgejo.counters().refreshes > before;
            assert!(step == Step::Renewal && spent, "{told}: {error}");
            let log = harness.broker.log().text();
            let end: Vec<&str> = log.lines().rev().take(12).collect();
            assert_eq!(
                error.status(),
                Some(StatusCode::UNAUTHORIZED),
                "{told}: {error}, the log from its end: {end:#?}"
            );
            tally.signed_in_again += 1;
            consent(client).await;
            client
                .exchange()
                .await
                .unwrap_or_else(|error| panic!("{told}: {error}"));
            again
                .initialize()
                .await
                .unwrap_or_else(|error| panic!("{told}: {error}"));
        }
    }
    again.initialized().await.unwrap();
    assert_eq!(login_of(&again).await, "alice", "{told}");
    again.delete().await.unwrap();
}

async fn take(client: &Client, session: &Client, step: Step) -> Result<(), ClientError> {
    match step {
        Step::Exchange => client.exchange().await,
        Step::Refresh => client.refresh().await,
        Step::Renewal => session.initialize().await.map(|_| ()),
    }
}

/// How long a step takes when nobody disturbs it.
async fn time_of(harness: &Harness, client: &Client, step: Step) -> Duration {
    prepare(harness, client, step).await;
    let renewals = harness.forgejo.counters().refreshes;
    let session = client.another_session();
    let begun = Instant::now();
    take(client, &session, step).await.unwrap();
    let taken = begun.elapsed();
    if step == Step::Renewal {
        assert!(
            harness.forgejo.counters().refreshes > renewals,
            "a session renews the token"
        );
        session.delete().await.unwrap();
    }
    taken
}

/// Brings things to the point just before the step.
async fn prepare(harness: &Harness, client: &Client, step: Step) {
    match step {
        Step::Exchange => consent(client).await,
        Step::Refresh => {}
        Step::Renewal => {
            let (short, refresh) = (Duration::from_secs(2), 24 * HOUR);
            // Forgejo counts in whole seconds, and a slow machine may need longer than the rest of such a life to sign in.
            for attempt in 1.. {
                harness.forgejo.set_lifetimes(short, refresh);
                let signed_in = try_consent(client).await;
                harness.forgejo.set_lifetimes(HOUR, refresh);
                match signed_in {
                    Ok(()) => break,
                    Err(error) => assert!(attempt < 10, "{error}"),
                }
            }
            client.exchange().await.unwrap();
            // Forgejo's token of this sign-in runs out, so that the session that opens next renews it.
            sleep(short).await;
        }
    }
}

/// A new code for the client.
async fn consent(client: &Client) {
    try_consent(client).await.unwrap();
}

async fn try_consent(client: &Client) -> Result<(), ClientError> {
    client.authorize(&mut Browser::new(), "alice", &password("alice")).await
}
