//! What a line that was too long has been: the answer to a request, or not.
//!
//! Of such a line only its ends are left. If they show that it was an answer, and to which request, its client need not wait for what will not
//! come. In doubt it was none: no request gets an error for what may have been somebody else's message.

use crate::{framing::Excerpt, id::Id};

/// The id of the request that the line has answered, as far as that is certain.
pub(crate) fn answered(excerpt: &Excerpt) -> Option<u64> {
    let head = beginning(&excerpt.head);
    if !head.is_answer {
        return None;
    }
    match head.id {
        Some(id) => Id::parse(id)?.number(),
        None => last_id(&excerpt.tail),
    }
}

/// What the beginning of an object shows.
#[derive(Default)]
struct Beginning<'t> {
    id: Option<&'t str>,
    is_answer: bool,
}

/// Reads the members of an object up to the first that is not whole.
fn beginning(head: &[u8]) -> Beginning<'_> {
    // The excerpt may end within a character.
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default(),
    };
    let mut seen = Beginning::default();
    let Some(mut rest) = text.trim_ascii_start().strip_prefix('{') else {
        return seen;
    };
    while let Some((name, after)) = value(rest) {
        let Some(after) = after.trim_ascii_start().strip_prefix(':') else {
            break;
        };
        match name {
            "\"method\"" => return Beginning::default(),
            "\"result\"" | "\"error\"" => seen.is_answer = true,
            _other => {}
        }
        let Some((value, after)) = value(after) else { break };
        if name == "\"id\"" {
            seen.id = Some(value);
        }
        let Some(after) = after.trim_ascii_start().strip_prefix(',') else {
            break;
        };
        rest = after;
    }
    seen
}

/// The JSON value that a text begins with, and the rest; `None` if it is not whole.
fn value(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_ascii_start();
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<serde::de::IgnoredAny>();
    values.next()?.ok()?;
    let end = values.byte_offset();
    // A number that ends with the text may have gone on.
    (end < text.len()).then(|| (&text[..end], &text[end..]))
}

/// The id, if it is the last member of the object that the line was. Within a string there is no quotation mark without a
/// backslash before it, and behind the last brace there is nothing, so this is a member of the outermost object.
fn last_id(tail: &[u8]) -> Option<u64> {
    let before = tail.trim_ascii_end().strip_suffix(b"}")?.trim_ascii_end();
    // Some writers put the version last.
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

/// What stands before a member that a text ends with.
fn strip_member<'t>(text: &'t [u8], name: &[u8], value: &[u8]) -> Option<&'t [u8]> {
    let before = text.strip_suffix(value)?.trim_ascii_end().strip_suffix(b":")?;
    Some(before.trim_ascii_end().strip_suffix(name)?.trim_ascii_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(head: &str, tail: &str) -> Option<u64> {
        answered(&Excerpt {
            head: head.to_owned().into(),
            tail: tail.to_owned().into(),
        })
    }

    #[test]
    fn the_id_is_found_at_either_end_of_an_answer() {
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
    fn in_doubt_it_was_no_answer() {
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
