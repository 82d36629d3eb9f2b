//! The servers of the model: what they answer.

use super::*;

impl Simulation {
    pub(super) fn receive(&mut self, link: LinkNumber, line: &str) {
        self.machine.receive(self.now, link, message(line));
    }

    fn link_mut(&mut self, link: LinkNumber) -> &mut LinkModel {
        self.links.get_mut(&link).expect("a link")
    }

    /// A call that a server has got and not answered.
    fn taken(&mut self) -> Option<(LinkNumber, u64, Nonce)> {
        let links = self.links.iter();
        let taken = links.flat_map(|(link, model)| model.got.iter().map(|(number, nonce)| (*link, *number, *nonce)));
        self.pick(&taken.collect::<Vec<_>>())
    }

    /// A server answers a call, which may be over. False if there is none.
    pub(super) fn answer_call(&mut self) -> bool {
        let Some((link, number, nonce)) = self.taken() else {
            return false;
        };
        self.link_mut(link).got.remove(&number);
        let call = self.calls.get(&nonce);
        let call = call.filter(|call| call.number == number && call.place == Some(link));
        let call = call.cloned();
        let is_internal = call.as_ref().is_some_and(|call| call.wanted.is_internal());
        let as_task = call.as_ref().is_some_and(|call| call.as_task);
        let answer = self.nonce();
        let mut made = None;
        let (line, outcome) = match self.rng.usize(..14) {
            0 => {
                self.machine.invalid_response(self.now, link, number, "invalid");
                (String::new(), Outcome::Error)
            }
            1 => (response(&format!("\"{number}\""), r#""result":{}"#), Outcome::Error),
            2 if !is_internal => (response(&number.to_string(), r#""result":[]"#), Outcome::Invalid),
            3..=4 => {
                let error = format!(r#""error":{{"code":-7,"message":"n{answer}"}}"#);
                (response(&number.to_string(), &error), Outcome::ServerError(answer))
            }
            5..=6 if !is_internal => {
                let pages = 1 + self.rng.usize(..2);
                let page = format!(r#"{{"mode":"url","elicitationId":"e","url":"x:y","message":"n{answer}"}}"#);
                let pages_text = vec![page; pages].join(",");
                let error = format!(
                    r#""error":{{"code":-32042,"message":"n{answer}","data":{{"elicitations":[{pages_text}]}}}}"#
                );
                let outcome = match &call {
                    Some(call) if !call.wanted.may_be_asked() => Outcome::Error,
                    Some(call) if call.client.capabilities == 0 => Outcome::Urls {
                        pages,
                        nonce: answer,
                        until: self.now + PARK_TIME,
                    },
                    _ => Outcome::MissingCapability,
                };
                (response(&number.to_string(), &error), outcome)
            }
            7 => {
                let result = format!(r#""result":{{"isError":true,"x":"n{answer}"}}"#);
                let missing = call.as_ref().is_some_and(|call| call.missing);
                let outcome = if missing {
                    Outcome::MissingCapability
                } else {
                    Outcome::Result(answer)
                };
                (response(&number.to_string(), &result), outcome)
            }
            _ if as_task => {
                // Two servers may give two tasks one id.
                let tasks: Vec<_> = self.tasks.keys().copied().collect();
                let task = self.pick(&tasks).filter(|_| self.rng.usize(..4) == 0).unwrap_or(nonce);
                made = Some(task);
                let ttl = TASK_TIME.as_millis();
                let result = format!(r#""result":{{"task":{{"taskId":"t{task}","status":"working","ttl":{ttl}}}}}"#);
                (response(&number.to_string(), &result), Outcome::Task(task))
            }
            _ => {
                let result = format!(r#""result":{{"x":"n{answer}"}}"#);
                (response(&number.to_string(), &result), Outcome::Result(answer))
            }
        };
        if !line.is_empty() {
            self.receive(link, &line);
        }
        let Some(call) = call else { return true };
        if let Some(task) = made {
            let deadline = self.now + TASK_TIME;
            let busy = true;
            self.tasks.entry(task).or_insert(TaskModel { link, busy, deadline });
        }
        let succeeded = matches!(outcome, Outcome::Result(_));
        if let Some(task) = call
            .wanted
            .task
            .filter(|_| succeeded && call.wanted.method == "tasks/result")
        {
            self.task_ends(link, task);
        }
        self.finish(nonce, outcome);
        if self.once_in(6) {
            self.receive(link, &line_again(number));
        }
        true
    }

    /// A server answers a call that runs on another one.
    pub(super) fn answer_elsewhere(&mut self) {
        let link = self.links.keys().next_back().copied();
        let calls: Vec<_> = self.calls.values().map(|call| (call.number, call.place)).collect();
        let (Some((number, place)), Some(link)) = (self.pick(&calls), link) else {
            return;
        };
        if place != Some(link) {
            self.receive(link, &line_again(number));
            self.machine.invalid_response(self.now, link, number, "elsewhere");
        }
    }

    /// A server answers a request of the conversation itself.
    pub(super) fn answer_own(&mut self) {
        let links = self.links.iter().filter(|(_, model)| !model.own.is_empty());
        let links: Vec<_> = links.map(|(link, _)| *link).collect();
        let Some(link) = self.pick(&links) else { return };
        let fails = self.once_in(10);
        let (number, own) = self.link_mut(link).own.remove(0);
        let outcome = match own {
            _ if fails => r#""error":{"code":-32603,"message":""}"#,
            OwnRequest::Initialize => {
                r#""result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":true},"logging":{},"tasks":{"requests":{"tools":{"call":{}}}}},"serverInfo":{"name":"s"}}"#
            }
            OwnRequest::Setting | OwnRequest::TaskResult(_) => r#""result":{}"#,
        };
        self.receive(link, &response(&number.to_string(), outcome));
        match own {
            OwnRequest::Initialize if fails => {
                assert!(matches!(self.machine.replayed(link), Some(Err(_))));
                self.end_link(link);
            }
            OwnRequest::Initialize => self.link_mut(link).ready = true,
            OwnRequest::TaskResult(nonce) => {
                let task = self.announced.remove(&nonce).expect("a task");
                self.announce_task(task, nonce);
            }
            OwnRequest::Setting => {}
        }
    }

    /// A server writes what matches nothing.
    pub(super) fn write_invalid(&mut self) {
        let Some(link) = self.pick_link() else { return };
        self.receive(link, &line_again(1_000_000));
        self.receive(link, r#"{"jsonrpc":"2.0","id":"x","result":{}}"#);
        let line = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"nobody"}}"#;
        self.receive(link, line);
        let line = r#"{"jsonrpc":"2.0","method":"notifications/elicitation/complete","params":{}}"#;
        self.receive(link, line);
        // A link that has ended says nothing more.
        self.receive(self.last_link + 1, line);
    }
}

fn response(id: &str, outcome: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},{outcome}}}"#)
}

fn line_again(number: u64) -> String {
    response(&number.to_string(), r#""result":{"x":"again"}"#)
}
