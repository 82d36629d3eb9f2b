//! The chaos run with some of its sessions in the official SDKs.
//!
//! Each client reports every call and its outcome, and the oracle checks them as it does for the
//! raw clients. An SDK keeps its connections, reads GET streams in its own way, and reconnects when
//! a stream ends.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use testkit::Browser;
use tokio::time::timeout;

use super::sdk_client::{ClientProcess, Event, RUN_TIMEOUT, Run, Sdk, SustainedCall};
use crate::chaos::{
    Chaos, Plan, Reports, SESSIONS,
    oracle::{Call, CallOutcome, ServerNotification, Stamp},
};

/// The number of sessions of each SDK.
const SESSIONS_PER_SDK: usize = 3;

/// A client of `interop/` that calls until the end of the run.
struct SustainedClient {
    process: ClientProcess,
    login: &'static str,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Node and Python: cargo xtask interop"]
async fn rotations_crashes_idleness_and_restarts_are_invisible_to_sdks() {
    let clients = [
        (Sdk::TypescriptV1, "alice", "v1"),
        (Sdk::TypescriptV2, "bob", "v2"),
        (Sdk::Python, "alice", "python"),
        (Sdk::Rust, "bob", "rust"),
    ];
    let mut chaos = Chaos::start(Plan::from_environment()).await;
    chaos
        .add_raw_sessions(SESSIONS - SESSIONS_PER_SDK * clients.len())
        .await;
    for (sdk, login, prefix) in clients {
        let run = Run::sustained_calls(sdk, &chaos.harness, login, prefix, SESSIONS_PER_SDK);
        let client = SustainedClient::start(run, login).await;
        let reports = Arc::clone(&chaos.reports);
        chaos.add_client(async move { client.run(&reports).await });
    }
    chaos.inject_faults().await;
    chaos.finish().await;
}

impl SustainedClient {
    /// Starts a client, signs its user in, and waits until its sessions are open.
    async fn start(run: Run, login: &'static str) -> Self {
        let mut client = Self {
            process: run.spawn(),
            login,
        };
        timeout(RUN_TIMEOUT, client.sign_in())
            .await
            .expect("the client does not open its sessions");
        client
    }

    async fn sign_in(&mut self) {
        let mut browser = Browser::new();
        loop {
            match self.process.event().await {
                Event::Authorize { url } => self.process.sign_in(&mut browser, &url).await,
                Event::Session { .. } => {}
                Event::Ready => return,
                other @ (Event::Tools { .. }
                | Event::Result { .. }
                | Event::Feature { .. }
                | Event::Question { .. }
                | Event::Call(_)
                | Event::Notification { .. }
                | Event::Error { .. }
                | Event::Done) => panic!("unexpected event before the calls: {other:?}"),
            }
        }
    }

    /// Forwards the client's reports until the run has finished and the client has exited.
    async fn run(mut self, reports: &Reports) {
        let mut finishing = false;
        loop {
            let event = tokio::select! {
                event = self.process.event() => event,
                () = reports.finish.cancelled(), if !finishing => {
                    finishing = true;
                    self.process.send(&json!({ "end": true })).await;
                    continue;
                }
            };
            match event {
                Event::Call(call) => reports.add_call(report(call, self.login)),
                Event::Notification { session, data } => match Stamp::from_value(&data) {
                    Some(stamp) => reports.add_notification(ServerNotification { session, stamp }),
                    None => reports.add_problem(format!("{session}: unexpected notification: {data}")),
                },
                Event::Done => break,
                Event::Error { message } => {
                    reports.add_problem(format!("a client failed: {message}"));
                    break;
                }
                other @ (Event::Authorize { .. }
                | Event::Session { .. }
                | Event::Tools { .. }
                | Event::Result { .. }
                | Event::Feature { .. }
                | Event::Question { .. }
                | Event::Ready) => panic!("unexpected event during the calls: {other:?}"),
            }
        }
        // An error status follows an error event, which was reported.
        let _ = self.process.exited().await;
    }
}

fn report(call: SustainedCall, login: &'static str) -> Call {
    let stamp = call.text.as_deref().and_then(Stamp::parse);
    Call {
        session: call.session,
        mark: call.mark,
        login: Some(login),
        notifies: true,
        asks: false,
        start: Duration::from_millis(call.start),
        end: Duration::from_millis(call.end),
        keeps_connection: true,
        outcome: match stamp {
            Some(stamp) => CallOutcome::Answered(stamp),
            None => CallOutcome::Failed(call.error + call.text.as_deref().unwrap_or_default()),
        },
    }
}
