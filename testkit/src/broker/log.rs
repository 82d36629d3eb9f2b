//! The log of a process: all its lines, and waits for a line.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    sync::{oneshot, watch},
    time::timeout,
};
use tokio_util::task::TaskTracker;

const WAIT_TIMEOUT: Duration = Duration::from_secs(60);
const SHOWN_LINES: usize = 40;

#[derive(Clone, Debug, Default)]
pub struct Log {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Lines are only added, in the order of reading.
    lines: Mutex<Vec<String>>,
    count: watch::Sender<usize>,
    readers: TaskTracker,
}

impl Log {
    pub fn text(&self) -> String {
        self.lines().join("\n")
    }

    pub fn after(&self, seen: usize) -> Vec<String> {
        self.lines().iter().skip(seen).cloned().collect()
    }

    /// Waits until a line, old or new, contains a text. Cancel safe. Panics after a minute, with
    /// the end of the log.
    pub async fn contains(&self, text: &str) {
        self.contains_times(text, 1).await;
    }

    /// Waits until so many lines, old or new, contain a text. Cancel safe. Panics as
    /// [`contains`](Self::contains).
    pub async fn contains_times(&self, text: &str, times: usize) {
        if timeout(WAIT_TIMEOUT, self.wait_for(text, times)).await.is_err() {
            let lines = self.lines();
            let last = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
            panic!("{text:?} is not {times} times in the log, which ends with\n{last}");
        }
    }

    async fn wait_for(&self, text: &str, times: usize) {
        let mut count = self.shared.count.subscribe();
        let (mut seen, mut found) = (0, 0);
        loop {
            let new = self.after(seen);
            seen += new.len();
            found += new.iter().filter(|line| line.contains(text)).count();
            if found >= times || count.changed().await.is_err() {
                return;
            }
        }
    }

    pub fn count(&self, text: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(text)).count()
    }

    /// Reads a stream until it ends. The receiver gets a message at the first line whose message is
    /// `event`, and an error if the stream ends before it.
    pub(super) fn follow(
        &self,
        stream: impl AsyncRead + Unpin + Send + 'static,
        event: &'static str,
    ) -> oneshot::Receiver<()> {
        let (found, receiver) = oneshot::channel();
        let log = self.clone();
        self.shared.readers.spawn(async move {
            let mut found = Some(found);
            let mut lines = BufReader::new(stream).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let is_event = found.is_some() && message(&line).is_some_and(|message| message == event);
                let mut lines = log.lines();
                lines.push(line);
                log.shared.count.send_replace(lines.len());
                if let Some(found) = found.take_if(|_| is_event) {
                    // The receiver may have been dropped.
                    let _ = found.send(());
                }
            }
        });
        receiver
    }

    /// Returns after every followed stream has ended. Panics if a process that was left behind
    /// holds one for a minute.
    pub(super) async fn ended(&self) {
        self.shared.readers.close();
        let ended = timeout(WAIT_TIMEOUT, self.shared.readers.wait()).await;
        assert!(
            ended.is_ok(),
            "another process holds the log of a process that has ended"
        );
        self.shared.readers.reopen();
    }

    fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        self.shared.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn message(line: &str) -> Option<String> {
    let event: Value = serde_json::from_str(line).ok()?;
    Some(event.get("message")?.as_str()?.to_owned())
}
