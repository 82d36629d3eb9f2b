//! The lists of the double: 141 tools on a line of 90,470 bytes, and resource templates on one of
//! 7,003.
//!
//! The sizes are those of `forgejo-mcp` and matter more than the words: a line longer than a pipe's
//! buffer breaks careless framing. They hold for a request whose id is one digit. The descriptions
//! of the three working tools are true; the rest consists of verbs and nouns and is filled to size.

use serde_json::{Value, json};

const TOOLS: usize = 141;
/// The length of the line that lists them, in bytes without the line feed.
const TOOLS_LINE: usize = 90_470;
const TEMPLATES_LINE: usize = 7_003;
/// The rest of the line around the list, with an id of one digit.
const ENVELOPE: usize = r#"{"id":1,"jsonrpc":"2.0","result":}"#.len();

const VERBS: &str = "list get create update delete search add remove check";
const NOUNS: &str = "repository branch tag release issue issue_comment label milestone pull_request pull_review file commit \
                     wiki_page organization team action_run";
const FILLER: &str = "Works on the instance that the server was started for and with the rights of its token. ";

/// The result of `tools/list`, with more tools at its end.
pub(super) fn tools(more: Vec<Value>) -> Value {
    let number = json!({ "type": "number" });
    let text = |description: &str| json!({ "type": "string", "description": description });
    let paging = json!({ "page": number, "limit": number });
    let version = "get_forgejo_mcp_server_version";
    let mut tools = vec![
        tool(
            "get_my_user_info",
            "The user to whom the token belongs",
            &json!({}),
            &[],
        ),
        tool("list_my_repos", "The repositories of that user", &paging, &[]),
        tool(version, "The version of this server", &json!({}), &[]),
    ];
    let working = tools.len();
    let properties = json!({ "owner": text("Owner"), "repo": text("Name of the repository"), "page": number });
    let names = VERBS
        .split(' ')
        .flat_map(|verb| NOUNS.split(' ').map(move |noun| format!("{verb}_{noun}")));
    let names = names.take(TOOLS - working);
    tools.extend(names.map(|name| tool(&name, "", &properties, &["owner", "repo"])));
    fill(&mut tools, "tools", TOOLS_LINE, working);
    tools.extend(more);
    json!({ "tools": tools })
}

pub(super) fn is_listed(name: &str) -> bool {
    let listed = tools(Vec::new());
    let mut listed = listed["tools"].as_array().into_iter().flatten();
    listed.any(|tool| tool["name"] == name)
}

pub(super) fn templates() -> Value {
    let template = |noun: &str| {
        json!({
            "name": noun,
            "description": "",
            "mimeType": "application/json",
            "uriTemplate": format!("forgejo://{{owner}}/{{repo}}/{noun}/{{id}}"),
        })
    };
    let mut templates: Vec<Value> = NOUNS.split(' ').map(template).collect();
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

/// Fills the descriptions of `items`, from the one at `from` on, evenly and so that the line that
/// lists all of them has exactly `line` bytes.
fn fill(items: &mut [Value], key: &str, line: usize, from: usize) {
    let unfilled = ENVELOPE + json!({ key: items }).to_string().len();
    let items = &mut items[from..];
    let missing = line.checked_sub(unfilled).expect("the unfilled list fits the line");
    let (each, rest) = (missing / items.len(), missing % items.len());
    for (index, item) in items.iter_mut().enumerate() {
        let length = each + usize::from(index < rest);
        item["description"] = FILLER.chars().cycle().take(length).collect::<String>().into();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{super::protocol, *};

    #[test]
    fn list_of_tools_has_the_size_of_the_original() {
        let result = tools(Vec::new());
        let listed = result["tools"].as_array().unwrap();
        let names: HashSet<_> = listed.iter().map(|tool| &tool["name"]).collect();
        assert_eq!(names.len(), TOOLS);
        assert_eq!(protocol::response(&json!(2), Ok(result)).len(), 90_470);
    }

    #[test]
    fn list_of_templates_has_the_size_of_the_original() {
        assert_eq!(protocol::response(&json!(3), Ok(templates())).len(), 7_003);
    }

    #[test]
    fn working_tools_keep_their_descriptions() {
        let result = tools(Vec::new());
        let description = |index: usize| result["tools"][index]["description"].as_str().unwrap();
        assert_eq!(description(0), "The user to whom the token belongs");
        assert!(description(140).starts_with(FILLER));
    }
}
