//! The surroundings of a request: options, token, workers, and the receivers of messages.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};

use super::{Options, api::Api};

pub(super) const WORKERS: usize = 5;
pub(super) const QUEUED_LINES: usize = 64;

#[derive(Clone)]
pub(super) struct CallContext {
    pub(super) options: Arc<Options>,
    pub(super) api: Arc<Api>,
    /// One permit a worker. Closed to drop the waiting calls.
    pub(super) workers: Arc<Semaphore>,
    /// Takes the answer, and messages that belong to the request.
    pub(super) stream: mpsc::Sender<String>,
    /// Takes messages that belong to no request.
    pub(super) listener: mpsc::Sender<String>,
}
