//! The clients of the model: what they ask for, and how they leave.

use super::*;
use crate::{jsonrpc::json, modern::LogLevel};

impl Client {
    /// The request of this client.
    pub(super) fn request(&self, wanted: &Wanted, answers: Option<&str>, state: Option<&str>) -> ModernRequest {
        let mut params = wanted.params();
        if self.token.is_some() {
            params.push_str(r#","_meta":{"progressToken":0}"#);
        }
        let method = wanted.method;
        let text = format!(r#"{{"jsonrpc":"2.0","id":0,"method":"{method}","params":{{{params}}}}}"#);
        ModernRequest {
            id: id(self.raw),
            method: method.into(),
            message: message(&text),
            capabilities: capabilities(self.capabilities),
            client_info: None,
            log_level: self
                .level
                .and_then(|level| LogLevel::parse(&json::quote(LEVELS[level]))),
            token: self.token.as_deref().map(id),
            name: wanted.name.map(Box::from),
            input_responses: answers.map(Box::from),
            request_state: state.map(Box::from),
            as_task: false,
            content: wanted.content(),
        }
    }
}

impl Wanted {
    fn params(&self) -> String {
        let name = self.name.unwrap_or_default();
        match (self.method, self.task) {
            (_, Some(task)) => format!(r#""taskId":"t{task}""#),
            ("tools/call", _) => format!(r#""name":"{name}","arguments":{{"x":{}}}"#, self.arguments),
            ("resources/read", _) => format!(r#""uri":"{name}""#),
            _ => format!(r#""argument":{}"#, self.arguments),
        }
    }
}

impl Simulation {
    pub(super) fn new_client(&mut self) -> Client {
        let capabilities = if self.once_in(4) { 1 + self.rng.usize(..2) } else { 0 };
        let level = self.rng.bool().then(|| self.rng.usize(..LEVELS.len()));
        let token = self.rng.bool().then(|| format!("\"p{}\"", self.rng.usize(..3)));
        Client {
            raw: self.pick(&IDS).expect("ids"),
            capabilities,
            level,
            token,
        }
    }

    fn wanted(&mut self) -> Wanted {
        let name = self.pick(&["a", "a", "b", "t", "r"]);
        let (method, name) = match self.rng.usize(..8) {
            0 => ("completion/complete", None),
            1 => ("resources/read", Some("a:1")),
            _ => ("tools/call", name),
        };
        let arguments = self.rng.usize(..3);
        Wanted {
            method,
            name,
            arguments,
            task: None,
        }
    }

    /// A first request, perhaps with answers to questions that may come.
    pub(super) fn request(&mut self) {
        let (wanted, client) = (self.wanted(), self.new_client());
        let mut answers = BTreeMap::new();
        if self.once_in(4) {
            for key in KEYS {
                if self.rng.bool() {
                    answers.insert(key.to_owned(), self.some_answer("elicitation/create"));
                }
            }
        }
        if self.once_in(30) {
            let wrong = client.request(&wanted, Some(r#"{"user":1}"#), None);
            if wanted.may_be_asked() {
                self.rejected(wrong, &["-32602"]);
            }
            return;
        }
        let text = (!answers.is_empty()).then(|| to_object(&answers));
        let request = client.request(&wanted, text.as_deref(), None);
        self.begin(request, wanted, client, answers);
    }

    /// A request that begins a call.
    pub(super) fn begin(
        &mut self,
        request: ModernRequest,
        wanted: Wanted,
        client: Client,
        ready: BTreeMap<String, String>,
    ) {
        if !self.has_room(1) {
            self.rejected(request, &["-32603", "too many"]);
            return;
        }
        let mut as_task = false;
        if wanted.method == "tools/call" && self.tools_known {
            let tasks = client.capabilities == 0;
            match wanted.name {
                Some("r") if !tasks => {
                    self.rejected(request, &["-32021", "io.modelcontextprotocol/tasks"]);
                    return;
                }
                Some("r" | "t") => as_task = tasks,
                _ => {}
            }
        }
        let reader = self.machine.modern_request(self.now, request).expect("room");
        self.accepted(reader, wanted, client, ready, as_task);
    }

    fn accepted(
        &mut self,
        reader: Reader,
        wanted: Wanted,
        client: Client,
        ready: BTreeMap<String, String>,
        as_task: bool,
    ) {
        let nonce = self.nonce();
        let number = self.machine.calls.numbers().pop().expect("a call");
        assert!(
            self.calls.values().all(|call| call.number < number),
            "a number is used twice"
        );
        let exchange = self.open(reader, wanted, client.raw, Some(nonce));
        let call = CallModel {
            wanted,
            client,
            number,
            exchange: Some(exchange),
            place: None,
            written: false,
            resends: 0,
            cancelled: false,
            deadline: self.now + REQUEST_TIMEOUT,
            stage: StageModel::Running,
            round: 0,
            asked: Vec::new(),
            questions: 0,
            ready: if wanted.may_be_asked() { ready } else { BTreeMap::new() },
            missing: false,
            held: None,
            as_task,
        };
        self.calls.insert(nonce, call);
        self.place(nonce);
    }

    /// A request of the conversation itself about a task.
    pub(super) fn ask_task(&mut self) {
        let Some(task) = self.pick_task() else { return };
        let method = self.pick(&["tasks/get", "tasks/result"]).expect("methods");
        let wanted = Wanted {
            method,
            name: None,
            arguments: 0,
            task: Some(task),
        };
        let text = format!(r#"{{"jsonrpc":"2.0","id":0,"method":"{method}","params":{{"taskId":"t{task}"}}}}"#);
        let room = self.has_room(1);
        let reader = self.machine.internal_request(self.now, &message(&text));
        let client = Client {
            raw: "0",
            capabilities: 0,
            level: None,
            token: None,
        };
        match reader {
            Ok(reader) => {
                assert!(room);
                self.accepted(reader, wanted, client, BTreeMap::new(), false);
            }
            Err(reason) => assert!(!room && reason == RejectReason::TooManyRequests),
        }
    }

    /// A request is rejected at once, with an error that has these texts in it.
    pub(super) fn rejected(&mut self, request: ModernRequest, texts: &[&str]) {
        let id = request.id.clone();
        let error = self.machine.modern_request(self.now, request).expect_err("an error");
        assert_error(&error, &id, texts);
    }

    pub(super) fn open(&mut self, reader: Reader, wanted: Wanted, raw: &'static str, call: Option<Nonce>) -> usize {
        self.exchanges.push(Exchange {
            raw,
            reader,
            attached: true,
            is_streaming: false,
            wanted,
            call,
            due: VecDeque::new(),
            outcome: Outcome::Open,
        });
        self.exchanges.len() - 1
    }

    /// The answer of a client to a question of this kind, as no other answer is.
    pub(super) fn some_answer(&mut self, method: &str) -> String {
        let nonce = self.nonce();
        match method {
            "elicitation/create" if self.once_in(4) => format!(r#"{{"action":"decline","n":{nonce}}}"#),
            "elicitation/create" => format!(r#"{{"action":"accept","content":{{"n":{nonce}}}}}"#),
            "sampling/createMessage" => format!(r#"{{"role":"assistant","content":{{"n":{nonce}}}}}"#),
            _ => format!(r#"{{"roots":[{{"n":{nonce}}}]}}"#),
        }
    }

    pub(super) fn disconnect(&mut self) {
        let attached = (0..self.exchanges.len()).filter(|at| self.exchanges[*at].attached);
        let attached: Vec<_> = attached.collect();
        let followers = self.rounds.values().flat_map(|round| &round.followers);
        let followers: Vec<_> = followers.map(|(exchange, _)| *exchange).collect();
        let follower = self.pick(&followers).filter(|_| self.rng.bool());
        if let Some(at) = follower.or_else(|| self.pick(&attached)) {
            self.leave(at);
        }
    }

    /// A client leaves the stream of its request, whose outcome it has read or not.
    pub(super) fn leave(&mut self, at: usize) {
        let exchange = &mut self.exchanges[at];
        exchange.attached = false;
        let reader = exchange.reader;
        self.machine.detach_reader(self.now, reader);
        assert!(!self.machine.streams.exists(reader.stream), "nothing is retained");
        for round in self.rounds.values_mut() {
            round.followers.retain(|(exchange, _)| *exchange != at);
        }
        self.unsubscribe(at);
        let calls = self.calls.iter().find(|(_, call)| call.exchange == Some(at));
        if let Some(nonce) = calls.map(|(nonce, _)| *nonce) {
            self.abandon(nonce);
        }
    }

    /// The tools of the server are read.
    pub(super) fn read_tools(&mut self) {
        let mut tools = crate::modern::tools::Tools::default();
        let page = r#"{"tools":[{"name":"a"},{"name":"t","execution":{"taskSupport":"optional"}},{"name":"r","execution":{"taskSupport":"required"}}]}"#;
        tools.add(page);
        self.machine.modern().expect("modern").set_tools(tools);
        self.tools_known = true;
    }
}

pub(super) fn assert_error(error: &ModernError, id: &Id, texts: &[&str]) {
    let line = error.response(Some(id.raw()));
    let line = std::str::from_utf8(&line).expect("text");
    assert!(texts.iter().all(|text| line.contains(text)), "{line} without {texts:?}");
    assert!(
        line.contains("reason") == texts.iter().any(|text| text.contains("reason")),
        "{line}"
    );
}

/// An object of answers (JSON text).
pub(super) fn to_object(answers: &BTreeMap<String, String>) -> String {
    let members = answers.iter().map(|(key, answer)| format!(r#""{key}":{answer}"#));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}
