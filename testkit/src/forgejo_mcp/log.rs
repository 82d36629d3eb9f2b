//! Standard error as `forgejo-mcp` writes it: colored, with tool parameters, and with a stack trace
//! below an error.

use std::io::Write as _;

pub(super) fn info(message: &str, fields: &str) {
    raw(&format!("\x1b[34mINFO\x1b[0m\t{message}\t{fields}\n"));
}

pub(super) fn error(message: &str, error: &str) {
    raw(&format!(
        "\x1b[31mERROR\x1b[0m\t{message}\terror={error}\nmain.main\n\t/src/main.go:42\nruntime.main\n\t/go/src/runtime/proc.go:285\n"
    ));
}

/// Exactly this text, in one piece. A closed standard error is no failure.
pub(super) fn raw(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
