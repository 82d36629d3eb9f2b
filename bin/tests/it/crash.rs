//! Repeated SIGKILLs of the broker during a code exchange, a token refresh, and the renewal of a
//! Forgejo token. Afterwards a user has lost at most the step that was not answered, and the client
//! recovers by itself.
//!
//! The normal run has a few rounds; `CRASH_ROUNDS=500` makes it long. A seed determines the times
//! of the kills. A failure prints it, and `CRASH_SEED` repeats it (as far as the scheduler allows).

use std::time::Duration;

use fastrand::Rng;
use http::StatusCode;
use testkit::{Browser, Client, client::ClientError};
use tokio::time::{Instant, sleep};

use crate::{
    harness::{Harness, login_of, open_session, password},
    randomized::{env_number, env_seed},
};

/// The number of rounds in the normal run, for all three steps together.
const ROUNDS: u64 = 9;

const HOUR: Duration = Duration::from_secs(3600);

/// The step during which the broker is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Exchange,
    Refresh,
    Renewal,
}

const STEPS: [Step; 3] = [Step::Exchange, Step::Refresh, Step::Renewal];

/// The results of all rounds of one step.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// The answer reached the client before the kill.
    answered: u32,
    /// The kill came before the answer.
    interrupted: u32,
    /// The user had to sign in again: Forgejo had used up the refresh token, and the broker had not
    /// stored its answer.
    signed_in_again: u32,
}

/// Draws a time within the duration of a step, early more often than late.
fn kill_delay(rng: &mut Rng, step_duration: Duration) -> Duration {
    let fraction = rng.f64();
    step_duration.mul_f64(1.1 * fraction * fraction.sqrt())
}

#[tokio::test]
async fn kill_at_any_time_loses_at_most_the_unanswered_step() {
    let rounds = env_number("CRASH_ROUNDS", ROUNDS);
    let seed = env_seed("CRASH_SEED");
    let mut rng = Rng::with_seed(seed);
    let mut harness = Harness::new(&[("child.start_timeout", "20s")]).await;
    let client = harness.signed_in("alice").await;
    // The kills must not affect this other user.
    let bystander = harness.signed_in("bob").await;
    let durations = [
        duration_of(&harness, &client, Step::Exchange).await,
        duration_of(&harness, &client, Step::Refresh).await,
        duration_of(&harness, &client, Step::Renewal).await,
    ];
    let mut tallies = [Tally::default(); 3];
    for round in 0..rounds {
        let index = usize::try_from(round % 3).unwrap_or_default();
        let step = STEPS[index];
        let context = format!("round {round}, {step:?}, CRASH_SEED={seed}");
        let delay = kill_delay(&mut rng, durations[index]);
        run_round(&mut harness, &client, step, delay, &mut tallies[index], &context).await;

        let session = bystander.another_session();
        open_session(&session).await;
        session.delete().await.unwrap();
        bystander
            .refresh()
            .await
            .unwrap_or_else(|error| panic!("{context}: bob: {error}"));
    }
    println!("seed {seed}, {rounds} rounds: {tallies:?}");
    let [exchange, refresh, renewal] = tallies;
    let interrupted = exchange.interrupted + refresh.interrupted + renewal.interrupted;
    assert!(interrupted > 0, "no kill interrupted a step: {tallies:?}, seed {seed}");
    if rounds >= 100 {
        let answered = exchange.answered + refresh.answered + renewal.answered;
        assert!(answered > 0, "every kill interrupted a step: {tallies:?}, seed {seed}");
        for tally in tallies {
            assert!(
                tally.interrupted > 0,
                "a step was never interrupted: {tallies:?}, seed {seed}"
            );
        }
    }
}

/// Kills the broker once during a step, restarts it, and checks that the client recovers.
async fn run_round(
    harness: &mut Harness,
    client: &Client,
    step: Step,
    delay: Duration,
    tally: &mut Tally,
    context: &str,
) {
    prepare(harness, client, step).await;
    let (old_refresh_token, renewals) = (client.refresh_token(), harness.forgejo.counters().refreshes);
    let session = client.another_session();
    let broker = &mut harness.broker;
    let (outcome, killed) = tokio::join!(run_step(client, &session, step), async {
        sleep(delay).await;
        broker.kill().await
    });
    killed.unwrap();
    broker
        .start_again()
        .await
        .unwrap_or_else(|error| panic!("{context}: {error:#}"));
    if outcome.is_ok() {
        tally.answered += 1;
    } else {
        tally.interrupted += 1;
    }
    match step {
        Step::Exchange if outcome.is_err() => {
            // The code may be used up. Then the sign-in starts again; the registration is still
            // valid.
            if let Err(error) = client.exchange().await {
                assert_eq!(error.status(), Some(StatusCode::BAD_REQUEST), "{context}: {error}");
                sign_in_again(client, context).await;
            }
        }
        Step::Refresh if outcome.is_err() => {
            assert_eq!(client.refresh_token(), old_refresh_token);
            client
                .refresh()
                .await
                .unwrap_or_else(|error| panic!("{context}: the refresh token was lost: {error}"));
        }
        Step::Exchange | Step::Refresh | Step::Renewal => {}
    }
    let next = client.another_session();
    match next.initialize().await {
        Ok(_) => {}
        Err(error) => {
            // Only the single use of Forgejo's refresh tokens can end the sign-in: Forgejo had used
            // up the token, and its answer was still on the way.
            let used_up = harness.forgejo.counters().refreshes > renewals;
            assert!(step == Step::Renewal && used_up, "{context}: {error}");
            let log = harness.broker.log().text();
            let end: Vec<&str> = log.lines().rev().take(12).collect();
            assert_eq!(
                error.status(),
                Some(StatusCode::UNAUTHORIZED),
                "{context}: {error}, the log from its end: {end:#?}"
            );
            tally.signed_in_again += 1;
            sign_in_again(client, context).await;
            next.initialize()
                .await
                .unwrap_or_else(|error| panic!("{context}: {error}"));
        }
    }
    next.initialized().await.unwrap();
    assert_eq!(login_of(&next).await, "alice", "{context}");
    next.delete().await.unwrap();
}

async fn run_step(client: &Client, session: &Client, step: Step) -> Result<(), ClientError> {
    match step {
        Step::Exchange => client.exchange().await,
        Step::Refresh => client.refresh().await,
        Step::Renewal => session.initialize().await.map(|_| ()),
    }
}

/// Measures an uninterrupted step.
async fn duration_of(harness: &Harness, client: &Client, step: Step) -> Duration {
    prepare(harness, client, step).await;
    let renewals = harness.forgejo.counters().refreshes;
    let session = client.another_session();
    let start = Instant::now();
    run_step(client, &session, step).await.unwrap();
    let duration = start.elapsed();
    if step == Step::Renewal {
        assert!(
            harness.forgejo.counters().refreshes > renewals,
            "a session renews the token"
        );
        session.delete().await.unwrap();
    }
    duration
}

/// Does everything that precedes the step.
async fn prepare(harness: &Harness, client: &Client, step: Step) {
    match step {
        Step::Exchange => authorize(client).await.unwrap(),
        Step::Refresh => {}
        Step::Renewal => {
            let (short, refresh) = (Duration::from_secs(2), 24 * HOUR);
            // Forgejo counts whole seconds. On a slow machine the sign-in may take longer than the
            // rest of such a lifetime.
            for attempt in 1.. {
                harness.forgejo.set_lifetimes(short, refresh);
                let authorized = authorize(client).await;
                harness.forgejo.set_lifetimes(HOUR, refresh);
                match authorized {
                    Ok(()) => break,
                    Err(error) => assert!(attempt < 10, "{error}"),
                }
            }
            client.exchange().await.unwrap();
            // The Forgejo token of this sign-in expires, so that the next session to open renews
            // it.
            sleep(short).await;
        }
    }
}

/// Obtains and exchanges a new code.
async fn sign_in_again(client: &Client, context: &str) {
    authorize(client).await.unwrap();
    client
        .exchange()
        .await
        .unwrap_or_else(|error| panic!("{context}: {error}"));
}

/// Obtains a new code.
async fn authorize(client: &Client) -> Result<(), ClientError> {
    client.authorize(&mut Browser::new(), "alice", &password("alice")).await
}
