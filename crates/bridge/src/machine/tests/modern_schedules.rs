//! Clients of 2026-07-28 on random schedules: each request has exactly one response, with its id,
//! whatever servers, other clients and time do, and nothing is left in the end.
//!
//! A seed determines a schedule. `BRIDGE_SCHEDULES` is the number of schedules, `BRIDGE_SEED` the
//! first seed. A failed schedule prints its seed.

mod reading;

use std::{collections::BTreeMap, sync::Arc};

use fastrand::Rng;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::*;
use crate::{
    fuzz_tests::env_number,
    memory::MemoryBudget,
    modern::{ModernRequest, VERSION, state::testing::TestSealer},
};

const INITIALIZED: &str = r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":true},"logging":{}},"serverInfo":{"name":"s","version":"1"}}"#;
const CAPABILITIES: [&str; 3] = [r#"{"elicitation":{}}"#, "{}", r#"{"sampling":{}}"#];
const STEPS: usize = 150;

/// An exchange that a client reads.
struct Exchange {
    id: u64,
    reader: Reader,
    tool: &'static str,
    streaming: bool,
    subscription: bool,
}

/// What a client may retry: the tool, the state, and the keys that were asked for.
type Retry = (&'static str, String, Vec<String>);

struct Schedule {
    rng: Rng,
    machine: StateMachine,
    memory: MemoryBudget,
    now: Instant,
    next: u64,
    exchanges: Vec<Exchange>,
    retries: Vec<Retry>,
    /// The calls that each server runs.
    servers: BTreeMap<u64, Vec<u64>>,
    newest: u64,
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let memory = MemoryBudget::new(1 << 30);
        let config = Config {
            state_sealer: Some(Arc::new(TestSealer)),
            max_parked: 2,
            max_listeners: 2,
            max_in_flight: 8,
            memory: memory.clone(),
            ..Config::default()
        };
        let params = r#"{"protocolVersion":"2025-11-25","capabilities":{"elicitation":{"form":{}}},"clientInfo":{"name":"c","version":"1"}}"#;
        let snapshot = Snapshot::without_handshake(params, LATEST, true).expect("JSON");
        Self {
            rng: Rng::with_seed(seed),
            machine: StateMachine::new(config, "tag", "grant", Some(&snapshot)),
            memory,
            now: Instant::now(),
            next: 1,
            exchanges: Vec::new(),
            retries: Vec::new(),
            servers: BTreeMap::new(),
            newest: 0,
        }
    }

    fn run(&mut self) {
        self.start_server();
        for _ in 0..STEPS {
            match self.rng.u8(..40) {
                0..=6 => self.call(),
                7..=12 => self.retry(),
                13 => self.listen(),
                14..=20 => self.answer(),
                21..=26 => self.ask(),
                27 => self.withdraw(),
                28..=29 => self.tell(),
                30..=31 => self.leave(),
                32 => self.start_server(),
                33 if self.rng.u8(..3) == 0 => self.crash(),
                _ => {
                    let times = [5, 30, 200, 3_000, 70_000, 310_000];
                    let time = times[self.rng.usize(..times.len())];
                    self.advance(time);
                }
            }
            if self.servers.is_empty() && self.rng.bool() {
                self.start_server();
            }
            self.transfer();
            self.read();
            self.check();
        }
        self.finish();
    }

    fn finish(&mut self) {
        self.start_server();
        for _ in 0..20 {
            self.transfer();
            self.advance(700_000);
            self.read();
        }
        let hung: Vec<_> = self
            .exchanges
            .iter()
            .filter(|exchange| !exchange.subscription)
            .collect();
        assert!(
            hung.is_empty(),
            "no response to {:?}",
            hung.iter().map(|e| e.id).collect::<Vec<_>>()
        );
        for exchange in std::mem::take(&mut self.exchanges) {
            self.machine.detach_reader(self.now, exchange.reader);
        }
        for link in std::mem::take(&mut self.servers).into_keys() {
            self.machine.end_link(self.now, link);
        }
        self.advance(1_000_000);
        assert!(self.machine.is_blank(), "{:?}", self.machine);
        assert_eq!(self.machine.timers.all().count(), 0);
        self.machine.account_memory();
        assert_eq!(self.memory.used(), 0);
    }

    fn post(&mut self, method: &'static str, tool: &'static str, mut params: Value) {
        let (id, capabilities) = (self.next, CAPABILITIES[self.rng.usize(..6).saturating_sub(3)]);
        self.next += 1;
        let capabilities: Value = serde_json::from_str(capabilities).expect("JSON");
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": VERSION,
            "io.modelcontextprotocol/clientCapabilities": capabilities,
        });
        if self.rng.bool() {
            params["_meta"]["progressToken"] = id.into();
            params["_meta"]["io.modelcontextprotocol/logLevel"] = "info".into();
        }
        let text = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string();
        let pairs = [
            ("mcp-protocol-version", VERSION),
            ("mcp-method", method),
            ("mcp-name", tool),
        ];
        let headers: HeaderMap = pairs
            .into_iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let request = super::id(&id.to_string());
        let request = ModernRequest::check(&headers, &message(&text), &request, method).expect("a request");
        if let Ok(reader) = self.machine.modern_request(self.now, request) {
            let subscription = method == "subscriptions/listen";
            self.exchanges.push(Exchange {
                id,
                reader,
                tool,
                streaming: false,
                subscription,
            });
        }
    }

    fn call(&mut self) {
        let tool = ["a", "b"][self.rng.usize(..2)];
        let mut params = json!({ "name": tool });
        if self.rng.u8(..4) == 0 {
            params["inputResponses"] = json!({ "k0": { "action": "accept" } });
        }
        self.post("tools/call", tool, params);
    }

    fn retry(&mut self) {
        if self.retries.is_empty() {
            return;
        }
        // The newest are the ones that mean something.
        let last = self.retries.len() - 1;
        let (tool, state, keys) = self.retries[last - self.rng.usize(..=last.min(3))].clone();
        let mut answers = serde_json::Map::new();
        for key in keys {
            match self.rng.u8(..6) {
                0 => {}
                1 => _ = answers.insert(key, json!({ "action": 7 })),
                _ => _ = answers.insert(key, json!({ "action": "accept" })),
            }
        }
        if self.rng.u8(..4) == 0 {
            answers.insert("k1".into(), json!({ "action": "decline" }));
        }
        self.post(
            "tools/call",
            tool,
            json!({ "name": tool, "inputResponses": answers, "requestState": state }),
        );
    }

    fn listen(&mut self) {
        let filter = json!({ "toolsListChanged": true, "resourceSubscriptions": ["a:b"] });
        self.post("subscriptions/listen", "", json!({ "notifications": filter }));
    }

    fn server(&mut self) -> Option<u64> {
        let servers: Vec<_> = self.servers.keys().copied().collect();
        (!servers.is_empty()).then(|| servers[self.rng.usize(..servers.len())])
    }

    fn answer(&mut self) {
        let Some(server) = self.server() else { return };
        let Some(calls) = self.servers.get_mut(&server).filter(|calls| !calls.is_empty()) else {
            return;
        };
        let call = calls.swap_remove(self.rng.usize(..calls.len()));
        let outcome = [
            r#""result":{"content":[]}"#,
            r#""result":{"isError":true}"#,
            r#""error":{"code":-5,"message":"m"}"#,
        ];
        let text = format!(r#"{{"jsonrpc":"2.0","id":{call},{}}}"#, outcome[self.rng.usize(..3)]);
        self.machine.receive(self.now, server, message(&text));
    }

    fn ask(&mut self) {
        let Some(server) = self.server() else { return };
        let mut meta = json!({});
        if self.rng.bool() {
            meta["forgejo-mcp-broker/input-key"] = ["k0", "k1", "elicitation-2"][self.rng.usize(..3)].into();
        }
        if self.rng.u8(..4) == 0 {
            meta["forgejo-mcp-broker/call"] = self.rng.u64(..40).to_string().into();
        }
        let params = json!({ "message": "?", "_meta": meta });
        let text =
            json!({ "jsonrpc": "2.0", "id": self.rng.u8(..8), "method": "elicitation/create", "params": params });
        self.machine.receive(self.now, server, message(&text.to_string()));
    }

    fn withdraw(&mut self) {
        let Some(server) = self.server() else { return };
        let params = json!({ "requestId": self.rng.u8(..8) });
        let text = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params });
        self.machine.receive(self.now, server, message(&text.to_string()));
    }

    fn tell(&mut self) {
        let Some(server) = self.server() else { return };
        let text = match self.rng.u8(..4) {
            0 => json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" }),
            1 => json!({ "jsonrpc": "2.0", "method": "notifications/resources/updated", "params": { "uri": "a:b" } }),
            2 => {
                json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": "error", "data": 1 } })
            }
            _ => {
                json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "progressToken": self.rng.u64(..40), "progress": 1 } })
            }
        };
        self.machine.receive(self.now, server, message(&text.to_string()));
    }

    fn leave(&mut self) {
        if !self.exchanges.is_empty() {
            let gone = self.exchanges.swap_remove(self.rng.usize(..self.exchanges.len()));
            self.machine.detach_reader(self.now, gone.reader);
        }
    }

    fn start_server(&mut self) {
        if self.servers.len() >= 2 {
            return;
        }
        self.newest += 1;
        let link = self.newest;
        assert!(self.machine.start_link(link));
        self.servers.insert(link, Vec::new());
        self.transfer();
        assert!(matches!(self.machine.replayed(link), Some(Ok(()))));
        self.machine.attach(self.now, link);
    }

    fn crash(&mut self) {
        if let Some(server) = self.server() {
            self.servers.remove(&server);
            if self.rng.bool() {
                self.machine.close_write(self.now, server);
            }
            self.machine.end_link(self.now, server);
        }
    }

    fn advance(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
        self.machine.run_timers(self.now);
    }

    /// The servers read what is for them.
    fn transfer(&mut self) {
        for link in self.servers.keys().copied().collect::<Vec<_>>() {
            while let Some(lines) = self.machine.take_output(link) {
                self.machine.mark_written(link);
                let text = String::from_utf8(lines.into()).expect("text");
                for line in text.lines() {
                    let MessageKind::Request { id, method } = message(line).kind().clone() else {
                        continue;
                    };
                    if &*method == "tools/call" {
                        let calls = self.servers.get_mut(&link).expect("a server");
                        calls.push(id.number().expect("a number"));
                        continue;
                    }
                    let result = if &*method == "initialize" {
                        INITIALIZED
                    } else {
                        r#"{"tools":[]}"#
                    };
                    let response = jsonrpc::result(id.raw(), result);
                    let response = Envelope::parse(&response).expect("a message");
                    self.machine.receive(self.now, link, response);
                }
            }
        }
    }
}

#[test]
fn each_modern_request_has_one_response() {
    let (count, first) = (env_number("BRIDGE_SCHEDULES", 150), env_number("BRIDGE_SEED", 0));
    for seed in first..first + count {
        let run = std::panic::catch_unwind(|| Schedule::new(seed).run());
        if let Err(panic) = run {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
