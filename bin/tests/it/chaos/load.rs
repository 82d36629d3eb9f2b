//! The raw clients: each uses one session until the run is over, with one call in flight at a time.
//!
//! Every call carries a mark that no other has, and the answer has to bring it back. Some sessions listen beside it, and some have
//! the child announce their calls, so that messages of the server are under way too.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use testkit::Client;
use tokio::time::{sleep, timeout};

use super::{
    Dice, IDLE, Run, listening, now,
    oracle::{Call, Heard, Outcome, Stamp},
};

/// Longer than the last message of a child is under way.
const LAST: Duration = Duration::from_secs(20);

/// A session and what it does.
#[derive(Debug)]
pub(super) struct RawSession {
    run: Arc<Run>,
    client: Arc<Client>,
    /// The beginning of the marks of its calls.
    name: String,
    login: &'static str,
    announces: bool,
    listens: bool,
    dice: Dice,
}

impl RawSession {
    pub(super) fn new(run: Arc<Run>, client: Client, login: &'static str, number: usize, dice: Dice) -> Self {
        Self {
            run,
            client: Arc::new(client),
            name: format!("raw-{login}-{number}"),
            login,
            announces: number % 4 < 2,
            listens: number.is_multiple_of(4),
            dice,
        }
    }

    /// Calls and perhaps listens until the run is over, and closes the session.
    pub(super) async fn live(mut self) {
        let dice = Dice::new(self.dice.below(u64::MAX));
        let (client, run, name) = (Arc::clone(&self.client), Arc::clone(&self.run), self.name.clone());
        if self.listens {
            let calling = self.call_until_over();
            tokio::select! {
                () = listening::listen(&run, &client, &name, dice) => {}
                () = calling => {}
            }
        } else {
            self.call_until_over().await;
        }
        if let Err(error) = client.delete().await {
            self.run.trouble(format!("{name}: the session was lost: {error:?}"));
        }
    }

    async fn call_until_over(&mut self) {
        let mut turn = 0;
        while !self.run.over.is_cancelled() {
            // Now and then for long enough to be put to sleep.
            let pause = if self.dice.below(80) == 0 {
                IDLE * 3 / 2
            } else {
                Duration::from_millis(20 + self.dice.below(100))
            };
            sleep(pause).await;
            self.call(turn).await;
            turn += 1;
        }
        // Nobody is killed any more: the session still works, and what its child says arrives.
        let last = self.call(turn).await;
        let mark = last.mark.clone();
        if !matches!(last.outcome, Outcome::Answered(_)) {
            self.run.trouble(format!("the session was lost: {last:?}"));
        } else if self.announces {
            // What has not come by then is for the oracle.
            let _ = timeout(LAST, self.run.until_heard(&mark)).await;
        }
    }

    async fn call(&mut self, turn: usize) -> Call {
        let mark = format!("{}.{turn}", self.name);
        let waits = if turn.is_multiple_of(2) { self.dice.below(60) } else { 0 };
        let whose = turn.is_multiple_of(3);
        let arguments = json!({ "mark": mark, "ms": waits, "whose": whose, "announce": self.announces });
        let began = now();
        let outcome = self.ask(arguments).await;
        let call = Call {
            session: self.name.clone(),
            mark,
            login: whose.then_some(self.login),
            announced: self.announces,
            began,
            ended: now(),
            keeps_connection: false,
            outcome,
        };
        self.run.note(call.clone());
        call
    }

    async fn ask(&self, arguments: Value) -> Outcome {
        let params = json!({ "name": "test_stamp", "arguments": arguments });
        let (answer, id) = match self.client.request("tools/call", params).await {
            Ok(answered) => answered,
            Err(error) => return Outcome::Failed(format!("{error:?}")),
        };
        for message in &answer.messages {
            if let Some(heard) = Heard::of(&self.name, message) {
                self.run.heard(heard);
            }
        }
        let said = format!("{}: {}", answer.status, answer.text());
        // Whatever is said has to carry the id of the request.
        let Some(response) = answer.response_to(&id) else {
            return Outcome::Failed(format!("no answer to it: {said}"));
        };
        match response["result"]["content"][0]["text"].as_str() {
            Some(text) if answer.status == 200 => Stamp::parse(text).map_or(Outcome::Failed(said), Outcome::Answered),
            _ => Outcome::Failed(said),
        }
    }
}
