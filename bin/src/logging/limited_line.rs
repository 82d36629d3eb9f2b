//! The limit of a log line's length.
//!
//! Clients choose paths, headers and names, and some of these are logged. Every line passes this
//! writer, so no client makes a line longer than [`MAX_LINE_BYTES`], whatever the line contains.

use std::io::{self, Write};

use serde_json::{Map, Value};

/// Maximum length of a line, with its line end.
pub(super) const MAX_LINE_BYTES: usize = 2000;
/// Marks a text that was cut.
const MARK: &str = "...";
/// Numbers of characters to which the texts of a JSON line are cut, until the line is short enough.
const TEXT_LENGTHS: [usize; 4] = [500, 120, 30, 8];

/// Cuts lines that are too long. Each write is one line.
#[derive(Debug)]
pub(super) struct LimitedLines<W>(pub(super) W);

impl<W: Write> Write for LimitedLines<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if line.len() <= MAX_LINE_BYTES {
            self.0.write_all(line)?;
        } else {
            self.0.write_all(shorten(&String::from_utf8_lossy(line)).as_bytes())?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The line in at most [`MAX_LINE_BYTES`]. A line of JSON stays JSON.
fn shorten(line: &str) -> String {
    match serde_json::from_str(line) {
        Ok(Value::Object(fields)) => shorten_json(fields),
        _ => shorten_text(line),
    }
}

fn shorten_json(fields: Map<String, Value>) -> String {
    let mut event = Value::Object(fields);
    for length in TEXT_LENGTHS {
        cut_texts(&mut event, length);
        let line = format!("{event}\n");
        if line.len() <= MAX_LINE_BYTES {
            return line;
        }
    }
    // Too many fields: those that every line has remain.
    let fields = ["timestamp", "level", "target", "message"].map(|name| (name.to_owned(), event[name].take()));
    format!("{}\n", Value::Object(fields.into_iter().collect()))
}

fn cut_texts(value: &mut Value, length: usize) {
    match value {
        Value::String(text) => {
            if let Some((end, _)) = text.char_indices().nth(length) {
                text.truncate(end);
                text.push_str(MARK);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| cut_texts(value, length)),
        Value::Object(fields) => fields.values_mut().for_each(|value| cut_texts(value, length)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn shorten_text(line: &str) -> String {
    // The end of any color that was cut off.
    let end = if line.contains('\u{1b}') { "\u{1b}[0m\n" } else { "\n" };
    let room = MAX_LINE_BYTES - MARK.len() - end.len();
    let kept = line.char_indices().map(|(at, character)| at + character.len_utf8());
    let kept = kept.take_while(|end| *end <= room).last().unwrap_or(0);
    format!("{}{MARK}{end}", &line[..kept])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(line: &str) -> String {
        let mut lines = LimitedLines(Vec::new());
        lines.write_all(line.as_bytes()).unwrap();
        String::from_utf8(lines.0).unwrap()
    }

    #[test]
    fn short_line_is_unchanged() {
        let line = format!("{}\n", "a".repeat(MAX_LINE_BYTES - 1));
        assert_eq!(written(&line), line);
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        for line in ["ä".repeat(50_000), format!("\u{1b}[3m{}", "x".repeat(50_000))] {
            let cut = written(&format!("{line}\n"));
            assert!(
                cut.len() <= MAX_LINE_BYTES && cut.len() > MAX_LINE_BYTES - 4,
                "{}",
                cut.len()
            );
            assert!(cut.ends_with('\n') && cut.contains(MARK));
            assert_eq!(cut.matches('\n').count(), 1);
        }
    }

    #[test]
    fn long_json_line_stays_json_with_all_fields() {
        let long = "\u{1}".repeat(60_000);
        let event = serde_json::json!({
            "timestamp": "now", "level": "INFO", "target": "t", "message": "m", "path": long, "status": 200,
            "spans": [{ "client": long }],
        });
        let cut = written(&format!("{event}\n"));
        assert!(cut.len() <= MAX_LINE_BYTES && cut.ends_with('\n'), "{}", cut.len());
        let cut: Value = serde_json::from_str(&cut).unwrap();
        assert_eq!((&cut["status"], &cut["message"]), (&200.into(), &"m".into()));
        assert!(cut["spans"][0]["client"].as_str().unwrap().ends_with(MARK));
    }

    #[test]
    fn json_line_with_too_many_fields_keeps_its_message() {
        let mut event = serde_json::json!({ "message": "m", "level": "INFO", "timestamp": "now", "target": "t" });
        for number in 0..1000 {
            event[format!("field {number}")] = number.into();
        }
        let cut = written(&format!("{event}\n"));
        assert!(cut.len() <= MAX_LINE_BYTES);
        assert_eq!(serde_json::from_str::<Value>(&cut).unwrap()["message"], "m");
    }
}
