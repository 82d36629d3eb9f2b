//! The questions of the servers, and the answers of the clients.

use super::*;

impl Simulation {
    fn open_questions(&self) -> usize {
        self.questions.values().filter(|question| question.open).count()
    }

    fn open_on(&mut self, link: LinkNumber, raw: &str) -> Option<&mut QuestionModel> {
        let mut questions = self.questions.values_mut();
        questions.find(|question| question.open && question.link == link && id(question.raw).key() == id(raw).key())
    }

    /// A server asks something. All servers use the same few ids.
    pub(super) fn ask(&mut self) {
        let Some(link) = self.pick_link() else { return };
        let (raw, nonce) = (self.pick(&SERVER_IDS).expect("ids"), self.nonce());
        let line = format!(
            r#"{{"jsonrpc":"2.0","id":{raw},"method":"elicitation/create","params":{{"_meta":{{"progressToken":"q{nonce}"}},"nonce":{nonce}}}}}"#
        );
        let may_ask = self.current == Some(link) || !self.all_on(Some(link)).is_empty();
        let repeated = self.open_on(link, raw).is_some();
        let full = self.open_questions() >= MAX_QUESTIONS;
        self.machine.receive(self.now, link, message(&line));
        let number = self.machine.questions.of_server(link, id(raw).key());
        if repeated || full || !may_ask || number.is_none() {
            assert!(repeated || number.is_none(), "a question beyond the limits is open");
            self.expect_on(link, |link| link.responses.push((raw, None)));
            return;
        }
        let number = number.expect("it is open");
        let question = QuestionModel {
            link,
            raw,
            number,
            id: id(&self.machine.questions.client_id(number)),
            open: true,
            answered: false,
            read: false,
            withdrawn: false,
        };
        assert!(self.questions.values().all(|other| other.id != question.id));
        self.questions.insert(nonce, question);
    }

    /// A server gives a question up.
    pub(super) fn cancel_question(&mut self) {
        let Some(link) = self.pick_link() else { return };
        let raw = self.pick(&SERVER_IDS).expect("ids");
        let method = "notifications/cancelled";
        let line = format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"requestId":{raw}}}}}"#);
        self.machine.receive(self.now, link, message(&line));
        if let Some(question) = self.open_on(link, raw) {
            question.open = false;
        }
    }

    /// A client answers a question that it has read, perhaps once more, or when it is over.
    pub(super) fn answer_question(&mut self) {
        let read = self.questions.iter().filter(|(_, question)| question.read);
        let read: Vec<_> = read.map(|(nonce, _)| *nonce).collect();
        let recent = &read[read.len().saturating_sub(6)..];
        let Some(nonce) = self.pick(recent) else {
            let raw = self.pick(&IDS).expect("ids");
            let text = format!(r#"{{"jsonrpc":"2.0","id":{raw},"result":{{}}}}"#);
            self.machine.respond(&message(&text), Some(&id(raw))).expect("room");
            return;
        };
        let question = self.questions.get_mut(&nonce).expect("a question");
        let answer = |id: &str| format!(r#"{{"result":{{"for":{nonce},"x":1.50}}, "id":{id}, "jsonrpc":"2.0"}}"#);
        let text = answer(question.id.raw());
        self.machine.respond(&message(&text), Some(&question.id)).expect("room");
        if std::mem::take(&mut question.open) {
            question.answered = true;
            let (link, raw) = (question.link, question.raw);
            self.expect_on(link, |link| link.responses.push((raw, Some(answer(raw)))));
        }
    }

    /// A client reports progress on a question.
    pub(super) fn report_progress(&mut self) {
        let nonces: Vec<_> = self.questions.keys().copied().collect();
        let recent = &nonces[nonces.len().saturating_sub(4)..];
        let Some(nonce) = self.pick(recent) else { return };
        let question = &self.questions[&nonce];
        let (link, open) = (question.link, question.open);
        let method = "notifications/progress";
        let line = |token: &str| {
            format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"progressToken":{token},"progress":1}}}}"#)
        };
        let text = line(question.id.raw());
        self.machine
            .notify(self.now, message(&text), method, true)
            .expect("room");
        if open {
            let line = line(&format!("\"q{nonce}\""));
            self.expect_on(link, |link| link.notifications.push(line));
        }
    }

    /// Checks that the open questions are those of the model. With `timed_out`, some may have been
    /// given up: their servers get errors.
    pub(super) fn check_questions(&mut self, timed_out: bool) {
        let machine = &self.machine;
        for question in self.questions.values_mut().filter(|question| question.open) {
            let number = machine.questions.of_server(question.link, id(question.raw).key());
            if number == Some(question.number) {
                continue;
            }
            assert!(timed_out, "{question:?} is gone");
            question.open = false;
            let link = self
                .links
                .get_mut(&question.link)
                .expect("the link of an open question");
            if !link.write_closed {
                link.responses.push((question.raw, None));
            }
        }
        assert_eq!(self.machine.questions.len(), self.open_questions());
    }
}
