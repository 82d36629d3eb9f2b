//! What the double lists: 141 tools on a line of 90,470 bytes, and resource templates on one of 7,003.
//!
//! The sizes are those of `forgejo-mcp` and matter more than the words: a line that is longer than a pipe's buffer is what
//! breaks careless framing. They hold for a request whose id is one digit. The three tools that do something are
//! described truly; the rest is made up of verbs and nouns and filled to size.

use serde_json::{Value, json};

/// The number of tools.
const TOOLS: usize = 141;
/// The length of the line that lists them, in bytes without the line feed.
const TOOLS_LINE: usize = 90_470;
/// The length of the line that lists the resource templates.
const TEMPLATES_LINE: usize = 7_003;
/// What surrounds the list on the line, with an id of one digit.
const ENVELOPE: usize = r#"{"id":1,"jsonrpc":"2.0","result":}"#.len();

const VERBS: [&str; 9] = [
    "list", "get", "create", "update", "delete", "search", "add", "remove", "check",
];
const NOUNS: [&str; 16] = [
    "repository",
    "branch",
    "tag",
    "release",
    "issue",
    "issue_comment",
    "label",
    "milestone",
    "pull_request",
    "pull_review",
    "file",
    "commit",
    "wiki_page",
    "organization",
    "team",
    "action_run",
];
const FILLING: &str = "Works on the instance that the server was started for and with the rights of its token. ";

/// The result of `tools/list`.
pub(super) fn tools(more: &[Value]) -> Value {
    let mut tools: Vec<Value> = vec![
        tool(
            "get_my_user_info",
            "The user to whom the token belongs",
            &json!({}),
            &[],
        ),
        tool(
            "list_my_repos",
            "The repositories of that user",
            &json!({ "page": number(), "limit": number() }),
            &[],
        ),
        tool(
            "get_forgejo_mcp_server_version",
            "The version of this server",
            &json!({}),
            &[],
        ),
    ];
    let names = VERBS
        .iter()
        .flat_map(|verb| NOUNS.iter().map(move |noun| format!("{verb}_{noun}")));
    tools.extend(names.take(TOOLS - tools.len()).map(|name| listed(&name)));
    fill(&mut tools, "tools", TOOLS_LINE, 3);
    tools.extend_from_slice(more);
    json!({ "tools": tools })
}

/// The result of `resources/templates/list`.
pub(super) fn templates() -> Value {
    let mut templates: Vec<Value> = NOUNS
        .iter()
        .map(|noun| {
            json!({
                "name": noun,
                "description": "",
                "mimeType": "application/json",
                "uriTemplate": format!("forgejo://{{owner}}/{{repo}}/{noun}/{{id}}"),
            })
        })
        .collect();
    fill(&mut templates, "resourceTemplates", TEMPLATES_LINE, 0);
    json!({ "resourceTemplates": templates })
}

/// One tool as it is listed.
pub(super) fn tool(name: &str, description: &str, properties: &Value, required: &[&str]) -> Value {
    json!({
        "name": name,
        "description": description,
        "inputSchema": { "type": "object", "properties": properties, "required": required },
    })
}

fn listed(name: &str) -> Value {
    let properties = json!({ "owner": string("Owner"), "repo": string("Name of the repository"), "page": number() });
    tool(name, "", &properties, &["owner", "repo"])
}

fn string(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}

fn number() -> Value {
    json!({ "type": "number" })
}

/// Lengthens the descriptions of `items`, beginning with the one at `from`, evenly and so that the line that lists
/// them has exactly `line` bytes.
fn fill(items: &mut [Value], key: &str, line: usize, from: usize) {
    let now = ENVELOPE + json!({ key: items }).to_string().len();
    let items = &mut items[from..];
    let missing = line
        .checked_sub(now)
        .expect("the catalogue is shorter than its line before it is filled");
    let (each, mut rest) = (missing / items.len(), missing % items.len());
    for item in items {
        let length = each + usize::from(rest > 0);
        rest = rest.saturating_sub(1);
        let filled: String = FILLING.chars().cycle().take(length).collect();
        item["description"] = Value::String(filled);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{super::protocol, *};

    #[test]
    fn the_list_of_tools_has_the_size_of_the_original() {
        let result = tools(&[]);
        let names: HashSet<_> = result["tools"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tool| &tool["name"])
            .collect();
        assert_eq!(names.len(), TOOLS);
        assert_eq!(protocol::answer(&json!(2), Ok(result)).len(), 90_470);
    }

    #[test]
    fn the_list_of_templates_has_the_size_of_the_original() {
        assert_eq!(protocol::answer(&json!(3), Ok(templates())).len(), 7_003);
    }

    #[test]
    fn the_tools_that_work_keep_their_descriptions() {
        let result = tools(&[]);
        assert_eq!(result["tools"][0]["description"], "The user to whom the token belongs");
        assert!(
            result["tools"][140]["description"]
                .as_str()
                .unwrap()
                .starts_with(FILLING)
        );
    }
}
