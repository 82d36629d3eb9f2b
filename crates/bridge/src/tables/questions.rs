//! The requests of servers to the client: sampling, elicitation, roots.
//!
//! Toward the client, each has an id that is unique among all sessions of all grants: the session's
//! tag, the epoch of the conversation, a counter. So the answer to a question of one server never
//! reaches another server, even if both have used one id, and an answer may come without a session
//! id. The id is also the question's progress token there.

use std::collections::BTreeMap;

use super::links::LinkNumber;
use crate::{
    jsonrpc::{Id, RequestKey, json},
    streams::StreamId,
};

#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) link: LinkNumber,
    /// The id that the server has given it.
    pub(crate) server_id: Id,
    /// The progress token that the server has given it.
    pub(crate) token: Option<Id>,
    /// The stream that carries it; `None` while it waits for one.
    pub(crate) stream: Option<StreamId>,
    /// For clients of 2026-07-28: what is asked, and the call that it is about.
    pub(crate) input: Option<Box<Input>>,
    pub(crate) call: Option<u64>,
    /// The task that it is about, by the id of the server.
    pub(crate) task: Option<Box<str>>,
}

/// A question in the parts that a client of 2026-07-28 gets.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(crate) method: Box<str>,
    /// JSON text.
    pub(crate) params: Box<str>,
    /// The key of the answer, if the server names one, or the question is about a task.
    pub(crate) key: Option<Box<str>>,
}

/// The open questions, by their numbers.
#[derive(Debug)]
pub(crate) struct Questions {
    /// The beginning of every id.
    prefix: String,
    open: BTreeMap<u64, Question>,
    last: u64,
}

impl Questions {
    pub(crate) fn new(tag: &str, epoch: u64) -> Self {
        Self {
            prefix: format!("{tag}-{epoch:x}-"),
            open: BTreeMap::new(),
            last: 0,
        }
    }

    pub(crate) fn insert(&mut self, question: Question) -> u64 {
        self.last += 1;
        self.open.insert(self.last, question);
        self.last
    }

    /// The id of a question toward the client (JSON text).
    pub(crate) fn client_id(&self, number: u64) -> String {
        json::quote(&format!("{}{number:x}", self.prefix))
    }

    /// The open question with this id toward the client.
    pub(crate) fn find(&self, id: &Id) -> Option<(u64, &Question)> {
        let number = id.text()?.strip_prefix(&self.prefix)?;
        let number = u64::from_str_radix(number, 16).ok()?;
        let question = self.open.get(&number)?;
        // Only the exact spelling.
        (id.text() == Some(&format!("{}{number:x}", self.prefix))).then_some((number, question))
    }

    /// The open question that a server has asked under this id.
    pub(crate) fn of_server(&self, link: LinkNumber, key: &RequestKey) -> Option<u64> {
        let mut open = self.open.iter();
        let found = open.find(|(_, question)| question.link == link && question.server_id.key() == key);
        found.map(|(number, _)| *number)
    }

    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut Question> {
        self.open.get_mut(&number)
    }

    /// Notes that the questions on a stream are on another one now.
    pub(crate) fn move_stream(&mut self, from: StreamId, to: StreamId) {
        for question in self.open.values_mut().filter(|question| question.stream == Some(from)) {
            question.stream = Some(to);
        }
    }

    /// Removes all questions. Returns their numbers.
    pub(crate) fn take_all(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.open).into_keys().collect()
    }

    pub(crate) fn take(&mut self, number: u64) -> Option<Question> {
        self.open.remove(&number)
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The open questions of a link, oldest first.
    pub(crate) fn all_on(&self, link: LinkNumber) -> Vec<u64> {
        let on_link = self.open.iter().filter(|(_, question)| question.link == link);
        on_link.map(|(number, _)| *number).collect()
    }

    /// The questions about a task of a link, oldest first.
    pub(crate) fn of_task(&self, link: LinkNumber, task: &str) -> impl Iterator<Item = (u64, &Input)> {
        let about = self
            .open
            .iter()
            .filter(move |(_, question)| question.link == link && question.task.as_deref() == Some(task));
        about.filter_map(|(number, question)| Some((*number, question.input.as_deref()?)))
    }

    /// The questions of a link that belong to no call yet, oldest first.
    pub(crate) fn without_call(&self, link: LinkNumber) -> Vec<u64> {
        let waiting = self.open.iter().filter(|(_, question)| {
            let is_free = question.call.is_none() && question.task.is_none();
            question.link == link && is_free && question.input.is_some()
        });
        waiting.map(|(number, _)| *number).collect()
    }

    pub(crate) fn count_on(&self, link: LinkNumber) -> usize {
        self.open.values().filter(|question| question.link == link).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(link: LinkNumber, id: &str) -> Question {
        Question {
            link,
            server_id: Id::parse(id).expect("an id"),
            token: None,
            stream: None,
            input: None,
            call: None,
            task: None,
        }
    }

    #[test]
    fn each_question_has_its_own_id_toward_the_client() {
        let mut questions = Questions::new("tag", 0xab);
        let first = questions.insert(question(1, "7"));
        let second = questions.insert(question(2, "7"));
        assert_eq!(questions.client_id(first), "\"tag-ab-1\"");
        let id = Id::parse(&questions.client_id(second)).expect("an id");
        let (number, found) = questions.find(&id).expect("open");
        assert_eq!((number, found.link), (second, 2));
        assert_eq!(
            questions.of_server(1, Id::parse("7").expect("an id").key()),
            Some(first)
        );
        assert!(questions.take(second).is_some());
        assert!(questions.find(&id).is_none());
    }

    #[test]
    fn other_ids_match_no_question() {
        let mut questions = Questions::new("tag", 0xab);
        questions.insert(question(1, "7"));
        for id in [
            "1",
            "\"1\"",
            "\"tag-ab-01\"",
            "\"tag-ab-+1\"",
            "\"tag-ac-1\"",
            "\"tag-ab-\"",
            "\"tag-ab-2\"",
        ] {
            assert!(questions.find(&Id::parse(id).expect("an id")).is_none(), "{id}");
        }
    }
}
