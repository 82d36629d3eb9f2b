//! The tasks of servers (MCP 2025-11-25, "Tasks"): requests that run on after their response.
//!
//! A task lives in the server that has made it. Requests about it go to that server even if it is
//! retired, and it keeps its server busy until it has ended and the client has its result, its time
//! to live is over, or the server is gone.

use std::collections::HashMap;

use super::links::LinkNumber;
use crate::jsonrpc::Id;

/// The number of tasks that are tracked; further ones are unknown here.
const MAX_TASKS: usize = 256;
const MAX_TASK_ID_BYTES: usize = 256;

#[derive(Debug)]
struct Task {
    link: LinkNumber,
    /// It keeps its server busy.
    busy: bool,
    /// The call that has made it, and the client's progress token of that call.
    progress: Option<(u64, Id)>,
}

/// The tasks, by their ids.
#[derive(Debug, Default)]
pub(crate) struct Tasks(HashMap<Box<str>, Task>);

impl Tasks {
    /// Adds a task of a link. False if there is no room, or a server uses the id of another.
    pub(crate) fn insert(&mut self, id: &str, link: LinkNumber, progress: Option<(u64, Id)>) -> bool {
        if self.0.len() >= MAX_TASKS || id.len() > MAX_TASK_ID_BYTES || self.0.contains_key(id) {
            return false;
        }
        let task = Task {
            link,
            busy: true,
            progress,
        };
        self.0.insert(id.into(), task);
        true
    }

    /// The link of a task.
    pub(crate) fn link(&self, id: &str) -> Option<LinkNumber> {
        self.0.get(id).map(|task| task.link)
    }

    /// The client's progress token of the task that this call of a link has made.
    pub(crate) fn progress_token(&self, link: LinkNumber, call: u64) -> Option<&Id> {
        let mut progress = self.0.values().filter(|task| task.link == link);
        progress.find_map(|task| {
            task.progress
                .as_ref()
                .filter(|(number, _)| *number == call)
                .map(|(_, token)| token)
        })
    }

    /// Notes that a task of this link no longer keeps its server busy.
    pub(crate) fn finish(&mut self, id: &str, link: LinkNumber) {
        if let Some(task) = self.0.get_mut(id).filter(|task| task.link == link) {
            task.busy = false;
        }
    }

    pub(crate) fn remove(&mut self, id: &str) {
        self.0.remove(id);
    }

    /// Removes the tasks of a link. Returns their ids.
    pub(crate) fn remove_link(&mut self, link: LinkNumber) -> Vec<Box<str>> {
        let gone = self.0.extract_if(|_, task| task.link == link);
        gone.map(|(id, _)| id).collect()
    }

    pub(crate) fn count_busy(&self, link: LinkNumber) -> usize {
        self.0.values().filter(|task| task.link == link && task.busy).count()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
