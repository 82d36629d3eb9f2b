//! The `subscriptions/listen` streams of clients of 2026-07-28.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::{jsonrpc::Id, streams::StreamId};

/// The longest list of resources and of tasks in one filter.
const MAX_NAMES: usize = 256;

/// What a client wants to hear of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// The methods of the `list_changed` notifications.
    lists: BTreeSet<&'static str>,
    pub(crate) resources: BTreeSet<Box<str>>,
    pub(crate) tasks: BTreeSet<Box<str>>,
}

/// The open streams, by their streams.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions(BTreeMap<StreamId, (Id, Filter)>);

/// The members of a filter with their notification, and the capability behind it.
const LISTS: [(&str, &str, &str); 3] = [
    (
        "toolsListChanged",
        "notifications/tools/list_changed",
        "/tools/listChanged",
    ),
    (
        "promptsListChanged",
        "notifications/prompts/list_changed",
        "/prompts/listChanged",
    ),
    (
        "resourcesListChanged",
        "notifications/resources/list_changed",
        "/resources/listChanged",
    ),
];

impl Filter {
    /// Reads a filter (JSON text), and leaves out what a server with these capabilities does not
    /// send. `None` if it is not one.
    pub(crate) fn parse(text: &str, capabilities: &Value) -> Option<Self> {
        let Value::Object(wanted) = serde_json::from_str(text).ok()? else {
            return None;
        };
        let has = |path| capabilities.pointer(path) == Some(&Value::Bool(true));
        let names = |name| -> Option<BTreeSet<Box<str>>> {
            let names: BTreeSet<Box<str>> = match wanted.get(name) {
                Some(Value::Array(names)) => {
                    let names = names.iter().map(|name| name.as_str().map(Box::from));
                    names.collect::<Option<_>>()?
                }
                Some(_) => return None,
                None => BTreeSet::new(),
            };
            (names.len() <= MAX_NAMES).then_some(names)
        };
        let (resources, tasks) = (names("resourceSubscriptions")?, names("taskIds")?);
        let mut lists = BTreeSet::new();
        for (name, method, capability) in LISTS {
            match wanted.get(name) {
                Some(Value::Bool(true)) if has(capability) => _ = lists.insert(method),
                None | Some(Value::Bool(_)) => {}
                Some(_) => return None,
            }
        }
        Some(Self {
            lists,
            resources: if has("/resources/subscribe") {
                resources
            } else {
                BTreeSet::new()
            },
            tasks,
        })
    }

    /// The filter as an acknowledgment has it (JSON text).
    pub(crate) fn to_json(&self) -> String {
        let mut filter = serde_json::Map::new();
        for (name, method, _) in LISTS {
            if self.lists.contains(method) {
                filter.insert(name.into(), true.into());
            }
        }
        if !self.resources.is_empty() {
            filter.insert("resourceSubscriptions".into(), json!(self.resources));
        }
        if !self.tasks.is_empty() {
            filter.insert("taskIds".into(), json!(self.tasks));
        }
        Value::Object(filter).to_string()
    }

    /// True if a change of this resource is for the client. A server may tell a part of what was
    /// subscribed to.
    fn has_resource(&self, uri: &str) -> bool {
        let is_part = |of: &str| {
            uri.strip_prefix(of)
                .is_some_and(|rest| rest.starts_with(['/', '?', '#']))
        };
        self.resources
            .iter()
            .any(|known| **known == *uri || is_part(known.trim_end_matches('/')))
    }
}

impl Subscriptions {
    pub(crate) fn insert(&mut self, stream: StreamId, id: Id, filter: Filter) {
        self.0.insert(stream, (id, filter));
    }

    pub(crate) fn take(&mut self, stream: StreamId) -> Option<(Id, Filter)> {
        self.0.remove(&stream)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The stream that was opened first.
    pub(crate) fn oldest(&self) -> Option<StreamId> {
        self.0.first_key_value().map(|(stream, _)| *stream)
    }

    /// True if any client wants to hear of a resource.
    pub(crate) fn has_resource(&self, uri: &str) -> bool {
        self.0.values().any(|(_, filter)| filter.resources.contains(uri))
    }

    /// The streams for a `list_changed` notification, with the ids of their requests.
    pub(crate) fn for_list(&self, method: &str) -> Vec<(StreamId, Id)> {
        self.matching(|filter| filter.lists.contains(method))
    }

    /// The streams for a change of a resource.
    pub(crate) fn for_resource(&self, uri: &str) -> Vec<(StreamId, Id)> {
        self.matching(|filter| filter.has_resource(uri))
    }

    /// The streams for the status of a task.
    pub(crate) fn for_task(&self, id: &str) -> Vec<(StreamId, Id)> {
        self.matching(|filter| filter.tasks.contains(id))
    }

    fn matching(&self, matches: impl Fn(&Filter) -> bool) -> Vec<(StreamId, Id)> {
        let found = self.0.iter().filter(|(_, (_, filter))| matches(filter));
        found.map(|(stream, (id, _))| (*stream, id.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capabilities() -> Value {
        json!({ "tools": { "listChanged": true }, "resources": { "subscribe": true } })
    }

    #[test]
    fn a_filter_is_cut_to_what_the_server_sends() {
        let wanted = r#"{"toolsListChanged":true,"promptsListChanged":true,"resourcesListChanged":false,"resourceSubscriptions":["a:b"],"later":1}"#;
        let filter = Filter::parse(wanted, &capabilities()).expect("a filter");
        assert_eq!(
            filter.to_json(),
            r#"{"resourceSubscriptions":["a:b"],"toolsListChanged":true}"#
        );
        assert_eq!(Filter::parse(wanted, &Value::Null).expect("a filter").to_json(), "{}");
        for wrong in [
            "[]",
            r#"{"toolsListChanged":1}"#,
            r#"{"resourceSubscriptions":"a"}"#,
            r#"{"resourceSubscriptions":[1]}"#,
        ] {
            assert_eq!(Filter::parse(wrong, &capabilities()), None, "{wrong}");
        }
    }

    #[test]
    fn a_part_of_a_resource_is_for_its_subscriber() {
        let filter = Filter::parse(r#"{"resourceSubscriptions":["file:///a/"]}"#, &capabilities()).expect("a filter");
        for (uri, matches) in [
            ("file:///a/", true),
            ("file:///a/b", true),
            ("file:///ab", false),
            ("file:///b", false),
        ] {
            assert_eq!(filter.has_resource(uri), matches, "{uri}");
        }
    }
}
