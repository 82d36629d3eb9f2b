//! The model of tasks.

use super::{questions::has_capability, *};
use crate::modern::input::InputResponses;

impl Simulation {
    /// A task that a server has made, or is about to make.
    pub(super) fn pick_task(&mut self) -> Option<Nonce> {
        let known = self.tasks.keys().copied();
        let soon = self
            .calls
            .iter()
            .filter(|(_, call)| call.as_task)
            .map(|(nonce, _)| *nonce);
        let tasks: Vec<_> = known.chain(soon).collect();
        self.pick(&tasks)
    }

    /// A question about a task waits for an answer through the task.
    pub(super) fn ask_about_task(&mut self, nonce: Nonce, task: Nonce) {
        let deadline = self.now + QUESTION_TIMEOUT;
        let question = &self.questions[&nonce];
        // Those of the conversation count.
        assert!(has_capability(0, question.method));
        let link = question.link;
        let taken = |key: &str| {
            let mut about = self.questions.values().filter(|other| {
                other.open && other.number != question.number && other.task == Some(task) && other.link == link
            });
            about.any(|other| other.key == key)
        };
        let hinted = question.hinted && !taken(&question.key);
        let (kind, mut number) = (questions::kind(question.method), question.number);
        let key = if hinted {
            question.key.clone()
        } else {
            while taken(&format!("{kind}-{number}")) {
                number += 1;
            }
            format!("{kind}-{number}")
        };
        let question = self.questions.get_mut(&nonce).expect("a question");
        (question.key, question.deadline) = (key, deadline);
    }

    /// The open questions about a task, by key.
    fn asked_about(&self, task: Nonce) -> BTreeMap<String, Nonce> {
        let link = self.tasks.get(&task).map(|task| task.link);
        let about = self
            .questions
            .iter()
            .filter(|(_, question)| question.open && question.task == Some(task) && Some(question.link) == link);
        about.map(|(nonce, question)| (question.key.clone(), *nonce)).collect()
    }

    /// A client answers questions about a task.
    pub(super) fn update_task(&mut self) {
        let tasks: Vec<_> = self.tasks.keys().copied().collect();
        let Some(task) = self.pick(&tasks) else { return };
        let asked = self.asked_about(task);
        let text = format!(r#"{{"taskId":"t{task}","status":"working","ttl":1}}"#);
        let described = self.machine.describe_task(&text).expect("a task");
        let described: serde_json::Value = serde_json::from_str(&described).expect("JSON");
        let requests = described.get("inputRequests").and_then(|requests| requests.as_object());
        assert_eq!(
            requests.map_or(0, |requests| requests.len()),
            asked.len(),
            "{described}"
        );
        for (key, nonce) in &asked {
            let message = &described["inputRequests"][key]["params"];
            assert_eq!(message, &serde_json::json!({ "message": format!("n{nonce}") }));
        }
        let mut answers = BTreeMap::new();
        for (key, nonce) in &asked {
            let method = self.questions[nonce].method;
            match self.rng.usize(..6) {
                0 => {}
                1 => _ = answers.insert(key.clone(), "{}".to_owned()),
                _ => _ = answers.insert(key.clone(), self.some_answer(method)),
            }
        }
        answers.insert("other".to_owned(), self.some_answer("roots/list"));
        let text = client::to_object(&answers);
        let responses = InputResponses::parse(Some(&text)).expect("answers");
        self.machine.answer_task(&format!("t{task}"), &responses);
        for (key, nonce) in asked {
            let method = self.questions[&nonce].method;
            if let Some(answer) = answers.get(&key).filter(|answer| questions::is_valid(method, answer)) {
                self.answer(nonce, answer);
            }
        }
    }

    /// A client names a task: its own, one that is over, or one of another session.
    pub(super) fn name_task(&mut self) {
        let task = self.pick_task().unwrap_or_default();
        let capabilities = self.rng.usize(..2);
        let client = Client {
            capabilities,
            ..self.new_client()
        };
        let wanted = Wanted {
            method: "tasks/get",
            name: None,
            arguments: 0,
            task: Some(task),
        };
        let prefix = self.pick(&["tag-", "gat-", ""]).expect("prefixes");
        let mut request = client.request(&wanted, None, None);
        request.name = Some(format!("{prefix}t{task}").into());
        let found = self.machine.requested_task(&request);
        let known = capabilities == 0 && prefix == "tag-" && self.tasks.contains_key(&task);
        assert_eq!(found.ok(), known.then(|| format!("t{task}")));
    }

    pub(super) fn task_ends(&mut self, link: LinkNumber, task: Nonce) {
        if let Some(task) = self.tasks.get_mut(&task).filter(|task| task.link == link) {
            task.busy = false;
        }
    }

    /// A server tells the status of a task, which may be that of another server.
    pub(super) fn tell_status(&mut self) {
        let Some(link) = self.pick_link() else { return };
        let Some(task) = self.pick_task() else { return };
        let status = self
            .pick(&["working", "completed", "failed", "cancelled"])
            .expect("a status");
        let nonce = self.nonce();
        let line = format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/tasks/status","params":{{"taskId":"t{task}","status":"{status}","statusMessage":"n{nonce}","ttl":1}}}}"#
        );
        self.receive(link, &line);
        if matches!(status, "failed" | "cancelled") {
            self.task_ends(link, task);
        }
        let is_its_own = self.tasks.get(&task).is_some_and(|task| task.link == link);
        if !is_its_own || self.watchers(task).is_empty() {
            return;
        }
        if matches!(status, "completed" | "failed") {
            self.expect_on(link, |link| link.task_results.push_back(nonce));
            self.announced.insert(nonce, task);
        } else {
            self.announce_task(task, nonce);
        }
    }

    /// The streams that follow a task.
    fn watchers(&self, task: Nonce) -> Vec<usize> {
        let of_task = self.subscriptions.iter().filter(|stream| stream.tasks.contains(&task));
        of_task.map(|stream| stream.exchange).collect()
    }

    pub(super) fn announce_task(&mut self, task: Nonce, nonce: Nonce) {
        for exchange in self.watchers(task) {
            self.expect_announcement(exchange, nonce);
        }
    }
}
