//! The official SDKs in the midst of everything: `chaos` with a part of its sessions in their hands.
//!
//! Each client tells of every call that it makes, and of what came of it; what is excused is judged as for the raw clients. An SDK
//! keeps its connections, listens in its own way, and comes back by itself when its stream ends.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::{Value, json};
use testkit::Browser;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
    time::timeout,
};

use super::sdk_client::{LIMIT, Run, Sdk};
use crate::{
    chaos::{
        self, Chaos, Plan, SESSIONS,
        oracle::{Call, Heard, Outcome, Stamp},
    },
    harness::password,
};

/// How many sessions each SDK has.
const EACH: usize = 3;

/// A client of `interop/` that makes calls until it is told that it is enough.
struct Enduring {
    process: Child,
    orders: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    login: &'static str,
    redirect_uri: String,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event {
    Authorize { url: String },
    Session {},
    Ready,
    Call(Told),
    Heard { session: String, data: Value },
    Error { message: String },
    Done,
}

/// A call and what came of it: a text, or what was said instead.
#[derive(Debug, Deserialize)]
struct Told {
    session: String,
    mark: String,
    /// Milliseconds of the time of day; so for the end.
    began: u64,
    ended: u64,
    text: Option<String>,
    #[serde(default)]
    failed: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Node and Python: cargo xtask interop"]
async fn no_sdk_notices_rotations_crashes_idleness_and_restarts() {
    let clients = [
        (Sdk::TypescriptV1, "alice", "v1"),
        (Sdk::TypescriptV2, "bob", "v2"),
        (Sdk::Python, "alice", "python"),
        (Sdk::Rust, "bob", "rust"),
    ];
    let mut chaos = Chaos::begin(Plan::from_environment(24)).await;
    let raw = SESSIONS - EACH * clients.len();
    for login in ["alice", "bob"] {
        chaos.load(login, raw / 2).await;
    }
    for (sdk, login, name) in clients {
        let client = Enduring::start(Run::endure(sdk, &chaos.harness, login, name, EACH), login).await;
        let run = Arc::clone(&chaos.run);
        chaos.join(async move { client.endure(&run).await });
    }
    chaos.inject_faults().await;
    chaos.end().await;
}

impl Enduring {
    /// Starts a client, signs its user in, and waits until its sessions are open.
    async fn start(run: Run, login: &'static str) -> Self {
        let (mut command, redirect_uri) = run.into_parts();
        let mut process = command.spawn().expect("cargo xtask interop installs the clients");
        let mut client = Self {
            orders: process.stdin.take().unwrap(),
            lines: BufReader::new(process.stdout.take().unwrap()).lines(),
            process,
            login,
            redirect_uri,
        };
        timeout(LIMIT, client.sign_in())
            .await
            .expect("the client opens its sessions");
        client
    }

    async fn sign_in(&mut self) {
        let mut browser = Browser::new();
        loop {
            match self.next().await {
                Event::Authorize { url } => {
                    let (url, password) = (url.parse().unwrap(), password(self.login));
                    let back = browser.authorize(&url, self.login, &password, &self.redirect_uri);
                    let redirect = back.await.unwrap();
                    self.order(&json!({ "redirect": redirect })).await;
                }
                Event::Session {} => {}
                Event::Ready => return,
                other @ (Event::Call(_) | Event::Heard { .. } | Event::Error { .. } | Event::Done) => {
                    panic!("not yet: {other:?}")
                }
            }
        }
    }

    /// Hands on what the client tells, until the run is over and the client has come to its end.
    async fn endure(mut self, run: &chaos::Run) {
        let mut told = false;
        loop {
            let event = tokio::select! {
                event = self.next() => event,
                () = run.over.cancelled(), if !told => {
                    told = true;
                    self.order(&json!({ "end": true })).await;
                    continue;
                }
            };
            match event {
                Event::Call(told) => run.note(told.judged(self.login)),
                Event::Heard { session, data } => match Stamp::of(&data) {
                    Some(stamp) => run.heard(Heard { session, stamp }),
                    None => run.trouble(format!("{session} heard {data}")),
                },
                Event::Done => break,
                Event::Error { message } => {
                    run.trouble(format!("a client failed: {message}"));
                    break;
                }
                other @ (Event::Authorize { .. } | Event::Session {} | Event::Ready) => panic!("not now: {other:?}"),
            }
        }
        // An error was told of before.
        let _ = timeout(LIMIT, self.process.wait())
            .await
            .expect("the client ends")
            .unwrap();
    }

    async fn next(&mut self) -> Event {
        let line = self.lines.next_line().await.unwrap().expect("the client goes on");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    async fn order(&mut self, order: &Value) {
        self.orders.write_all(format!("{order}\n").as_bytes()).await.unwrap();
    }
}

impl Told {
    fn judged(self, login: &'static str) -> Call {
        let stamp = self.text.as_deref().and_then(Stamp::parse);
        Call {
            session: self.session,
            mark: self.mark,
            login: Some(login),
            announced: true,
            began: Duration::from_millis(self.began),
            ended: Duration::from_millis(self.ended),
            keeps_connection: true,
            outcome: match stamp {
                Some(stamp) => Outcome::Answered(stamp),
                None => Outcome::Failed(self.failed + self.text.as_deref().unwrap_or_default()),
            },
        }
    }
}
