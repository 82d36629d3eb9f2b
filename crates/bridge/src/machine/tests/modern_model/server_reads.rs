//! The servers of the model: what they read.

use super::*;
use crate::jsonrpc::MessageKind;

impl Simulation {
    /// Lets a server read what waits for it, unless it crashes or closes its input meanwhile.
    pub(super) fn transfer(&mut self, link: LinkNumber) {
        let accident = self.rng.usize(..40);
        self.transfer_with(link, accident);
    }

    pub(super) fn transfer_with(&mut self, link: LinkNumber, accident: usize) {
        let Some(chunk) = self.machine.take_output(link) else {
            self.check_read(link);
            return;
        };
        match accident {
            0 => return self.end_link(link),
            1 => return self.close_write(link),
            _ => {}
        }
        let chunk = String::from_utf8(chunk.into()).expect("text");
        self.machine.mark_written(link);
        for line in chunk.lines() {
            self.server_reads(link, line);
        }
        self.check_read(link);
    }

    /// Every line that is due has come.
    fn check_read(&self, link: LinkNumber) {
        let model = &self.links[&link];
        let due = (
            &model.settings,
            &model.task_results,
            &model.responses,
            &model.cancellations,
        );
        let none = due.0.is_empty() && due.1.is_empty() && due.2.is_empty() && due.3.is_empty();
        assert!(none, "nothing of {due:?} has come on link {link}");
    }

    fn server_reads(&mut self, link: LinkNumber, line: &str) {
        let read = message(line);
        let model = self.links.get_mut(&link).expect("a link");
        match read.kind() {
            MessageKind::Response { id: Some(id), .. } => {
                let raw = id.raw();
                let error = line.starts_with(&format!(r#"{{"jsonrpc":"2.0","id":{raw},"error":{{"code":-32"#));
                let is_due = |due: &(&str, Option<String>)| match &due.1 {
                    Some(text) => text == line,
                    None => error && due.0 == raw,
                };
                let at = model.responses.iter().position(is_due);
                let at = at.unwrap_or_else(|| panic!("{line} is not due on link {link}: {:?}", model.responses));
                model.responses.remove(at);
            }
            MessageKind::Notification { method } if &**method == "notifications/initialized" => {
                assert!(!model.initialized && model.ready, "link {link} is confirmed twice");
                model.initialized = true;
            }
            MessageKind::Notification { .. } => {
                assert!(
                    line.contains("notifications/cancelled"),
                    "{line} is not for link {link}"
                );
                let number = read.param_id("requestId").and_then(|id| id.number());
                let at = model.cancellations.iter().position(|due| Some(*due) == number);
                let at = at.unwrap_or_else(|| panic!("{line} is not for link {link}"));
                model.cancellations.remove(at);
            }
            MessageKind::Request { id, method } => {
                let number = id.number().expect("a number of the conversation");
                self.server_takes(link, line, number, method);
            }
            MessageKind::Response { id: None, .. } => panic!("{line} answers nothing"),
        }
    }

    fn server_takes(&mut self, link: LinkNumber, line: &str, number: u64, method: &str) {
        let call = self.calls.iter_mut().find(|(_, call)| call.number == number);
        let model = self.links.get_mut(&link).expect("a link");
        if method == "initialize" {
            assert!(!model.ready && model.own.is_empty());
            model.own.push((number, OwnRequest::Initialize));
            return;
        }
        assert!(model.initialized, "{line} reaches link {link} before the handshake");
        if let Some((nonce, call)) = call {
            assert_eq!(call.place, Some(link), "{line} is on another link");
            assert!(line.contains(&format!(r#""method":"{}""#, call.wanted.method)));
            assert!(!line.contains("io.modelcontextprotocol") && !line.contains("requestState"));
            assert_eq!(line.contains(r#""task":{"ttl""#), call.as_task, "{line}");
            call.written = true;
            let before = model.got.insert(number, *nonce);
            assert_eq!(before, None, "link {link} gets {line} twice");
            let readers = self.readers.entry(number).or_default();
            readers.push(link);
            let repeatable = matches!(method, "resources/read" | "completion/complete");
            assert!(readers.len() == 1 || repeatable, "{line} was sent to {readers:?}");
            return;
        }
        let own = match method {
            "tasks/result" if !model.task_results.is_empty() => {
                let nonce = model.task_results.pop_front().expect("a task");
                OwnRequest::TaskResult(nonce)
            }
            "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe" => {
                let setting = model.settings.pop_front();
                let setting = setting.unwrap_or_else(|| panic!("{line} is not due"));
                assert_eq!(line, setting.request(&number.to_string()));
                OwnRequest::Setting
            }
            _ => {
                // A call that was over before the server has read it: the cancellation follows.
                self.readers.entry(number).or_default().push(link);
                return;
            }
        };
        model.own.push((number, own));
    }
}
