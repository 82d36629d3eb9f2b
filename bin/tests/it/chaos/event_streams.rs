//! GET streams: the client reconnects with the last event id whenever its stream ends.
//!
//! The broker must accept every request for a stream and end every stream properly.

use std::time::Duration;

use fastrand::Rng;
use testkit::{
    Client,
    client::{ClientError, EventStream},
};
use tokio::time::sleep;

use super::{Reports, oracle::ServerNotification};

/// Reads streams until it is dropped.
pub(super) async fn listen(reports: &Reports, client: &Client, session: &str, mut rng: Rng) {
    let mut last_event_id = None;
    loop {
        match client.listen(last_event_id.as_deref()).await {
            Ok(stream) => {
                reports.add_stream();
                if let Err(error) = read(reports, stream, session, &mut last_event_id).await {
                    reports.add_problem(format!("{session}: a stream broke: {error:?}"));
                }
            }
            Err(error) => reports.add_problem(format!("{session}: the request for a stream failed: {error:?}")),
        }
        // Often immediately, as some clients do. Messages during a pause wait for the next stream.
        sleep(Duration::from_millis(rng.u64(..4) * rng.u64(..200))).await;
    }
}

async fn read(
    reports: &Reports,
    mut stream: EventStream,
    session: &str,
    last_event_id: &mut Option<String>,
) -> Result<(), ClientError> {
    while let Some(event) = stream.next().await? {
        if event.id.is_some() {
            *last_event_id = event.id;
        }
        if !event.data.is_empty() {
            match serde_json::from_str(&event.data)
                .ok()
                .and_then(|message| ServerNotification::from_message(session, &message))
            {
                Some(notification) => reports.add_notification(notification),
                None => reports.add_problem(format!("{session}: unexpected event on a stream: {}", event.data)),
            }
        }
    }
    Ok(())
}
