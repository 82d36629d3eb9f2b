//! The questions of the servers, and the calls that they are about.

use super::*;

impl Simulation {
    fn open_on(&self, link: LinkNumber, raw: &str) -> Option<Nonce> {
        let mut questions = self.questions.iter();
        let found = questions
            .find(|(_, question)| question.open && question.link == link && id(question.raw).key() == id(raw).key());
        found.map(|(nonce, _)| *nonce)
    }

    /// A server asks something. All servers use the same few ids.
    pub(super) fn ask_something(&mut self) {
        let raw = self.pick(&SERVER_IDS).expect("ids");
        if let Some(link) = self.pick_link() {
            self.ask_on(link, raw);
        }
    }

    /// A server asks several times, each time before the questions so far go to the client.
    pub(super) fn ask_in_a_row(&mut self) {
        let Some(link) = self.pick_link() else { return };
        for raw in SERVER_IDS {
            self.ask_on(link, raw);
            self.advance(Duration::from_millis(20));
        }
    }

    fn ask_on(&mut self, link: LinkNumber, raw: &'static str) {
        let nonce = self.nonce();
        let methods = [
            "elicitation/create",
            "elicitation/create",
            "sampling/createMessage",
            "roots/list",
            "x/unknown",
        ];
        let method = self.pick(&methods).expect("methods");
        let key = self.pick(&KEYS).filter(|_| self.rng.bool());
        let numbers: Vec<_> = self.calls.values().map(|call| call.number).collect();
        let hint = self.pick(&numbers).filter(|_| self.rng.usize(..3) == 0);
        let hint = if self.once_in(20) { Some(1_000_000) } else { hint };
        let task = self.pick_task().filter(|_| self.rng.usize(..4) == 0);
        let mut meta = vec![format!(r#""progressToken":"q{nonce}""#)];
        meta.extend(key.map(|key| format!(r#""forgejo-mcp-broker/input-key":"{key}""#)));
        meta.extend(hint.map(|call| format!(r#""forgejo-mcp-broker/call":"{call}""#)));
        meta.extend(task.map(|task| format!(r#""io.modelcontextprotocol/related-task":{{"taskId":"t{task}"}}"#)));
        let line = format!(
            r#"{{"jsonrpc":"2.0","id":{raw},"method":"{method}","params":{{"_meta":{{{}}},"message":"n{nonce}"}}}}"#,
            meta.join(",")
        );
        let may_ask = self.current == Some(link) || !self.calls_at(Some(link)).is_empty();
        let repeated = self.open_on(link, raw).is_some();
        let full = self.open_questions() >= MAX_QUESTIONS;
        self.receive(link, &line);
        if repeated || full || !may_ask || method == "x/unknown" {
            self.expect_on(link, |link| link.responses.push((raw, None)));
            return;
        }
        let number = self
            .machine
            .questions
            .of_server(link, id(raw).key())
            .unwrap_or_default();
        let question = QuestionModel {
            link,
            raw,
            method,
            number,
            hint: key,
            key: key.unwrap_or_default().to_owned(),
            hinted: key.is_some(),
            shown: false,
            call: None,
            task,
            open: true,
            deadline: self.now + HOLD_TIME,
        };
        self.questions.insert(nonce, question);
        if let Some(task) = task {
            self.ask_about_task(nonce, task);
        } else if let Some(hint) = hint {
            let call = self
                .calls_at(Some(link))
                .into_iter()
                .find(|call| self.calls[call].number == hint);
            match call.filter(|call| self.calls[call].is_asking()) {
                Some(call) => self.ask(nonce, call),
                // It is about a call that is over.
                None => self.reject(nonce),
            }
        } else if let Some(call) = self.asking_call(link) {
            self.ask(nonce, call);
        }
    }

    pub(super) fn open_questions(&self) -> usize {
        self.questions.values().filter(|question| question.open).count()
    }

    /// The call that a question without a hint is about.
    pub(super) fn asking_call(&self, link: LinkNumber) -> Option<Nonce> {
        let calls = self
            .calls_at(Some(link))
            .into_iter()
            .filter(|call| self.calls[call].is_asking());
        let calls: Vec<_> = calls.collect();
        let running = || {
            calls
                .iter()
                .filter(|call| self.calls[call].stage == StageModel::Running)
        };
        let known = |call: &&Nonce| {
            let call = &self.calls[*call];
            call.asked.is_empty() && call.wanted.name.is_some_and(|name| self.askers.contains(name))
        };
        let gathering = |call: &&Nonce| matches!(self.calls[*call].stage, StageModel::Gathering(..));
        let parked = calls.iter().filter(|call| self.calls[call].is_parked());
        let found = running().find(known);
        let found = found.or_else(|| calls.iter().rev().find(gathering));
        let newest = running().next_back();
        let like_newest = |call: &&Nonce| newest.is_some_and(|newest| self.name_of(newest) == self.name_of(call));
        let found = found.or_else(|| running().find(like_newest));
        let found = found.or_else(|| parked.max_by_key(|call| self.calls[call].parked_since()));
        found.copied()
    }

    fn name_of(&self, call: &Nonce) -> Option<&'static str> {
        self.calls[call].wanted.name
    }

    /// A question is about a call.
    pub(super) fn ask(&mut self, nonce: Nonce, call_nonce: Nonce) {
        let deadline = self.now + QUESTION_TIMEOUT;
        let call = self.calls.get_mut(&call_nonce).expect("a call");
        let question = self.questions.get_mut(&nonce).expect("a question");
        question.call = Some(call_nonce);
        if !has_capability(call.client.capabilities, question.method) {
            call.missing = true;
            self.reject(nonce);
            return;
        }
        let taken = |key: &str| call.asked.iter().any(|asked| self.questions[asked].key == key);
        let key = self.questions[&nonce].hint.unwrap_or_default().to_owned();
        let hinted = self.questions[&nonce].hint.is_some() && !taken(&key);
        call.questions += 1;
        let kind = kind(self.questions[&nonce].method);
        let key = if hinted {
            key
        } else {
            while taken(&format!("{kind}-{}", call.questions)) {
                call.questions += 1;
            }
            format!("{kind}-{}", call.questions)
        };
        let ready = if hinted { call.ready.remove(&key) } else { None };
        let question = self.questions.get_mut(&nonce).expect("a question");
        (question.hinted, question.shown) = (hinted, false);
        question.deadline = deadline;
        question.key = key;
        if let Some(answer) = ready.filter(|answer| is_valid(question.method, answer)) {
            self.answer(nonce, &answer);
            return;
        }
        call.asked.push(nonce);
        self.askers.extend(call.wanted.name);
        self.gather(call_nonce);
    }

    /// A question gets its answer.
    pub(super) fn answer(&mut self, nonce: Nonce, answer: &str) {
        let question = self.questions.get_mut(&nonce).expect("a question");
        assert!(std::mem::take(&mut question.open), "{question:?} is answered twice");
        let (link, raw) = (question.link, question.raw);
        let line = format!(r#"{{"jsonrpc":"2.0","id":{raw},"result":{answer}}}"#);
        self.expect_on(link, |link| link.responses.push((raw, Some(line))));
    }

    /// A question gets an error.
    pub(super) fn reject(&mut self, nonce: Nonce) {
        let Some((link, raw)) = self.close_question(nonce) else {
            return;
        };
        self.expect_on(link, |link| link.responses.push((raw, None)));
    }

    /// A question is over.
    pub(super) fn close_question(&mut self, nonce: Nonce) -> Option<(LinkNumber, &'static str)> {
        let question = self.questions.get_mut(&nonce).expect("a question");
        let open = std::mem::take(&mut question.open);
        let call = question.call.and_then(|call| self.calls.get_mut(&call));
        if let Some(call) = call {
            call.asked.retain(|asked| *asked != nonce);
        }
        open.then_some((question.link, question.raw))
    }

    /// A server gives a question up.
    pub(super) fn cancel_question(&mut self) {
        let Some(link) = self.pick_link() else { return };
        let raw = self.pick(&SERVER_IDS).expect("ids");
        let method = "notifications/cancelled";
        let line = format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"requestId":{raw}}}}}"#);
        self.receive(link, &line);
        if let Some(nonce) = self.open_on(link, raw) {
            self.close_question(nonce);
        }
    }
}

pub(super) fn has_capability(capabilities: usize, method: &str) -> bool {
    match capabilities {
        0 => true,
        1 => method == "elicitation/create",
        _ => false,
    }
}

pub(super) fn kind(method: &str) -> &'static str {
    match method {
        "elicitation/create" => "elicitation",
        "sampling/createMessage" => "sampling",
        _ => "roots",
    }
}

/// Answers of the model are valid for their own kind of question only.
pub(super) fn is_valid(method: &str, answer: &str) -> bool {
    answer.contains(match method {
        "elicitation/create" => "action",
        "sampling/createMessage" => "role",
        _ => "roots",
    })
}
