//! What a call of a client of 2026-07-28 has beside a [`Call`](super::calls::Call).

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    jsonrpc::{Envelope, Id},
    modern::{ClientCapabilities, LogLevel},
    parked_calls::ParkedPlace,
    streams::StreamId,
};

#[derive(Debug)]
pub(crate) struct ModernCall {
    /// The number of the call.
    pub(crate) number: u64,
    pub(crate) name: Option<Box<str>>,
    /// The digest of method, name and arguments.
    pub(crate) content: [u8; 16],
    /// Those of the newest request.
    pub(crate) capabilities: ClientCapabilities,
    /// The level of the newest request; `None` if it wants no log messages.
    pub(crate) log_level: Option<LogLevel>,
    pub(crate) stage: Stage,
    /// The place among the parked calls of the process, while it is parked.
    pub(crate) place: Option<ParkedPlace>,
    /// The number of retries.
    pub(crate) round: u32,
    /// The open questions of the server about this call, oldest first.
    pub(crate) asked: Vec<Asked>,
    /// The number of questions so far, by which those without a key of their own are named.
    pub(crate) questions: usize,
    /// Answers of the newest request for keys without an open question. They change by
    /// [`Calls`](super::calls::Calls) only, which counts their bytes.
    pub(super) answers: BTreeMap<Box<str>, Box<str>>,
    /// The server runs it as a task, if it accepts that.
    pub(crate) task: bool,
    /// The capabilities that a question has lacked.
    pub(crate) missing: Option<Value>,
    /// The last progress that came while no client waited.
    pub(crate) progress: Option<Envelope>,
}

/// A question of the server that the client answers with its next retry.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) question: u64,
    pub(crate) key: Box<str>,
    /// An answer under the key is for this question: the client has it from a result, or the server
    /// has named it.
    pub(crate) known: bool,
    pub(crate) method: Box<str>,
    /// The parameters for the client (JSON text).
    pub(crate) params: Option<Box<str>>,
}

/// Who waits for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The client waits for the server.
    Running,
    /// The server has asked. More questions may follow within a moment of the first, which came at
    /// this time.
    Gathering(Instant),
    /// The client has the questions, and the server waits for the retry. Since this time.
    Parked(Instant),
}

/// The outcomes of the last retries, so that a retry whose response was lost may come again.
///
/// An outcome is named by the call and by the round whose questions the retry has answered.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    all: BTreeMap<(u64, u32), Round>,
    bytes: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Round {
    /// The digest of the answers; `None` if the call has ended before any.
    pub(crate) answers: Option<[u8; 16]>,
    /// The response, under the id of its request. `None` while the call goes on.
    pub(crate) response: Option<Bytes>,
    /// The other requests that wait for the response.
    pub(crate) followers: Vec<Follower>,
    /// The questions that the client had when the call ended. They are about other calls, and the
    /// next retry brings their answers.
    pub(crate) asked: Vec<Asked>,
}

/// A retry that waits for the outcome of an equal one, and takes its place if that client leaves.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) id: Id,
    pub(crate) stream: StreamId,
    pub(crate) token: Option<Id>,
    pub(crate) capabilities: ClientCapabilities,
    pub(crate) log_level: Option<LogLevel>,
}

/// The number of outcomes that are kept, and their bytes.
const MAX_ROUNDS: usize = 128;
const MAX_BYTES: usize = 1024 * 1024;

/// The bytes of the answers that a call keeps for keys without an open question.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

impl ModernCall {
    /// The call of a request that has begun to run.
    pub(crate) fn new(
        name: Option<Box<str>>,
        content: [u8; 16],
        capabilities: ClientCapabilities,
        log_level: Option<LogLevel>,
    ) -> Self {
        Self {
            number: 0,
            name,
            content,
            capabilities,
            log_level,
            stage: Stage::Running,
            place: None,
            round: 0,
            asked: Vec::new(),
            questions: 0,
            answers: BTreeMap::new(),
            task: false,
            missing: None,
            progress: None,
        }
    }

    /// Keeps the answers of the newest request instead of those before. Those that do not fit are
    /// asked for again when their questions come.
    pub(crate) fn keep_answers(&mut self, answers: BTreeMap<Box<str>, Box<str>>) {
        let mut bytes = 0;
        self.answers = answers;
        self.answers.retain(|key, answer| {
            bytes += key.len() + answer.len();
            bytes <= MAX_ANSWER_BYTES
        });
    }

    /// The bytes of the kept answers.
    pub(super) fn answer_bytes(&self) -> usize {
        self.answers.iter().map(|(key, answer)| key.len() + answer.len()).sum()
    }

    pub(crate) fn is_parked(&self) -> bool {
        matches!(self.stage, Stage::Parked(_))
    }
}

impl Rounds {
    pub(crate) fn get_mut(&mut self, key: (u64, u32)) -> Option<&mut Round> {
        self.all.get_mut(&key)
    }

    /// Notes that a retry has answered a round.
    pub(crate) fn begin(&mut self, key: (u64, u32), answers: [u8; 16]) {
        let round = Round {
            answers: Some(answers),
            ..Round::default()
        };
        self.all.insert(key, round);
    }

    /// Keeps the outcome of a round. Returns those that had to make room, with their names: first
    /// those that a retry has had, oldest first.
    pub(crate) fn finish(&mut self, key: (u64, u32), response: Bytes) -> Vec<((u64, u32), Round)> {
        self.bytes += response.len();
        let round = self.all.entry(key).or_default();
        if let Some(before) = round.response.replace(response) {
            self.bytes -= before.len();
        }
        let mut gone = Vec::new();
        while self.all.len() > MAX_ROUNDS || self.bytes > MAX_BYTES {
            let others = self
                .all
                .iter()
                .filter(|(other, round)| **other != key && round.response.is_some());
            let first = others.min_by_key(|(other, round)| (round.answers.is_none(), **other));
            let Some(oldest) = first.map(|(key, _)| *key) else {
                break;
            };
            gone.extend(self.remove(oldest).map(|round| (oldest, round)));
        }
        gone
    }

    pub(crate) fn remove(&mut self, key: (u64, u32)) -> Option<Round> {
        let round = self.all.remove(&key)?;
        self.bytes -= round.response.as_ref().map_or(0, |response| response.len());
        Some(round)
    }

    /// The rounds that a retry on this stream follows.
    pub(crate) fn unfollow(&mut self, stream: StreamId) {
        for round in self.all.values_mut() {
            round.followers.retain(|follower| follower.stream != stream);
        }
    }

    /// The bytes of all outcomes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_outcomes_make_room() {
        let mut rounds = Rounds::default();
        rounds.begin((0, 0), [0; 16]);
        for call in 1..=MAX_ROUNDS as u64 {
            let gone = rounds.finish((call, 0), Bytes::from_static(b"{}"));
            let gone: Vec<_> = gone.into_iter().map(|(key, _)| key).collect();
            let expected = if call == MAX_ROUNDS as u64 {
                vec![(1, 0)]
            } else {
                Vec::new()
            };
            assert_eq!(gone, expected, "one that is open stays");
        }
        let gone = rounds.finish((1000, 0), vec![0; MAX_BYTES + 1].into());
        assert_eq!((gone.len(), rounds.bytes()), (MAX_ROUNDS - 1, MAX_BYTES + 1));
        assert!(rounds.remove((0, 0)).is_some() && rounds.remove((1000, 0)).is_some());
        assert!(rounds.is_empty());
    }

    #[test]
    fn an_outcome_that_no_retry_has_had_stays_longer() {
        let mut rounds = Rounds::default();
        rounds.finish((1, 0), vec![0; MAX_BYTES / 2].into());
        rounds.begin((2, 0), [0; 16]);
        rounds.finish((2, 0), vec![0; MAX_BYTES / 2].into());
        let gone = rounds.finish((3, 0), vec![0; 10].into());
        assert_eq!(gone.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [(2, 0)]);
    }
}
