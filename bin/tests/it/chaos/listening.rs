//! GET streams: a client that listens comes back whenever its stream ends, and names the event that it saw last.
//!
//! It is never refused, and every stream ends as a stream should.

use std::time::Duration;

use testkit::{Client, client::EventStream};
use tokio::time::sleep;

use super::{Dice, Run, oracle::Heard};

/// Listens for ever.
pub(super) async fn listen(run: &Run, client: &Client, name: &str, mut dice: Dice) {
    let mut last = None;
    loop {
        match client.listen(last.as_deref()).await {
            Ok(stream) => {
                run.stream_opened();
                if let Err(error) = hear(run, stream, name, &mut last).await {
                    run.trouble(format!("{name}: a stream broke: {error:?}"));
                }
            }
            Err(error) => run.trouble(format!("{name}: may not listen: {error:?}")),
        }
        // Often at once, as some clients do, and not always: what is said meanwhile waits for the next stream.
        sleep(Duration::from_millis(dice.below(4) * dice.below(200))).await;
    }
}

async fn hear(
    run: &Run,
    mut stream: EventStream,
    name: &str,
    last: &mut Option<String>,
) -> Result<(), testkit::client::ClientError> {
    while let Some(event) = stream.next().await? {
        if event.id.is_some() {
            *last = event.id;
        }
        if !event.data.is_empty() {
            match serde_json::from_str(&event.data)
                .ok()
                .and_then(|message| Heard::of(name, &message))
            {
                Some(heard) => run.heard(heard),
                None => run.trouble(format!("{name}: a stream brought {}", event.data)),
            }
        }
    }
    Ok(())
}
