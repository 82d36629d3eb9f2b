//! Calls without pause, one at a time in each session, until a command comes. As in the other
//! languages, a `call` event reports each call, and a `notification` event each notification of the
//! server. The test decides which calls may fail.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::Result;
use rmcp::{
    ClientHandler, RoleClient,
    model::LoggingMessageNotificationParam,
    service::{NotificationContext, RunningService},
    transport::auth::AuthClient,
};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    emit,
    session::connect,
    settings::{Commands, Settings, tool_params},
};

/// The longest time that the last notification takes to arrive.
const NOTIFICATION_TIMEOUT: Duration = Duration::from_secs(20);

/// A handler that reports each notification of the server as an event.
#[derive(Debug)]
struct NotificationReporter {
    session: String,
    latest_mark: watch::Sender<Value>,
}

/// A session that calls until a command comes.
struct SustainedCaller {
    session: String,
    latest_mark: watch::Receiver<Value>,
    client: RunningService<RoleClient, NotificationReporter>,
}

/// Opens the sessions with one sign-in, and calls in all of them until the next command. `prefix`
/// is the prefix of their marks.
pub(crate) async fn run(
    http: AuthClient<reqwest::Client>,
    prefix: &str,
    settings: &Settings,
    commands: &Commands,
) -> Result<()> {
    let mut callers = Vec::new();
    for number in 0..settings.sessions {
        let session = format!("{prefix}-{number}");
        let latest_mark = watch::Sender::new(Value::Null);
        let receiver = latest_mark.subscribe();
        let reporter = NotificationReporter {
            session: session.clone(),
            latest_mark,
        };
        let client = connect(number, reporter, http.clone(), settings).await?;
        callers.push(SustainedCaller {
            session,
            latest_mark: receiver,
            client,
        });
    }
    emit(&json!({ "event": "ready" }));
    let finished = watch::Sender::new(false);
    let mut calls = JoinSet::new();
    for caller in callers {
        calls.spawn(caller.run(finished.subscribe()));
    }
    // The end of standard input has the same effect as a command.
    commands.next().await?;
    finished.send_replace(true);
    while let Some(result) = calls.join_next().await {
        result??;
    }
    Ok(())
}

impl SustainedCaller {
    async fn run(mut self, finished: watch::Receiver<bool>) -> Result<()> {
        let mut number = 0;
        while !*finished.borrow() {
            // The pauses vary, so that the sessions do not call in step.
            sleep(Duration::from_millis(20 + number * 37 % 100)).await;
            self.call(number).await?;
            number += 1;
        }
        // There are no more faults: the last call succeeds, and its notification arrives.
        let mark = json!(self.call(number).await?);
        // The test reports a missing notification.
        let _ = timeout(
            NOTIFICATION_TIMEOUT,
            self.latest_mark.wait_for(|latest| *latest == mark),
        )
        .await;
        self.client.cancel().await?;
        Ok(())
    }

    async fn call(&self, number: u64) -> Result<String> {
        let mark = format!("{}.{number}", self.session);
        let delay = if number.is_multiple_of(2) { number * 13 % 60 } else { 0 };
        let arguments = json!({ "mark": mark, "whose": true, "announce": true, "ms": delay });
        let params = tool_params("test_stamp", arguments)?;
        let start = unix_milliseconds();
        let result = self.client.call_tool(params).await;
        // Rounded up, so that the period contains the call.
        let end = unix_milliseconds() + 1;
        let mut event = json!({ "event": "call", "session": self.session, "mark": mark, "start": start, "end": end });
        match result {
            Ok(result) => event["text"] = json!(result)["content"][0]["text"].clone(),
            Err(error) => event["error"] = json!(error.to_string()),
        }
        emit(&event);
        Ok(mark)
    }
}

impl ClientHandler for NotificationReporter {
    async fn on_logging_message(
        &self,
        params: LoggingMessageNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        emit(&json!({ "event": "notification", "session": self.session, "data": params.data }));
        self.latest_mark.send_replace(params.data["mark"].clone());
    }
}

fn unix_milliseconds() -> u64 {
    let now = UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or_default()
}
