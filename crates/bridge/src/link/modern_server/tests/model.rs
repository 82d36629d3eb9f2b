//! Random schedules of calls, rounds, answers, cancellations and faulty messages, against a server
//! that tells in each answer which call it belongs to.

use std::collections::BTreeMap;

use super::*;

/// How a call stands with the server.
#[derive(Debug, Default)]
struct Modelled {
    answers: usize,
    cancelled: bool,
    /// The answers of the server.
    rounds: usize,
}

struct Schedule {
    pair: Pair,
    random: fastrand::Rng,
    calls: BTreeMap<u64, Modelled>,
    /// The requests that the server has read and not answered, and the call of each.
    at_server: Vec<(Value, u64)>,
    /// The questions that the machine has not answered, and the call of each.
    questions: Vec<(Value, u64)>,
    last: u64,
}

impl Schedule {
    fn step(&mut self) {
        match self.random.u32(0..100) {
            0..25 => self.begin_call(),
            25..60 => self.answer_request(),
            60..80 => self.answer_question(),
            80..88 => self.cancel(),
            88..95 => {
                let millis = self.random.u64(0..2000);
                self.pair.wait(millis);
            }
            _faulty => self.send_nonsense(),
        }
        self.collect();
    }

    fn begin_call(&mut self) {
        self.last += 1;
        let number = self.last;
        self.calls.insert(number, Modelled::default());
        let method = if self.random.bool() {
            "tools/call"
        } else {
            "prompts/get"
        };
        let arguments = json!({ "call": number });
        self.pair
            .ask(number, method, &json!({ "name": "x", "arguments": arguments }));
    }

    /// The server answers one of its requests in some way.
    fn answer_request(&mut self) {
        let Some((request, call)) = self.take_random_request() else {
            return;
        };
        let method = request["method"].as_str().expect("a method").to_owned();
        let mut response = json!({ "jsonrpc": "2.0", "id": request["id"] });
        let asked = |input: Value| json!({ "one": input.clone(), "two": input });
        match (method.as_str(), self.random.u32(0..10)) {
            (_, 0) => response["error"] = json!({ "code": -32603, "message": call.to_string() }),
            ("tasks/get", 1..4) => response["result"] = json!({ "status": "working", "taskId": call.to_string() }),
            ("tasks/get", 4..6) => {
                let key = self.random.u32(..).to_string();
                let inputs = json!({ key: form(&call.to_string()) });
                response["result"] = json!({ "status": "input_required", "inputRequests": inputs });
            }
            ("tasks/get", _) => response["result"] = json!({ "status": "completed", "result": { "call": call } }),
            ("tasks/update" | "tasks/cancel", _) => response["result"] = json!({}),
            (_, 1..4) => response["result"] = input_required(&asked(form(&call.to_string())), &call.to_string()),
            (_, 4) => {
                response["result"] = json!({ "resultType": "input_required", "requestState": call.to_string() });
            }
            ("tools/call", 5) => {
                response["result"] = json!({ "resultType": "task", "status": "working", "taskId": call.to_string() });
            }
            _other => response["result"] = json!({ "call": call }),
        }
        if let Some(modelled) = self.calls.get_mut(&call) {
            modelled.rounds += 1;
        }
        self.pair.child(&response);
    }

    fn answer_question(&mut self) {
        if self.questions.is_empty() {
            return;
        }
        let (question, call) = self.questions.swap_remove(self.random.usize(0..self.questions.len()));
        let mut response = json!({ "jsonrpc": "2.0", "id": question["id"] });
        if self.random.u32(0..10) == 0 {
            response["error"] = json!({ "code": -1, "message": call.to_string() });
        } else {
            response["result"] = json!({ "action": "accept", "content": { "call": call } });
        }
        self.pair.machine(&response);
    }

    fn cancel(&mut self) {
        if let Some(number) = self.random.choice(self.calls.keys().copied().collect::<Vec<_>>()) {
            if let Some(call) = self.calls.get_mut(&number).filter(|call| call.answers == 0) {
                call.cancelled = true;
            }
            self.pair
                .notify("notifications/cancelled", &json!({ "requestId": number }));
        }
    }

    fn send_nonsense(&mut self) {
        let id = self.random.u64(1000..2000);
        let nonsense = [
            json!({ "jsonrpc": "2.0", "id": id, "result": {} }),
            json!({ "jsonrpc": "2.0", "id": null, "error": {} }),
            json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": id } }),
            json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" }),
        ];
        let nonsense = self.random.choice(nonsense).expect("one of them");
        self.pair.child(&nonsense);
    }

    /// Reads what both sides have got, and checks that it belongs together.
    fn collect(&mut self) {
        while let Some(chunk) = self.pair.server.take_output() {
            for line in std::str::from_utf8(&chunk).expect("text").lines() {
                let line: Value = serde_json::from_str(line).expect("JSON");
                self.collect_request(line);
            }
        }
        for line in mem::take(&mut self.pair.replies) {
            self.collect_reply(line);
        }
    }

    fn collect_request(&mut self, line: Value) {
        if line["method"] == "notifications/cancelled" {
            // The server stops working on it.
            self.at_server
                .retain(|(request, _)| request["id"] != line["params"]["requestId"]);
            return;
        }
        let params = &line["params"];
        let call = match params["taskId"].as_str() {
            Some(id) => id.parse().expect("a number"),
            None => params["arguments"]["call"].as_u64().expect("a number"),
        };
        if let Some(state) = params["requestState"].as_str() {
            assert_eq!(state, call.to_string(), "a state of another call");
        }
        let answers = params["inputResponses"].as_object();
        for answer in answers.into_iter().flat_map(|answers| answers.values()) {
            assert_eq!(answer["content"]["call"], call, "an answer for another call");
        }
        assert!(
            self.at_server.iter().all(|(other, _)| other["id"] != line["id"]),
            "an id twice"
        );
        self.at_server.push((line, call));
    }

    fn collect_reply(&mut self, line: Value) {
        if line["method"] == "notifications/cancelled" {
            self.questions
                .retain(|(question, _)| question["id"] != line["params"]["requestId"]);
            return;
        }
        if line["method"].is_string() {
            let call = line["params"]["_meta"][CALL_HINT]
                .as_str()
                .expect("a hint")
                .parse()
                .expect("a number");
            assert_eq!(
                line["params"]["message"],
                u64::to_string(&call),
                "a question about another call"
            );
            assert_eq!(self.calls[&call].answers, 0, "a question about a call that has ended");
            self.questions.push((line, call));
            return;
        }
        let number = line["id"].as_u64().expect("a number");
        let call = self.calls.get_mut(&number).expect("a call");
        call.answers += 1;
        assert_eq!(call.answers, 1, "call {number} is answered twice");
        if let Some(told) = line["result"]["call"].as_u64() {
            assert_eq!(told, number, "a result of another call");
        }
    }

    fn take_random_request(&mut self) -> Option<(Value, u64)> {
        let at = (!self.at_server.is_empty()).then(|| self.random.usize(0..self.at_server.len()))?;
        Some(self.at_server.swap_remove(at))
    }

    /// Everyone answers everything: then nothing is left, and each call has been answered.
    fn finish(&mut self) {
        for _ in 0..1000 {
            while let Some((request, call)) = self.take_random_request() {
                let result = match request["method"].as_str() {
                    Some("tasks/get") => json!({ "status": "completed", "result": { "call": call } }),
                    _other => json!({ "call": call }),
                };
                self.pair.answer(&request, &result);
                self.collect();
            }
            while let Some((question, call)) = self.questions.pop() {
                self.pair
                    .reply(&question, &json!({ "action": "accept", "content": { "call": call } }));
                self.collect();
            }
            if self.pair.server.next_deadline().is_none() && self.at_server.is_empty() {
                break;
            }
            self.pair.wait(1000);
            self.collect();
        }
        assert!(self.pair.is_idle(), "{:?}", self.pair.server);
        for (number, call) in &self.calls {
            assert!(
                call.answers == 1 || call.cancelled,
                "call {number} has no answer: {call:?}"
            );
        }
    }
}

#[test]
fn each_call_is_answered_once_and_no_answer_reaches_another_call() {
    let mut rounds = 0;
    for seed in 0..1000 {
        let mut schedule = Schedule {
            pair: Pair::tools(),
            random: fastrand::Rng::with_seed(seed),
            calls: BTreeMap::new(),
            at_server: Vec::new(),
            questions: Vec::new(),
            last: 100,
        };
        for _ in 0..60 {
            schedule.step();
        }
        schedule.finish();
        rounds += schedule.calls.values().filter(|call| call.rounds > 1).count();
    }
    assert!(rounds > 1000, "the schedules have too few rounds: {rounds}");
}

/// A value that a faulty peer may write anywhere.
fn any_value(random: &mut fastrand::Rng, depth: usize) -> Value {
    match random.u32(0..if depth == 0 { 6 } else { 8 }) {
        0 => Value::Null,
        1 => json!(random.bool()),
        2 => json!(random.u64(0..6)),
        3 => json!(-1.5),
        4 => json!(random.choice(["", "t", "completed", "input_required", "task", "working", "1"])),
        5 => json!([]),
        6 => json!([any_value(random, depth - 1), any_value(random, depth - 1)]),
        _object => {
            let names = [
                "_meta",
                "uri",
                "name",
                "code",
                "message",
                "method",
                "params",
                "resultType",
                "inputRequests",
                "requestState",
                "status",
                "taskId",
                "result",
                "requestId",
                "notifications",
                "resourceSubscriptions",
                "tools",
                "capabilities",
                META_SUBSCRIPTION,
            ];
            let members = (0..random.usize(0..5)).map(|_| {
                let name = random.choice(names).unwrap_or_default().to_owned();
                (name, any_value(random, depth - 1))
            });
            Value::Object(members.collect())
        }
    }
}

#[test]
fn no_message_of_either_side_breaks_the_translator() {
    let methods = [
        "initialize",
        "tools/call",
        "tools/list",
        "resources/subscribe",
        "resources/unsubscribe",
        "logging/setLevel",
        "notifications/initialized",
        "notifications/cancelled",
        "notifications/subscriptions/acknowledged",
        "notifications/resources/updated",
        "notifications/progress",
    ];
    let mut translated = 0;
    for seed in 0..3000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut pair = Pair::new();
        for _ in 0..30 {
            let mut message = json!({ "jsonrpc": "2.0" });
            let kind = random.u32(0..4);
            if kind < 3 {
                message["id"] = json!(random.u64(0..6));
            }
            match kind {
                0 | 3 => {
                    message["method"] = json!(random.choice(methods));
                    message["params"] = any_value(&mut random, 4);
                }
                1 => message["result"] = any_value(&mut random, 4),
                _error => message["error"] = any_value(&mut random, 2),
            }
            let Ok(message) = Envelope::parse(message.to_string().as_bytes()) else {
                continue;
            };
            let lines = if random.bool() {
                pair.server.receive_from_machine(pair.now, &message)
            } else {
                pair.server.receive_from_server(pair.now, &message)
            };
            // Whatever it says is a message.
            for line in lines {
                assert!(Envelope::parse(&line).is_ok(), "{line:?}");
                translated += 1;
            }
            while let Some(lines) = pair.server.take_output() {
                for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    assert!(Envelope::parse(line).is_ok(), "{line:?}");
                    translated += 1;
                }
            }
            pair.wait(random.u64(0..3000));
        }
    }
    assert!(translated > 10_000, "{translated}");
}
