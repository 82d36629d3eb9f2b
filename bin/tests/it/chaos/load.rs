//! The raw clients: each uses one session until the end of the run, with one call in flight at a
//! time, or two if their children ask the user.
//!
//! Every call carries a unique mark, which the answer must repeat. Some sessions also read GET
//! streams, the children of some send a notification for each call, and those of the others ask the
//! user in half of the calls.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use serde_json::{Value, json};
use testkit::Client;
use tokio::time::{sleep, timeout};

use super::{
    IDLE_TIMEOUT, Reports, event_streams, now,
    oracle::{Call, CallOutcome, ServerNotification, Stamp},
    questions::{self, Reading},
};

/// Longer than the last notification of a child takes to arrive.
const NOTIFICATION_TIMEOUT: Duration = Duration::from_secs(20);

/// A session and its behavior.
#[derive(Debug)]
pub(super) struct RawSession {
    reports: Arc<Reports>,
    client: Arc<Client>,
    /// The prefix of the marks of its calls.
    name: String,
    login: &'static str,
    requests_notifications: bool,
    reads_streams: bool,
    asks: Option<Reading>,
    rng: Rng,
}

impl RawSession {
    pub(super) fn new(reports: Arc<Reports>, client: Client, login: &'static str, number: usize, rng: Rng) -> Self {
        Self {
            reports,
            client: Arc::new(client),
            name: format!("raw-{login}-{number}"),
            login,
            requests_notifications: number % 4 < 2,
            reads_streams: number.is_multiple_of(4),
            asks: match number % 4 {
                2 => Some(Reading::Stays),
                3 => Some(Reading::Leaves),
                _ => None,
            },
            rng,
        }
    }

    /// Calls and perhaps reads streams until the end of the run, and closes the session.
    pub(super) async fn run(mut self) {
        let rng = self.rng.fork();
        let (client, reports, name) = (Arc::clone(&self.client), Arc::clone(&self.reports), self.name.clone());
        if self.reads_streams {
            let calls = self.call_until_finish();
            tokio::select! {
                () = event_streams::listen(&reports, &client, &name, rng) => {}
                () = calls => {}
            }
        } else {
            self.call_until_finish().await;
        }
        if let Err(error) = client.delete().await {
            self.reports
                .add_problem(format!("{name}: the session was lost: {error:?}"));
        }
    }

    async fn call_until_finish(&mut self) {
        let mut number: usize = 0;
        while !self.reports.finish.is_cancelled() {
            // Sometimes long enough for the session to become dormant.
            let pause = if self.rng.u64(..80) == 0 {
                IDLE_TIMEOUT * 3 / 2
            } else {
                Duration::from_millis(20 + self.rng.u64(..100))
            };
            sleep(pause).await;
            // Two questions at a time, often of two children that number them in the same way.
            if let Some(reading) = self.asks.filter(|_| number.is_multiple_of(4)) {
                let later = Duration::from_millis(self.rng.u64(..questions::LONGEST_THOUGHT));
                let (mut one, mut other) = (self.rng.fork(), self.rng.fork());
                tokio::join!(self.call(number, Some(reading), &mut one), async {
                    sleep(later).await;
                    self.call(number + 1, Some(reading), &mut other).await
                });
                number += 1;
            } else {
                let mut rng = self.rng.fork();
                self.call(number, None, &mut rng).await;
            }
            number += 1;
        }
        // There are no more kills: the session still works, and the notification arrives.
        let mut rng = self.rng.fork();
        let last = self.call(number, None, &mut rng).await;
        let mark = last.mark.clone();
        if !matches!(last.outcome, CallOutcome::Answered(_)) {
            self.reports.add_problem(format!("the session was lost: {last:?}"));
        } else if self.requests_notifications {
            // The oracle reports a missing notification.
            let _ = timeout(NOTIFICATION_TIMEOUT, self.reports.notification_of(&mark)).await;
        }
    }

    /// Makes a call; with `asks` its child asks the user.
    async fn call(&self, number: usize, asks: Option<Reading>, rng: &mut Rng) -> Call {
        let mark = format!("{}.{number}", self.name);
        let delay = if number.is_multiple_of(2) { rng.u64(..60) } else { 0 };
        let asks_login = number.is_multiple_of(3);
        let notifies = self.requests_notifications;
        let arguments =
            json!({ "mark": mark, "ms": delay, "whose": asks_login, "announce": notifies, "ask": asks.is_some() });
        let start = now();
        let outcome = match asks {
            Some(reading) => questions::call(&self.client, &mark, &arguments, reading, rng).await,
            None => self.request(arguments).await,
        };
        let call = Call {
            session: self.name.clone(),
            mark,
            login: asks_login.then_some(self.login),
            notifies,
            asks: asks.is_some(),
            start,
            end: now(),
            keeps_connection: false,
            outcome,
        };
        self.reports.add_call(call.clone());
        call
    }

    async fn request(&self, arguments: Value) -> CallOutcome {
        let params = json!({ "name": "test_stamp", "arguments": arguments });
        let (answer, id) = match self.client.request("tools/call", params).await {
            Ok(answered) => answered,
            Err(error) => return CallOutcome::Failed(format!("{error:?}")),
        };
        for message in &answer.messages {
            if let Some(notification) = ServerNotification::from_message(&self.name, message) {
                self.reports.add_notification(notification);
            }
        }
        let text = format!("{}: {}", answer.status, answer.text());
        // An error response, too, must carry the id of the request.
        let Some(response) = answer.response_to(&id) else {
            return CallOutcome::Failed(format!("no response with the id of the request: {text}"));
        };
        let stamp = response["result"]["content"][0]["text"].as_str();
        match stamp.filter(|_| answer.status == 200).and_then(Stamp::parse) {
            Some(stamp) => CallOutcome::Answered(stamp),
            None => CallOutcome::Failed(text),
        }
    }
}
