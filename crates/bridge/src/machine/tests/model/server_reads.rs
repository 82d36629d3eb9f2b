//! The servers of the model: what they read.

use super::*;
use crate::tables::lists::Probe;

impl Simulation {
    /// Lets a server read what waits for it, unless it crashes or closes its input meanwhile.
    pub(super) fn transfer(&mut self, link: LinkNumber) {
        let accident = self.rng.usize(..24);
        self.transfer_with(link, accident);
    }

    pub(super) fn transfer_with(&mut self, link: LinkNumber, accident: usize) {
        let Some(chunk) = self.machine.take_output(link) else {
            return;
        };
        let chunk = String::from_utf8(chunk.into()).expect("text");
        let mut lines: Vec<_> = chunk.lines().collect();
        match accident {
            0 => return self.end_link(link),
            1 => return self.close_write(link),
            _ => {}
        }
        self.machine.mark_written(link);
        let read: Vec<_> = lines.iter().map(|line| message(line)).collect();
        for number in read.iter().filter_map(sent_number) {
            self.note_written(link, number);
        }
        if accident == 2 {
            // Nothing but the beginning arrives.
            lines.truncate(self.rng.usize(..=lines.len()));
        }
        for (line, read) in lines.iter().zip(&read) {
            self.server_reads(link, line, read);
        }
        if accident == 2 {
            return self.close_write(link);
        }
        let model = &self.links[&link];
        assert!(model.settings.is_empty(), "no {:?} for link {link}", model.settings);
        assert!(model.responses.is_empty(), "no {:?} for link {link}", model.responses);
        assert!(
            model.cancellations.is_empty(),
            "no {:?} for link {link}",
            model.cancellations
        );
        assert!(
            model.notifications.is_empty(),
            "no {:?} for link {link}",
            model.notifications
        );
        assert_eq!(model.probes, 0, "no probe for link {link}");
    }

    /// A server may have read a request.
    fn note_written(&mut self, link: LinkNumber, number: u64) {
        let mut calls = self.calls.values_mut();
        if let Some(call) = calls.find(|call| call.number == number && call.place == Some(link)) {
            call.written = true;
        }
        self.readers.entry(number).or_default().push(link);
    }

    fn server_reads(&mut self, link: LinkNumber, line: &str, read: &Envelope) {
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
                model
                    .responses
                    .remove(at.unwrap_or_else(|| panic!("link {link} has not asked for {line}")));
            }
            MessageKind::Notification { method } => match &**method {
                "notifications/initialized" => {
                    assert!(!model.initialized && model.ready, "link {link} is confirmed twice");
                    model.initialized = true;
                }
                "notifications/cancelled" => {
                    let number = read.param_id("requestId").and_then(|id| id.number());
                    let at = model.cancellations.iter().position(|due| Some(*due) == number);
                    model
                        .cancellations
                        .remove(at.unwrap_or_else(|| panic!("{line} is not for link {link}")));
                }
                _other => {
                    let at = model.notifications.iter().position(|due| due == line);
                    model
                        .notifications
                        .remove(at.unwrap_or_else(|| panic!("{line} is not for link {link}")));
                }
            },
            MessageKind::Request { id, method } => {
                let number = id.number().expect("a number of the conversation");
                match sent_nonce(read) {
                    Some(nonce) => self.server_takes(link, line, number, nonce),
                    None => self.server_takes_own(link, line, number, method),
                }
            }
            MessageKind::Response { id: None, .. } => panic!("{line} answers nothing"),
        }
    }

    /// A server gets a request of a client.
    fn server_takes(&mut self, link: LinkNumber, line: &str, number: u64, nonce: Nonce) {
        let model = self.links.get_mut(&link).expect("a link");
        assert!(model.initialized, "{line} reaches link {link} before the handshake");
        assert_eq!(self.numbers.get(&number), Some(&Some(nonce)));
        assert_eq!(model.got.insert(number, nonce), None, "link {link} gets {line} twice");
        let Some(call) = self.calls.get(&nonce).filter(|call| call.number == number) else {
            return;
        };
        let readers = &self.readers[&number];
        assert!(
            call.action.is_repeatable() || readers.len() == 1,
            "{line} was sent to {readers:?}"
        );
        assert_eq!(call.place, Some(link), "{line} is on another link");
        let token = format!(r#""progressToken":{number}"#);
        assert_eq!(line.contains(&token), call.token.is_some());
    }

    /// A server gets a request of the conversation itself.
    fn server_takes_own(&mut self, link: LinkNumber, line: &str, number: u64, method: &str) {
        let before = self.numbers.insert(number, None);
        assert_eq!(before, None, "a number is used twice");
        let model = self.links.get_mut(&link).expect("a link");
        let own = if method == "initialize" {
            assert!(!model.ready && model.own.is_empty());
            OwnRequest::Initialize
        } else {
            assert!(model.initialized, "{line} reaches link {link} before the handshake");
            if model.probes > 0 && line == Probe::new(&LISTS[0]).request(number, None) {
                model.probes -= 1;
                OwnRequest::List
            } else {
                let setting = model.settings.pop_front().expect("a setting to send");
                assert_eq!(line, setting.request(&number.to_string()));
                OwnRequest::Setting
            }
        };
        model.own.push((number, own));
    }

    /// Lets all servers read everything.
    pub(super) fn transfer_all(&mut self) {
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            self.transfer_with(link, usize::MAX);
        }
    }
}

/// The number of a client's request.
fn sent_number(read: &Envelope) -> Option<u64> {
    let MessageKind::Request { id, .. } = read.kind() else {
        return None;
    };
    sent_nonce(read).and_then(|_| id.number())
}

fn sent_nonce(read: &Envelope) -> Option<Nonce> {
    let request = matches!(read.kind(), MessageKind::Request { .. });
    read.param("nonce")
        .filter(|_| request)
        .map(|nonce| nonce.parse().expect("a number"))
}
