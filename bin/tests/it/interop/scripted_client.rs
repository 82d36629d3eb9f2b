//! A client of `interop/` that goes on, and obeys the orders of the line protocol.

use serde_json::{Value, json};
use testkit::Browser;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
    time::timeout,
};
use url::Url;

use super::sdk_client::{LIMIT, Run};
use crate::harness::password;

/// A client of `interop/` that waits for orders between its rounds of calls.
#[derive(Debug)]
pub(super) struct ScriptedClient {
    process: Child,
    orders: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    login: String,
    redirect_uri: String,
    /// For which client a person was asked, each time.
    visits: Vec<String>,
    /// How many sessions it has opened.
    pub(super) sessions: usize,
}

impl ScriptedClient {
    pub(super) fn start(run: Run) -> Self {
        let login = run.login().to_owned();
        let (mut command, redirect_uri) = run.held();
        let mut process = command.spawn().expect("cargo xtask interop installs the clients");
        Self {
            orders: process.stdin.take().unwrap(),
            lines: BufReader::new(process.stdout.take().unwrap()).lines(),
            process,
            login,
            redirect_uri,
            visits: Vec::new(),
            sessions: 0,
        }
    }

    pub(super) async fn order(&mut self, order: &Value) {
        say(&mut self.orders, order).await;
    }

    /// The texts of the calls up to the next `ready`.
    pub(super) async fn until_ready(&mut self) -> Vec<String> {
        timeout(LIMIT, self.listen("ready")).await.expect("the client goes on")
    }

    /// Ends it, and gives the clients for which a person was asked.
    pub(super) async fn end(mut self) -> Vec<String> {
        self.order(&json!({ "end": true })).await;
        let ended = timeout(LIMIT, async {
            self.listen("done").await;
            self.process.wait().await
        });
        let status = ended.await.expect("the client comes to an end").unwrap();
        assert!(status.success());
        self.visits
    }

    async fn listen(&mut self, until: &str) -> Vec<String> {
        let mut texts = Vec::new();
        while let Some(line) = self.lines.next_line().await.unwrap() {
            let event: Value = serde_json::from_str(&line).unwrap();
            match event["event"].as_str().unwrap() {
                "authorize" => {
                    let url = event["url"].as_str().unwrap().parse().unwrap();
                    let redirect = Browser::new()
                        .authorize(&url, &self.login, &password(&self.login), &self.redirect_uri)
                        .await
                        .unwrap();
                    self.visits.push(client_in(&url));
                    self.order(&json!({ "redirect": redirect })).await;
                }
                "session" => self.sessions += 1,
                "result" => {
                    assert_eq!(event["isError"], false, "{event}");
                    texts.push(event["text"].as_str().unwrap_or_default().to_owned());
                }
                "error" => panic!("the client failed: {event}"),
                other if other == until => return texts,
                _ => {}
            }
        }
        panic!("the client ended before {until}");
    }
}

/// For which client a person is asked.
pub(super) fn client_in(authorize: &Url) -> String {
    let client = authorize.query_pairs().find(|(name, _)| name == "client_id");
    client.unwrap().1.into_owned()
}

pub(super) async fn say(orders: &mut ChildStdin, message: &Value) {
    orders.write_all(format!("{message}\n").as_bytes()).await.unwrap();
}
