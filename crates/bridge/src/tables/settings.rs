//! Client settings that outlast their request: the log level and resource subscriptions.
//!
//! A setting is recorded once the server has accepted it, and replayed to the next server. The
//! record is bounded; a setting beyond the limits applies to the current server only.

use std::collections::BTreeSet;

use crate::jsonrpc::{self, Envelope, json};

const MAX_URI_BYTES: usize = 4096;
const MAX_TOTAL_URI_BYTES: usize = 256 * 1024;

/// The change that a successful request makes to the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClientSetting {
    LogLevel(Box<str>),
    Subscribe(Box<str>),
    Unsubscribe(Box<str>),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientSettings {
    pub(crate) log_level: Option<Box<str>>,
    pub(crate) subscriptions: BTreeSet<Box<str>>,
}

impl ClientSetting {
    /// The setting of a request; `None` for any other request.
    pub(crate) fn of(method: &str, message: &Envelope) -> Option<Self> {
        let uri = || message.param("uri").and_then(json::string).map(Box::from);
        match method {
            "logging/setLevel" => {
                let level = message.param("level").filter(|level| level.len() <= MAX_URI_BYTES)?;
                json::string(level).map(|level| Self::LogLevel(level.into()))
            }
            "resources/subscribe" => uri().map(Self::Subscribe),
            "resources/unsubscribe" => uri().map(Self::Unsubscribe),
            _other => None,
        }
    }

    /// The request that makes this setting, with this id.
    pub(crate) fn request(&self, id: &str) -> String {
        let (method, name, value) = match self {
            Self::LogLevel(level) => ("logging/setLevel", "level", level),
            Self::Subscribe(uri) => ("resources/subscribe", "uri", uri),
            Self::Unsubscribe(uri) => ("resources/unsubscribe", "uri", uri),
        };
        jsonrpc::request(id, method, format!(r#"{{"{name}":{}}}"#, json::quote(value)))
    }
}

impl ClientSettings {
    /// Records a setting. `false` if it does not fit.
    pub(crate) fn apply(&mut self, setting: ClientSetting, max_subscriptions: usize) -> bool {
        match setting {
            ClientSetting::LogLevel(level) => self.log_level = Some(level),
            ClientSetting::Subscribe(uri) => {
                let bytes: usize = self.subscriptions.iter().map(|uri| uri.len()).sum();
                let fits = self.subscriptions.len() < max_subscriptions
                    && uri.len() <= MAX_URI_BYTES
                    && bytes + uri.len() <= MAX_TOTAL_URI_BYTES;
                if !fits && !self.subscriptions.contains(&uri) {
                    return false;
                }
                self.subscriptions.insert(uri);
            }
            ClientSetting::Unsubscribe(uri) => {
                self.subscriptions.remove(&uri);
            }
        }
        true
    }

    /// The settings to replay.
    pub(crate) fn iter(&self) -> impl Iterator<Item = ClientSetting> {
        let level = self.log_level.iter().cloned().map(ClientSetting::LogLevel);
        level.chain(self.subscriptions.iter().cloned().map(ClientSetting::Subscribe))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(method: &str, params: &str) -> Option<ClientSetting> {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        ClientSetting::of(method, &Envelope::parse(text.as_bytes()).expect("a message"))
    }

    #[test]
    fn settings_roundtrip_through_their_requests() {
        for (method, params) in [
            ("logging/setLevel", r#"{"level":"debug"}"#),
            ("resources/subscribe", r#"{"uri":"a:\u0062\""}"#),
            ("resources/unsubscribe", r#"{"uri":"a:b"}"#),
        ] {
            let made = setting(method, params).expect("a setting");
            let again = Envelope::parse(made.request("\"x\"").as_bytes()).expect("a message");
            assert_eq!(ClientSetting::of(method, &again), Some(made));
        }
        assert_eq!(setting("tools/call", r#"{"uri":"a:b"}"#), None);
        assert_eq!(setting("resources/subscribe", r#"{"uri":7}"#), None);
        assert_eq!(setting("logging/setLevel", r#"{"level":{"a":1}}"#), None);
    }

    #[test]
    fn the_last_level_and_the_open_subscriptions_are_current() {
        let mut settings = ClientSettings::default();
        for (method, params) in [
            ("logging/setLevel", r#"{"level":"debug"}"#),
            ("logging/setLevel", r#"{"level":"error"}"#),
            ("resources/subscribe", r#"{"uri":"a:1"}"#),
            ("resources/subscribe", r#"{"uri":"a:2"}"#),
            ("resources/subscribe", r#"{"uri":"a:\u0032"}"#),
            ("resources/unsubscribe", r#"{"uri":"a:1"}"#),
        ] {
            assert!(settings.apply(setting(method, params).expect("a setting"), 2));
        }
        assert_eq!(
            settings.iter().collect::<Vec<_>>(),
            [
                ClientSetting::LogLevel("error".into()),
                ClientSetting::Subscribe("a:2".into())
            ]
        );
    }

    #[test]
    fn the_record_is_bounded() {
        let mut settings = ClientSettings::default();
        assert!(settings.apply(ClientSetting::Subscribe("a:1".into()), 1));
        assert!(!settings.apply(ClientSetting::Subscribe("a:2".into()), 1));
        assert!(settings.apply(ClientSetting::Subscribe("a:1".into()), 1));
        assert!(!settings.apply(ClientSetting::Subscribe("x".repeat(MAX_URI_BYTES + 1).into()), 9));
        let mut settings = ClientSettings::default();
        let long = |number: usize| ClientSetting::Subscribe(format!("{number:0>MAX_URI_BYTES$}").into());
        assert!((0..MAX_TOTAL_URI_BYTES / MAX_URI_BYTES).all(|number| settings.apply(long(number), 1024)));
        assert!(!settings.apply(ClientSetting::Subscribe("a:1".into()), 1024));
        assert!(settings.apply(long(0), 1024), "it is recorded already");
    }
}
