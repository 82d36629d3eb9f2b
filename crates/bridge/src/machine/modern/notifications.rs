//! What servers announce to modern clients, and the streams on which they hear it.

use bytes::Bytes;

use super::super::StateMachine;
use crate::{
    jsonrpc::{self, Envelope, Id, json, object::Object},
    modern::{LogLevel, META_SUBSCRIPTION, ModernError, ModernRequest},
    streams::{Reader, StreamId},
    tables::{settings::ClientSetting, subscriptions::Filter},
};

impl StateMachine {
    /// Handles a notification that belongs to no single request.
    pub(in crate::machine) fn on_modern_notification(&mut self, link: u64, message: &Envelope, method: &str) {
        match method {
            "notifications/message" => self.on_log(link, message),
            "notifications/resources/updated" => {
                let uri = message.param("uri").and_then(json::string).unwrap_or_default();
                let streams = self
                    .modern
                    .as_ref()
                    .map(|modern| modern.subscriptions.for_resource(&uri));
                self.announce(streams.unwrap_or_default(), message);
            }
            "notifications/tasks/status" => self.on_modern_task_status(link, message),
            _other => self.on_list_changed(message, method),
        }
    }

    /// Announces that a list has changed.
    fn on_list_changed(&mut self, message: &Envelope, method: &str) {
        let Some(modern) = &mut self.modern else { return };
        if method == "notifications/tools/list_changed" {
            modern.tools = None;
        }
        let streams = modern.subscriptions.for_list(method);
        self.announce(streams, message);
    }

    /// Opens a stream of announcements.
    pub(super) fn subscribe(&mut self, request: ModernRequest) -> Result<Reader, ModernError> {
        self.check_room(1).map_err(|reason| ModernError::rejected(&reason))?;
        let capabilities = self.handshake.capabilities().cloned().unwrap_or_default();
        let filter = request.message.param("notifications");
        let filter = filter.and_then(|filter| Filter::parse(filter, &capabilities));
        let filter = filter.ok_or_else(|| ModernError::invalid_params("params.notifications is not a filter"))?;
        if !filter.tasks.is_empty() && !request.capabilities.tasks {
            return Err(ModernError::missing_tasks());
        }
        let Some(modern) = &mut self.modern else {
            return Err(ModernError::method_not_found());
        };
        if modern.subscriptions.len() >= self.config.max_listeners.max(1)
            && let Some(oldest) = modern.subscriptions.oldest()
        {
            self.end_subscription(oldest);
        }
        let reader = self.streams.open_private(&request.id);
        let text = format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"notifications":{}}}}}"#,
            filter.to_json()
        );
        if let Ok(acknowledged) = Envelope::parse(text.as_bytes()) {
            let line = tagged(&acknowledged, &request.id);
            self.streams.notify(reader.stream, line);
        }
        let new = filter.resources.iter().filter(|uri| {
            let modern = self.modern.as_ref();
            modern.is_some_and(|modern| !modern.subscriptions.has_resource(uri))
        });
        for uri in new.cloned().collect::<Vec<_>>() {
            self.change_setting(ClientSetting::Subscribe(uri));
        }
        if let Some(modern) = &mut self.modern {
            modern.subscriptions.insert(reader.stream, request.id, filter);
        }
        Ok(reader)
    }

    /// Ends the subscriptions that only a closed stream had.
    pub(super) fn unsubscribe(&mut self, filter: &Filter) {
        for uri in &filter.resources {
            let modern = self.modern.as_ref();
            if modern.is_some_and(|modern| !modern.subscriptions.has_resource(uri)) {
                self.change_setting(ClientSetting::Unsubscribe(uri.clone()));
            }
        }
    }

    /// Ends all streams of announcements.
    pub(in crate::machine) fn end_subscriptions(&mut self) {
        while let Some(stream) = self.modern.as_ref().and_then(|modern| modern.subscriptions.oldest()) {
            self.end_subscription(stream);
        }
    }

    /// Ends a stream of announcements with its result.
    fn end_subscription(&mut self, stream: StreamId) {
        let taken = self
            .modern
            .as_mut()
            .and_then(|modern| modern.subscriptions.take(stream));
        let Some((id, filter)) = taken else { return };
        let id = id.raw();
        let result = format!(r#"{{"resultType":"complete","_meta":{{"{META_SUBSCRIPTION}":{id}}}}}"#);
        self.streams.respond(stream, jsonrpc::result(id, &result));
        self.unsubscribe(&filter);
    }

    /// Makes a setting here and at the current server.
    fn change_setting(&mut self, setting: ClientSetting) {
        if let Some(current) = self.links.current() {
            self.send_setting(current, &setting);
        }
        self.handshake.apply_setting(setting, self.config.max_subscriptions);
    }

    /// A log message goes to the call that has asked for its level: the newest one.
    fn on_log(&mut self, link: u64, message: &Envelope) {
        let Some(level) = message.param("level").and_then(LogLevel::parse) else {
            return;
        };
        let wants = |call: &&crate::tables::calls::Call| {
            let modern = call
                .modern
                .as_ref()
                .filter(|modern| !modern.is_parked() && !call.cancelled);
            modern.is_some_and(|modern| modern.log_level.is_some_and(|wanted| wanted <= level))
        };
        let calls = self.calls.on(link).filter(wants);
        let newest = calls.max_by_key(|call| call.modern.as_ref().map(|modern| modern.number));
        if let Some(stream) = newest.map(|call| call.stream) {
            self.streams.notify(stream, message.clone().into_line());
        }
    }

    pub(super) fn announce(&mut self, streams: Vec<(StreamId, Id)>, message: &Envelope) {
        for (stream, id) in streams {
            self.streams.notify(stream, tagged(message, &id));
        }
    }
}

/// A notification on the stream of a subscription, which is named by the id of its request.
fn tagged(message: &Envelope, id: &Id) -> Bytes {
    let mut params = Object::parse(message.params().unwrap_or("{}")).unwrap_or_default();
    let meta = params.take("_meta").unwrap_or("{}".into());
    let mut meta = Object::parse(&meta).unwrap_or_default();
    meta.set(META_SUBSCRIPTION, id.raw());
    let meta = meta.to_string();
    params.set("_meta", meta);
    let method = message.method().map(json::quote).unwrap_or_default();
    format!(r#"{{"jsonrpc":"2.0","method":{method},"params":{params}}}"#).into()
}
