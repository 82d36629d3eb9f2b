//! Recognizes the response in a line that cannot be read: too long, not JSON, not UTF-8, or not a
//! JSON-RPC message.
//!
//! If the line shows that it was the response to a certain call, that call fails at once instead of
//! timing out. In doubt no call fails, because the line may have been another message. Nothing else
//! of such a line is used.

use super::framing::LineExcerpt;

/// The number of opening braces that may be the begin of the message: a server may have written
/// other text before it.
const MAX_BEGINNINGS: usize = 8;

/// The number of the call that a line has answered, if that is certain.
pub(crate) fn answered_call(line: &[u8]) -> Option<u64> {
    let braces = line.iter().enumerate().filter(|(_, byte)| **byte == b'{');
    let beginnings = braces.map(|(at, _)| at).take(MAX_BEGINNINGS);
    let mut objects = beginnings.map(|at| scan(&line[at..]));
    // The first object that claims to be a message is the message. Without a method it is a
    // response, even if it has no result.
    let message = objects.find(|object| object.versioned || object.has_method)?;
    message.id.filter(|_| !message.has_method && !message.ambiguous)?.ok()
}

/// The number of the call that a line has answered of which only both ends are left.
pub(crate) fn answered_call_of_excerpt(excerpt: &LineExcerpt) -> Option<u64> {
    let head = scan(&excerpt.head);
    if !head.is_response || head.has_method || head.ambiguous {
        return None;
    }
    match head.id {
        Some(id) => id.ok(),
        None => last_id(&excerpt.tail),
    }
}

/// The members of the object at the beginning of a text, up to the first that is incomplete.
#[derive(Debug, Default)]
struct Members {
    /// The number in `id`; an error for any other value.
    id: Option<Result<u64, ()>>,
    versioned: bool,
    is_response: bool,
    has_method: bool,
    /// There are two ids.
    ambiguous: bool,
}

/// Reads the members of an object without checking their values.
fn scan(text: &[u8]) -> Members {
    let mut found = Members::default();
    let Some(mut rest) = text.trim_ascii_start().strip_prefix(b"{") else {
        return found;
    };
    while let Some((name, after)) = value(rest) {
        let Some(after) = after.trim_ascii_start().strip_prefix(b":") else {
            break;
        };
        match name {
            b"\"method\"" => found.has_method = true,
            b"\"result\"" | b"\"error\"" => found.is_response = true,
            b"\"jsonrpc\"" => found.versioned = true,
            _other => {}
        }
        let Some((value, after)) = value(after) else { break };
        if name == b"\"id\"" {
            found.ambiguous |= found.id.replace(number(value)).is_some();
        }
        let Some(after) = after.trim_ascii_start().strip_prefix(b",") else {
            break;
        };
        rest = after;
    }
    found
}

/// The number in an id, which a server may have made a string.
fn number(value: &[u8]) -> Result<u64, ()> {
    let digits = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    let text = std::str::from_utf8(digits.unwrap_or(value)).map_err(drop)?;
    text.parse().map_err(drop)
}

/// Splits off the value at the beginning of a text; `None` if it is incomplete. Only quotation
/// marks and brackets count.
fn value(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = text.trim_ascii_start();
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for (at, byte) in text.iter().enumerate() {
        if in_string {
            in_string = escaped || *byte != b'"';
            escaped = !escaped && *byte == b'\\';
            if !in_string && depth == 0 {
                return Some(text.split_at(at + 1));
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth > 1 => depth -= 1,
            b'}' | b']' if depth == 1 => return Some(text.split_at(at + 1)),
            // The end of a number or a word.
            b',' | b':' | b'}' | b']' | b' ' | b'\t' if depth == 0 => {
                return (at > 0).then(|| text.split_at(at));
            }
            _other => {}
        }
    }
    None
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
        answered_call_of_excerpt(&LineExcerpt {
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
    fn the_id_of_a_broken_response_is_found() {
        for line in [
            &br#"{"jsonrpc":"2.0","id":7,"result":{"x":NaN}}"#[..],
            b"{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{\"x\":\"caf\xe9\"}}",
            br#"listening on {stdio}{"jsonrpc":"2.0","id":7,"result":{}}"#,
            br#"{"jsonrpc":"2.0","id":7}"#,
            br#"{"id":7,"jsonrpc":"2.0","x":1}"#,
            br#"{"jsonrpc":"2.0","id":"7","result":{}}"#,
            br#"{"jsonrpc":"2.0","result":{"id":3,"t":"\"id\":4"},"id":7"#,
            br#"{"jsonrpc":"2.0","id":7,"result":{},"error":{}}"#,
            br#"{"jsonrpc":"2.0","id":7,"result":"cut"#,
        ] {
            let text = String::from_utf8_lossy(line);
            let found = answered_call(line);
            // The last member may be cut off, so that an id at the end is none.
            let cut = text.ends_with("\"id\":7");
            assert_eq!(found, (!cut).then_some(7), "{text}");
        }
    }

    #[test]
    fn no_call_fails_by_another_broken_message() {
        for line in [
            &br#"{"jsonrpc":"2.0","id":7,"method":"m","params":NaN}"#[..],
            br#"{"jsonrpc":"2.0","method":"m","params":{"id":7,"result":1},}"#,
            br#"{"jsonrpc":"2.0","id":7,"id":8,"result":{}}"#,
            br#"{"jsonrpc":"2.0","id":7.5,"result":NaN}"#,
            br#"{"id":7}"#,
            b"id:7 result",
            b"",
        ] {
            assert_eq!(answered_call(line), None, "{}", String::from_utf8_lossy(line));
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
