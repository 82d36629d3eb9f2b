//! The servers of the model: what they write.

use super::*;

/// Lines that a server should not write: invalid or meaningless messages.
const INVALID_LINES: [&str; 8] = [
    "Listening on stdio",
    "{\"jsonrpc\":\"2.0\",",
    "[]",
    "[{\"jsonrpc\":\"2.0\"}]",
    "{\"jsonrpc\":\"1.0\",\"id\":1,\"result\":{}}",
    "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{},\"error\":{}}",
    "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":1,\"message\":\"\"}}",
    "{\"jsonrpc\":\"2.0\",\"id\":1,\"id\":2,\"result\":{}}",
];

impl Simulation {
    fn link_mut(&mut self, link: LinkNumber) -> &mut LinkModel {
        self.links.get_mut(&link).expect("a link")
    }

    fn write(&mut self, link: LinkNumber, line: &str) {
        if self.batches && self.once_in(3) {
            assert!(self.machine.receive_batch(self.now, link, vec![message(line)]));
        } else {
            self.machine.receive(self.now, link, message(line));
        }
    }

    /// A call that a server has got and not answered.
    fn taken(&mut self) -> Option<(LinkNumber, u64, Nonce)> {
        let links = self.links.iter();
        let taken = links.flat_map(|(link, model)| model.got.iter().map(|(number, nonce)| (*link, *number, *nonce)));
        self.pick(&taken.collect::<Vec<_>>())
    }

    /// A server answers a call, which may be over.
    pub(super) fn answer(&mut self) -> bool {
        let Some((link, number, nonce)) = self.taken() else {
            return false;
        };
        self.link_mut(link).got.remove(&number);
        let call = self.calls.get(&nonce);
        let call = call
            .filter(|call| call.number == number && call.place == Some(link))
            .cloned();
        match self.rng.usize(..12) {
            0 => self.machine.invalid_response(self.now, link, number, "invalid"),
            1 => self.write(link, &format!(r#"{{"jsonrpc":"2.0","id":"{number}","result":{{}}}}"#)),
            kind => {
                let outcome = if kind == 2 { "error" } else { "result" };
                let action = call.as_ref().map_or(Action::Act, |call| call.action);
                let (body, task) = self.result(link, nonce, action);
                let line = |id: &str| format!(r#"{{"{outcome}":{{{body}}}, "id":{id}, "jsonrpc":"2.0"}}"#);
                self.write(link, &line(&number.to_string()));
                if let Some(call) = call {
                    if kind != 2 {
                        self.succeeded(link, &call, task);
                    }
                    self.finish(nonce, Outcome::Response(line(call.raw)));
                }
                if self.once_in(6) {
                    self.write(link, &format!(r#"{{"jsonrpc":"2.0","id":{number},"result":"twice"}}"#));
                }
                return true;
            }
        }
        if call.is_some() {
            self.finish(nonce, Outcome::Error);
        }
        true
    }

    /// The members of a result, and the task in it.
    fn result(&mut self, link: LinkNumber, nonce: Nonce, action: Action) -> (String, Nonce) {
        let tasks: Vec<_> = self.tasks.keys().copied().collect();
        // Two servers may give two tasks one id.
        let task = if self.once_in(4) { self.pick(&tasks) } else { None };
        let task = task.unwrap_or(nonce);
        let more = if action == Action::List {
            format!(r#","tools":[{}]"#, self.links[&link].list)
        } else if action == Action::CreateTask {
            format!(r#","task":{{"taskId":"t{task}","ttl":{}}}"#, TASK_TIME.as_millis())
        } else {
            String::new()
        };
        (format!(r#""nonce":{nonce},"x":1.50{more}"#), task)
    }

    /// What the success of a call changes.
    fn succeeded(&mut self, link: LinkNumber, call: &CallModel, task: Nonce) {
        match call.action {
            Action::Act | Action::Read => {}
            Action::List => self.known_list = Some(self.links[&link].list),
            Action::Level(_) | Action::Subscribe(_) | Action::Unsubscribe(_) => self.granted(link, call.action),
            Action::CreateTask => {
                let progress = call.token.clone().map(|token| (call.number, token));
                let deadline = self.now + TASK_TIME;
                self.tasks.entry(task).or_insert(TaskModel {
                    link,
                    busy: true,
                    deadline,
                    progress,
                });
            }
            Action::TaskResult(task) => self.task_ends(link, task),
        }
    }

    fn task_ends(&mut self, link: LinkNumber, task: Nonce) {
        if let Some(task) = self.tasks.get_mut(&task).filter(|task| task.link == link) {
            task.busy = false;
        }
    }

    /// A server answers a call that runs on another one.
    pub(super) fn answer_elsewhere(&mut self) {
        let Some((link, number, nonce)) = self.taken() else {
            return;
        };
        let others: Vec<_> = self.links.keys().copied().filter(|other| *other != link).collect();
        // The call may have moved there.
        let moved = self
            .calls
            .get(&nonce)
            .filter(|call| call.number == number)
            .and_then(|call| call.place);
        if let Some(other) = self.pick(&others).filter(|other| moved != Some(*other)) {
            self.write(
                other,
                &format!(r#"{{"jsonrpc":"2.0","id":{number},"result":"elsewhere"}}"#),
            );
            self.machine.invalid_response(self.now, other, number, "elsewhere");
        }
    }

    /// A server answers a request of the conversation itself.
    pub(super) fn answer_own(&mut self) {
        let links = self.links.iter().filter(|(_, model)| !model.own.is_empty());
        let links: Vec<_> = links.map(|(link, _)| *link).collect();
        let Some(link) = self.pick(&links) else { return };
        let fails = self.once_in(10);
        let (number, own) = self.link_mut(link).own.remove(0);
        let version = self.version();
        let list = self.links[&link].list;
        let outcome = match own {
            _ if fails => r#""error":{"code":-32603,"message":""}"#.to_owned(),
            OwnRequest::Initialize => format!(r#""result":{{"protocolVersion":"{version}"}}"#),
            OwnRequest::Setting => r#""result":{}"#.to_owned(),
            OwnRequest::List => format!(r#""result":{{"tools":[{list}]}}"#),
        };
        self.write(link, &format!(r#"{{"jsonrpc":"2.0","id":{number},{outcome}}}"#));
        match own {
            OwnRequest::Initialize if fails => {
                assert!(matches!(self.machine.replayed(link), Some(Err(_))));
                self.end_link(link);
            }
            OwnRequest::Initialize => self.link_mut(link).ready = true,
            OwnRequest::List if !fails && self.known_list.is_some_and(|known| known != list) => {
                self.known_list = Some(list);
                self.list_changes.0 += 1;
            }
            OwnRequest::List | OwnRequest::Setting => {}
        }
    }

    fn say(&mut self, link: LinkNumber, to: Audience, line: impl Fn(Nonce, &str) -> String, token: (&str, &str)) {
        let nonce = self.nonce();
        let read = line(nonce, token.1);
        self.said.insert(nonce, Said { line: read, link, to });
        self.write(link, &line(nonce, token.0));
    }

    pub(super) fn say_something(&mut self) {
        let Some(link) = self.pick_link() else { return };
        let tasks: Vec<_> = self.tasks.keys().copied().collect();
        let (method, task, to) = match (self.rng.usize(..4), self.pick(&tasks)) {
            (0, Some(task)) => ("tasks/status", task, Audience::Any),
            // Only the server that serves the session knows what has changed.
            (1, _) if self.current != Some(link) => ("resources/updated", 0, Audience::Nobody),
            (1, _) => ("resources/updated", 0, Audience::Any),
            _ => ("message", 0, Audience::Any),
        };
        let line = |nonce: Nonce, _: &str| {
            let params = format!(r#"{{"nonce":{nonce},"taskId":"t{task}","status":"failed"}}"#);
            format!(r#"{{"jsonrpc":"2.0","method":"notifications/{method}","params":{params}}}"#)
        };
        self.say(link, to, line, ("", ""));
        if method == "tasks/status" {
            self.task_ends(link, task);
        }
    }

    /// A server reports progress on a call, which may be over or run elsewhere.
    pub(super) fn say_progress(&mut self) {
        let Some(link) = self.pick_link() else { return };
        let taken = self.taken().filter(|_| !self.once_in(4));
        let known: Vec<_> = self.numbers.keys().copied().collect();
        let (link, number) = match taken {
            Some((link, number, _)) => (link, number),
            None => (link, self.pick(&known).unwrap_or(1)),
        };
        let call = self
            .calls
            .values()
            .find(|call| call.number == number && call.place == Some(link));
        let mut tasks = self.tasks.values().filter(|task| task.link == link);
        let of_task = tasks.find_map(|task| task.progress.clone().filter(|(made_by, _)| *made_by == number));
        let (token, to) = match (call, of_task) {
            (Some(call), _) => (call.token.clone(), call.exchange.map(Audience::Exchange)),
            (None, Some((_, token))) => (Some(token), Some(Audience::Any)),
            (None, None) => (None, None),
        };
        let to = to.filter(|_| token.is_some()).unwrap_or(Audience::Nobody);
        let line = |nonce: Nonce, token: &str| {
            let params = format!(r#"{{"progressToken":{token},"progress":1,"nonce":{nonce}}}"#);
            format!(r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{params}}}"#)
        };
        self.say(link, to, line, (&number.to_string(), &token.unwrap_or_default()));
    }

    pub(super) fn ping(&mut self) {
        let Some(link) = self.pick_link() else { return };
        let raw = self.pick(&SERVER_IDS).expect("ids");
        self.write(link, &format!(r#"{{"jsonrpc":"2.0","id":{raw},"method":"ping"}}"#));
        let pong = format!(r#"{{"jsonrpc":"2.0","id":{raw},"result":{{}}}}"#);
        self.expect_on(link, |link| link.responses.push((raw, Some(pong))));
    }

    /// A server writes what no message is, or what matches nothing.
    pub(super) fn write_invalid(&mut self) {
        let Some(link) = self.pick_link() else { return };
        let line = self.pick(&INVALID_LINES).expect("lines");
        match Envelope::parse(line.as_bytes()) {
            Ok(message) => self.machine.receive(self.now, link, message),
            Err(_) => {
                if let Ok(messages) = split_batch(line.as_bytes()) {
                    self.machine.receive_batch(self.now, link, messages);
                }
            }
        }
        let number = 1_000_000 + self.rng.usize(..9);
        self.write(
            link,
            &format!(r#"{{"jsonrpc":"2.0","id":{number},"result":"unmatched"}}"#),
        );
        self.write(
            link,
            &format!(r#"{{"jsonrpc":"2.0","id":"{number}","result":"unmatched"}}"#),
        );
        // A link that has ended says nothing more.
        let line = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"nonce":0}}"#;
        self.machine.receive(self.now, self.last_link + 1, message(line));
    }
}
