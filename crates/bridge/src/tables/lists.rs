//! The server's lists as the client has fetched them: digests that tell a changed list, and the
//! tools that may be called twice.
//!
//! A list is the concatenation of its pages. Its digest is recorded when the client has fetched the
//! last page; another server's list is fetched in the same way and compared, because a server that
//! has replaced another one cannot announce the difference.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;

use crate::jsonrpc::{self, Envelope, json};

/// The lists of MCP with the member of a page that holds its items, and the notification that
/// announces a change.
pub(crate) const LISTS: [ListKind; 4] = [
    ListKind {
        method: "tools/list",
        member: "tools",
        changed: "notifications/tools/list_changed",
    },
    ListKind {
        method: "prompts/list",
        member: "prompts",
        changed: "notifications/prompts/list_changed",
    },
    ListKind {
        method: "resources/list",
        member: "resources",
        changed: "notifications/resources/list_changed",
    },
    ListKind {
        method: "resources/templates/list",
        member: "resourceTemplates",
        changed: "notifications/resources/list_changed",
    },
];
/// The number of pages that are read of one list.
const MAX_PAGES: u8 = 32;
/// The number of tools that are remembered as repeatable, and the longest name.
const MAX_REPEATABLE: usize = 2048;
const MAX_NAME_BYTES: usize = 256;

#[derive(Debug)]
pub(crate) struct ListKind {
    pub(crate) method: &'static str,
    member: &'static str,
    pub(crate) changed: &'static str,
}

/// A list that is being read, page by page.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    pub(crate) list: &'static ListKind,
    /// The digest of the pages so far.
    digest: u64,
    pages: u8,
}

/// The next step after a page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Page {
    /// It was the last one; the digest of the list.
    Last(u64),
    /// More pages follow behind this cursor (JSON text).
    Next(String),
    /// The page is not one.
    Invalid,
}

/// The lists that the client has fetched.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    /// The digests, by method.
    digests: BTreeMap<Box<str>, u64>,
    /// The lists that the client is fetching, with the cursor of the next page (JSON text).
    fetching: Vec<(Probe, String)>,
    repeatable_tools: HashSet<Box<str>>,
}

impl Probe {
    pub(crate) fn new(list: &'static ListKind) -> Self {
        Self {
            list,
            digest: 0,
            pages: 0,
        }
    }

    /// The request for a page, with this id; the first page has no cursor.
    pub(crate) fn request(&self, id: u64, cursor: Option<&str>) -> String {
        let params = cursor.map(|cursor| format!(r#"{{"cursor":{cursor}}}"#));
        jsonrpc::request(id, self.list.method, params.as_deref().unwrap_or("{}"))
    }

    /// Adds a page (the text of a result).
    fn add(&mut self, result: &str) -> Page {
        let Ok([items, cursor]) = json::members(result, [self.list.member, "nextCursor"]) else {
            return Page::Invalid;
        };
        let Some(items) = items else { return Page::Invalid };
        self.pages += 1;
        self.digest = digest(self.digest, &result[items]);
        match cursor.map(|at| &result[at]).filter(|cursor| *cursor != "null") {
            None => Page::Last(self.digest),
            Some(_) if self.pages >= MAX_PAGES => Page::Invalid,
            Some(cursor) => Page::Next(cursor.to_owned()),
        }
    }
}

impl Lists {
    /// Lists with recorded digests.
    pub(crate) fn recorded(digests: BTreeMap<Box<str>, u64>) -> Self {
        Self {
            digests,
            ..Self::default()
        }
    }

    pub(crate) fn digests(&self) -> &BTreeMap<Box<str>, u64> {
        &self.digests
    }

    /// The lists that the client has fetched.
    pub(crate) fn fetched(&self) -> impl Iterator<Item = &'static ListKind> {
        LISTS.iter().filter(|list| self.digests.contains_key(list.method))
    }

    /// Notes a page that the client has fetched with a request whose cursor was `cursor` (JSON
    /// text). True if a digest has changed.
    pub(crate) fn fetched_page(&mut self, method: &str, cursor: Option<&str>, result: &str) -> bool {
        let Some(list) = LISTS.iter().find(|list| list.method == method) else {
            return false;
        };
        if list.method == "tools/list" {
            self.note_tools(result, cursor.is_none());
        }
        let begun = self.fetching.iter().position(|(probe, _)| probe.list.method == method);
        let begun = begun.map(|at| self.fetching.swap_remove(at));
        let mut probe = match (cursor, begun) {
            (None, _) => Probe::new(list),
            (Some(cursor), Some((probe, next))) if next == cursor => probe,
            (Some(_), _) => return false,
        };
        match probe.add(result) {
            Page::Last(digest) => self.digests.insert(method.into(), digest) != Some(digest),
            Page::Next(cursor) => {
                self.fetching.push((probe, cursor));
                false
            }
            Page::Invalid => false,
        }
    }

    /// Adds a page of another server's list, and notes the tools on it.
    pub(crate) fn probed_page(&mut self, probe: &mut Probe, result: &str) -> Page {
        if probe.list.method == "tools/list" {
            self.note_tools(result, probe.pages == 0);
        }
        probe.add(result)
    }

    /// Notes the list of another server. True if it differs from the one that the client has.
    pub(crate) fn differs(&mut self, method: &str, digest: u64) -> bool {
        match self.digests.get_mut(method) {
            Some(before) if *before != digest => {
                *before = digest;
                true
            }
            _ => false,
        }
    }

    /// True if a request changes nothing at the server, or changes it no further when it comes
    /// twice (MCP 2025-11-25, "Tools", annotations).
    pub(crate) fn is_repeatable(&self, method: &str, message: &Envelope) -> bool {
        match method {
            "initialize"
            | "ping"
            | "prompts/get"
            | "resources/read"
            | "completion/complete"
            | "logging/setLevel"
            | "resources/subscribe"
            | "resources/unsubscribe" => true,
            "tools/call" => message
                .param("name")
                .and_then(json::string)
                .is_some_and(|name| self.repeatable_tools.contains(name.as_str())),
            method => LISTS.iter().any(|list| list.method == method),
        }
    }

    fn note_tools(&mut self, result: &str, first_page: bool) {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Tool {
            name: Box<str>,
            #[serde(default)]
            annotations: Option<Annotations>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Annotations {
            #[serde(default)]
            read_only_hint: Option<bool>,
            #[serde(default)]
            idempotent_hint: Option<bool>,
        }
        #[derive(Deserialize)]
        struct Tools {
            tools: Vec<Tool>,
        }
        if first_page {
            self.repeatable_tools.clear();
        }
        let Ok(Tools { tools }) = serde_json::from_str(result) else {
            return;
        };
        for tool in tools {
            let hint = tool
                .annotations
                .is_some_and(|hints| hints.read_only_hint == Some(true) || hints.idempotent_hint == Some(true));
            if hint && tool.name.len() <= MAX_NAME_BYTES && self.repeatable_tools.len() < MAX_REPEATABLE {
                self.repeatable_tools.insert(tool.name);
            }
        }
    }
}

/// FNV-1a, which is the same in every build: digests are recorded.
fn digest(before: u64, text: &str) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let start = if before == 0 { OFFSET } else { before };
    text.bytes()
        .fold(start, |digest, byte| (digest ^ u64::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Envelope {
        Envelope::parse(text.as_bytes()).expect("a message")
    }

    #[test]
    fn tools_of_another_server_are_noted() {
        let mut lists = Lists::default();
        let mut probe = Probe::new(&LISTS[0]);
        lists.probed_page(
            &mut probe,
            r#"{"tools":[{"name":"a","annotations":{"readOnlyHint":true}}],"nextCursor":"x"}"#,
        );
        lists.probed_page(
            &mut probe,
            r#"{"tools":[{"name":"b","annotations":{"idempotentHint":true}}]}"#,
        );
        let is_repeatable = |name| {
            let call = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{name}"}}}}"#);
            lists.is_repeatable("tools/call", &request(&call))
        };
        assert_eq!(["a", "b", "c"].map(is_repeatable), [true, true, false]);
    }

    #[test]
    fn a_list_has_one_digest_however_it_is_fetched() {
        let mut lists = Lists::default();
        assert!(!lists.fetched_page("tools/list", None, r#"{"tools":[1],"nextCursor":"a"}"#));
        assert_eq!(lists.fetched().count(), 0, "it is not complete");
        assert!(lists.fetched_page("tools/list", Some("\"a\""), r#"{"tools":[2]}"#));
        assert!(
            !lists.fetched_page("tools/list", Some("\"b\""), r#"{"tools":[3]}"#),
            "out of order"
        );
        let mut probe = Probe::new(&LISTS[0]);
        assert_eq!(
            probe.add(r#"{"nextCursor":"x","tools":[1]}"#),
            Page::Next("\"x\"".into())
        );
        let Page::Last(same) = probe.add(r#"{"tools":[2],"nextCursor":null}"#) else {
            panic!("the last page")
        };
        assert!(!lists.differs("tools/list", same));
        assert!(lists.differs("tools/list", same + 1));
        assert!(!lists.differs("tools/list", same + 1), "announced once");
        assert!(!lists.differs("prompts/list", 1), "the client has not fetched it");
    }

    #[test]
    fn an_endless_list_has_no_digest() {
        let mut probe = Probe::new(&LISTS[1]);
        let page = r#"{"prompts":[],"nextCursor":"x"}"#;
        assert!((1..MAX_PAGES).all(|_| matches!(probe.add(page), Page::Next(_))));
        assert_eq!(probe.add(page), Page::Invalid);
        assert_eq!(Probe::new(&LISTS[1]).add(r#"{"tools":[]}"#), Page::Invalid);
    }

    #[test]
    fn hints_make_tools_repeatable() {
        let mut lists = Lists::default();
        lists.fetched_page(
            "tools/list",
            None,
            r#"{"tools":[{"name":"read","annotations":{"readOnlyHint":true}},{"name":"set","annotations":{"idempotentHint":true}},{"name":"add","annotations":{}},{"name":"x"}]}"#,
        );
        let call = |name| {
            request(&format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{name}"}}}}"#
            ))
        };
        for (name, repeatable) in [
            ("read", true),
            ("set", true),
            ("add", false),
            ("x", false),
            ("unknown", false),
        ] {
            assert_eq!(lists.is_repeatable("tools/call", &call(name)), repeatable, "{name}");
        }
        assert!(lists.is_repeatable("prompts/list", &call("x")));
        assert!(!lists.is_repeatable("tasks/cancel", &call("x")));
    }
}
