//! Recognizes the response in a line that was too long.
//!
//! Only both ends of such a line are left. If they prove that it was the response to a certain
//! request, that request fails at once instead of timing out. In doubt no request fails, because
//! the line may have been another message.

use super::framing::LineExcerpt;
use crate::jsonrpc::Id;

/// The number of the request that the line answered, if that is certain.
pub(crate) fn answered_request(excerpt: &LineExcerpt) -> Option<u64> {
    let head = parse_head(&excerpt.head);
    if !head.is_response {
        return None;
    }
    match head.id {
        Some(id) => Id::parse(id)?.number(),
        None => last_id(&excerpt.tail),
    }
}

/// The beginning of a JSON-RPC message.
#[derive(Default)]
struct Head<'t> {
    id: Option<&'t str>,
    is_response: bool,
}

/// Reads the members of an object up to the first incomplete one.
fn parse_head(head: &[u8]) -> Head<'_> {
    // The excerpt may end within a character.
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default(),
    };
    let mut found = Head::default();
    let Some(mut rest) = text.trim_ascii_start().strip_prefix('{') else {
        return found;
    };
    while let Some((name, after)) = value(rest) {
        let Some(after) = after.trim_ascii_start().strip_prefix(':') else {
            break;
        };
        match name {
            "\"method\"" => return Head::default(),
            "\"result\"" | "\"error\"" => found.is_response = true,
            _other => {}
        }
        let Some((value, after)) = value(after) else { break };
        if name == "\"id\"" {
            found.id = Some(value);
        }
        let Some(after) = after.trim_ascii_start().strip_prefix(',') else {
            break;
        };
        rest = after;
    }
    found
}

/// Splits off the JSON value at the beginning of a text; `None` if it is incomplete.
fn value(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_ascii_start();
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<serde::de::IgnoredAny>();
    values.next()?.ok()?;
    let end = values.byte_offset();
    // A number at the end of the text may be incomplete.
    (end < text.len()).then(|| (&text[..end], &text[end..]))
}

/// The id, if it is the last member of the object on the line.
///
/// A quotation mark within a string follows a backslash, and nothing follows the last brace, so the
/// match is a member of the outermost object.
fn last_id(tail: &[u8]) -> Option<u64> {
    let before = tail.trim_ascii_end().strip_suffix(b"}")?.trim_ascii_end();
    // Some servers write the version last.
    let before = match strip_member(before, b"\"jsonrpc\"", b"\"2.0\"") {
        Some(before) => before.strip_suffix(b",")?.trim_ascii_end(),
        None => before,
    };
    let digits = before.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (before, number) = before.split_at(before.len() - digits);
    let before = strip_member(before, b"\"id\"", b"")?;
    before.ends_with(b",").then_some(())?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

/// Strips a member from the end of a text.
fn strip_member<'t>(text: &'t [u8], name: &[u8], value: &[u8]) -> Option<&'t [u8]> {
    let before = text.strip_suffix(value)?.trim_ascii_end().strip_suffix(b":")?;
    Some(before.trim_ascii_end().strip_suffix(name)?.trim_ascii_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(head: &str, tail: &str) -> Option<u64> {
        answered_request(&LineExcerpt {
            head: head.to_owned().into(),
            tail: tail.to_owned().into(),
        })
    }

    #[test]
    fn the_id_is_found_at_either_end_of_a_response() {
        for (head, tail) in [
            (r#"{"jsonrpc":"2.0","id":7,"result":{"text":"aaa"#, "aaa\"}}"),
            (r#" { "id" : 7 , "jsonrpc":"2.0","error":{"#, "}}"),
            (r#"{"id":7,"result":"#, "x"),
            (r#"{"result":{"id":1,"text":"aaa"#, r#"aaa"},"jsonrpc":"2.0","id":7}"#),
            (r#"{"jsonrpc":"2.0","result":["#, r#"],  "id" : 7 } "#),
            (r#"{"result":["#, r#"],"id":7,"jsonrpc":"2.0"}"#),
        ] {
            assert_eq!(answers(head, tail), Some(7), "{head} {tail}");
        }
    }

    #[test]
    fn uncertain_lines_match_no_request() {
        for (head, tail) in [
            (
                r#"{"jsonrpc":"2.0","id":7,"method":"m","params":{"result":"aaa"#,
                r#"aaa"},"id":7}"#,
            ),
            (r#"{"method":"m","params":["#, r#"],"id":7}"#),
            (r#"{"jsonrpc":"2.0","id":7,"params":["#, r#"]}"#),
            (r#"{"result":["#, r#"],"x":{"id":7}}"#),
            (r#"{"result":["#, r#"],"x\"id":7}"#),
            (r#"{"result":["#, r#"],"id":"7"}"#),
            (r#"{"result":["#, "id\":7}"),
            (r#"{"result":["#, r#"],"id":}"#),
            (r#"{"result":["#, ""),
            (r#"{"id":7"#, ""),
            ("[{\"id\":7,\"result\":[", ""),
            ("log log", "\"id\":7}"),
            ("", ""),
        ] {
            assert_eq!(answers(head, tail), None, "{head} {tail}");
        }
        assert_eq!(answers("{\"id\":7,\"result\":\"\u{e9}", ""), Some(7));
    }
}
