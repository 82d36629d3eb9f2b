//! The log of a process, kept whole so that a test can look for what must or must not be in it, and waited on for
//! the event that says that something has happened.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    sync::{oneshot, watch},
    time::timeout,
};
use tokio_util::task::TaskTracker;

/// How long a line may take to come, and a log to end with its process.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many lines are shown where one is missed.
const LAST: usize = 40;

/// Lines of a log, as they come.
#[derive(Clone, Debug)]
pub struct Log {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Invariant: lines are only added, in the order in which they were read.
    lines: Mutex<Vec<String>>,
    /// How many lines there are: changes after each was added.
    count: watch::Sender<usize>,
    readers: TaskTracker,
}

impl Default for Log {
    fn default() -> Self {
        let shared = Shared {
            lines: Mutex::default(),
            count: watch::Sender::new(0),
            readers: TaskTracker::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }
}

impl Log {
    /// Everything that was logged.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines().join("\n")
    }

    /// The lines after the first `seen` ones.
    #[must_use]
    pub fn after(&self, seen: usize) -> Vec<String> {
        self.lines().iter().skip(seen).cloned().collect()
    }

    /// Waits until some line, old or new, contains a text.
    ///
    /// Cancel safe.
    ///
    /// # Panics
    ///
    /// If there is none for a minute: the test fails, with the end of the log, in the place of hanging for ever.
    pub async fn contains(&self, text: &str) {
        self.contains_times(text, 1).await;
    }

    /// Waits until so many lines, old or new, contain a text.
    ///
    /// Cancel safe.
    ///
    /// # Panics
    ///
    /// As [`contains`](Self::contains).
    pub async fn contains_times(&self, text: &str, times: usize) {
        if timeout(PATIENCE, self.wait_for(text, times)).await.is_err() {
            let lines = self.lines();
            let last = lines[lines.len().saturating_sub(LAST)..].join("\n");
            panic!("{text:?} is not {times} times in the log, which ends with\n{last}");
        }
    }

    async fn wait_for(&self, text: &str, times: usize) {
        let mut count = self.shared.count.subscribe();
        let (mut seen, mut found) = (0, 0);
        loop {
            {
                let lines = self.lines();
                found += lines.iter().skip(seen).filter(|line| line.contains(text)).count();
                if found >= times {
                    return;
                }
                seen = lines.len();
            }
            if count.changed().await.is_err() {
                return;
            }
        }
    }

    /// How many lines contain a text so far.
    #[must_use]
    pub fn count(&self, text: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(text)).count()
    }

    /// Reads a stream until it ends. The receiver gets its message with the first line whose message is `event`, and
    /// an error if the stream ends before.
    pub(super) fn follow(
        &self,
        stream: impl AsyncRead + Unpin + Send + 'static,
        event: &'static str,
    ) -> oneshot::Receiver<()> {
        let (found, receiver) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        self.shared.readers.spawn(async move {
            let mut found = Some(found);
            let mut lines = BufReader::new(stream).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if found.is_some() && message(&line).as_deref() == Some(event) {
                    // Nobody may be waiting any more.
                    let _ = found.take().map(|found| found.send(()));
                }
                let mut kept = shared.lines.lock().unwrap_or_else(PoisonError::into_inner);
                kept.push(line);
                shared.count.send_replace(kept.len());
            }
        });
        receiver
    }

    /// Returns once every stream that was followed has ended.
    ///
    /// # Panics
    ///
    /// If one has not within a minute: some process that was left behind still holds it.
    pub(super) async fn settled(&self) {
        self.shared.readers.close();
        let ended = timeout(PATIENCE, self.shared.readers.wait()).await;
        assert!(
            ended.is_ok(),
            "somebody still holds the log of a process that has ended"
        );
        self.shared.readers.reopen();
    }

    fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        self.shared.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn message(line: &str) -> Option<String> {
    let event: serde_json::Value = serde_json::from_str(line).ok()?;
    Some(event.get("message")?.as_str()?.to_owned())
}
