//! The model of what servers tell, and of the streams that listen.

use super::*;

impl Simulation {
    /// A notification is due on the stream of an exchange.
    pub(super) fn expect_note(&mut self, exchange: usize, nonce: Nonce, more: &str) {
        let exchange = &mut self.exchanges[exchange];
        if exchange.outcome == Outcome::Open {
            exchange.due.push_back(vec![format!(r#""n{nonce}""#), more.to_owned()]);
        }
    }

    pub(super) fn expect_announcement(&mut self, exchange: usize, nonce: Nonce) {
        let raw = self.exchanges[exchange].raw;
        let tag = format!(r#""io.modelcontextprotocol/subscriptionId":{raw}"#);
        self.expect_note(exchange, nonce, &tag);
    }

    /// A client opens a stream of announcements.
    pub(super) fn listen(&mut self) {
        let (client, tools) = (self.new_client(), self.rng.bool());
        let resources = URIS.into_iter().filter(|_| self.rng.bool());
        let resources: BTreeSet<_> = resources.collect();
        let tasks: BTreeSet<_> = self.pick_task().into_iter().collect();
        let uris: Vec<_> = resources.iter().collect();
        let ids: Vec<_> = tasks.iter().map(|task| format!("tag-t{task}")).collect();
        let filter = format!(r#"{{"toolsListChanged":{tools},"resourceSubscriptions":{uris:?},"taskIds":{ids:?}}}"#);
        let wanted = Wanted {
            method: "subscriptions/listen",
            name: None,
            arguments: 0,
            task: None,
        };
        let mut request = client.request(&wanted, None, None);
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":0,"method":"subscriptions/listen","params":{{"notifications":{filter}}}}}"#
        );
        request.message = message(&text);
        if !self.has_room(1) {
            self.rejected(request, &["-32603", "too many"]);
            return;
        }
        if !tasks.is_empty() && client.capabilities != 0 {
            self.rejected(request, &["-32021"]);
            return;
        }
        let reader = self.machine.modern_request(self.now, request).expect("room");
        if self.subscriptions.len() >= MAX_LISTENERS {
            self.end_oldest();
        }
        let exchange = self.open(reader, wanted, client.raw, None);
        let mut parts = vec!["notifications/subscriptions/acknowledged".to_owned()];
        parts.extend(resources.iter().map(|uri| format!("\"{uri}\"")));
        parts.extend(ids.iter().map(|task| format!("\"{task}\"")));
        if tools {
            parts.push(r#""toolsListChanged":true"#.to_owned());
        }
        self.exchanges[exchange].due.push_back(parts);
        let known = self.subscribed();
        for uri in resources.iter().filter(|uri| !known.contains(*uri)) {
            self.set(ClientSetting::Subscribe((*uri).into()));
        }
        self.subscriptions.push(Subscription {
            exchange,
            tools,
            resources,
            tasks,
        });
    }

    /// The resources that any client follows.
    pub(super) fn subscribed(&self) -> BTreeSet<&'static str> {
        let resources = self.subscriptions.iter().flat_map(|stream| &stream.resources);
        resources.copied().collect()
    }

    fn set(&mut self, setting: ClientSetting) {
        if let Some(current) = self.current {
            self.expect_on(current, |link| link.settings.push_back(setting));
        }
    }

    /// A stream of announcements is over, if it is one.
    pub(super) fn unsubscribe(&mut self, exchange: usize) {
        let at = self.subscriptions.iter().position(|stream| stream.exchange == exchange);
        let Some(at) = at else { return };
        let stream = self.subscriptions.remove(at);
        let known = self.subscribed();
        for uri in stream.resources.iter().filter(|uri| !known.contains(*uri)) {
            self.set(ClientSetting::Unsubscribe((*uri).into()));
        }
    }

    pub(super) fn end_oldest(&mut self) {
        let exchange = self.subscriptions[0].exchange;
        self.settle(exchange, Outcome::Ended);
        self.unsubscribe(exchange);
    }

    /// A server tells that something has changed.
    pub(super) fn announce(&mut self) {
        let Some(link) = self.pick_link() else { return };
        let nonce = self.nonce();
        let is_current = self.current == Some(link);
        let line = |method: &str, params: &str| {
            format!(r#"{{"jsonrpc":"2.0","method":"notifications/{method}","params":{{{params}"x":"n{nonce}"}}}}"#)
        };
        let streams = if self.rng.bool() {
            self.receive(link, &line("tools/list_changed", ""));
            self.tools_known &= !is_current;
            self.subscriptions
                .iter()
                .filter(|stream| stream.tools)
                .collect::<Vec<_>>()
        } else {
            let uri = self.pick(&URIS).expect("URIs");
            let part = self.pick(&["", "/x", "x"]).expect("parts");
            self.receive(link, &line("resources/updated", &format!(r#""uri":"{uri}{part}","#)));
            let wants = |stream: &&Subscription| part != "x" && stream.resources.contains(uri);
            self.subscriptions.iter().filter(wants).collect()
        };
        let streams = streams.into_iter().map(|stream| stream.exchange);
        for exchange in streams.filter(|_| is_current).collect::<Vec<_>>() {
            self.expect_announcement(exchange, nonce);
        }
    }

    /// A server writes a log message: for the newest of the calls that want it.
    pub(super) fn log(&mut self) {
        let Some(link) = self.pick_link() else { return };
        let (nonce, level) = (self.nonce(), self.rng.usize(..LEVELS.len()));
        let line = format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"{}","data":"n{nonce}"}}}}"#,
            LEVELS[level]
        );
        self.receive(link, &line);
        let wants =
            |call: &CallModel| call.exchange.is_some() && call.client.level.is_some_and(|wanted| wanted <= level);
        let calls = self.calls_at(Some(link)).into_iter().rev();
        let exchange = calls.map(|call| &self.calls[&call]).find(|call| wants(call));
        if let Some(exchange) = exchange.and_then(|call| call.exchange) {
            self.expect_note(exchange, nonce, "notifications/message");
        }
    }

    /// A server reports progress on a call, which may be over or run elsewhere.
    pub(super) fn progress(&mut self) {
        let Some(link) = self.pick_link() else { return };
        let calls: Vec<_> = self.calls.iter().map(|(nonce, call)| (*nonce, call.number)).collect();
        let Some((call, number)) = self.pick(&calls) else {
            return;
        };
        let nonce = self.nonce();
        let line = format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{number},"progress":1,"message":"n{nonce}"}}}}"#
        );
        self.receive(link, &line);
        let call = self.call(call);
        if call.place != Some(link) {
            return;
        }
        if call.is_parked() {
            call.held = Some(nonce);
        } else if let (Some(token), Some(exchange)) = (call.client.token.clone(), call.exchange) {
            self.expect_note(exchange, nonce, &format!(r#""progressToken":{token}"#));
        }
    }
}
