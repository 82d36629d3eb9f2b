//! Standard error as `forgejo-mcp` writes it: coloured, with tool parameters, and with a stack trace below an error.

use std::{
    io::Write,
    sync::{Arc, Mutex, PoisonError},
};

/// Where the log goes.
#[derive(Clone)]
pub(super) struct Log {
    /// Locked to write one entry, so that entries of different calls do not mix.
    stderr: Arc<Mutex<Box<dyn Write + Send>>>,
}

impl Log {
    pub(super) fn new(stderr: Box<dyn Write + Send>) -> Self {
        Self {
            stderr: Arc::new(Mutex::new(stderr)),
        }
    }

    /// An entry about what goes on.
    pub(super) fn info(&self, message: &str, fields: &str) {
        self.raw(&format!("\x1b[34mINFO\x1b[0m\t{message}\t{fields}\n"));
    }

    /// An entry about a failure, which may repeat what Forgejo said.
    pub(super) fn error(&self, message: &str, error: &str) {
        self.raw(&format!(
            "\x1b[31mERROR\x1b[0m\t{message}\terror={error}\nmain.main\n\t/src/main.go:42\nruntime.main\n\t/go/src/runtime/proc.go:285\n"
        ));
    }

    /// Exactly this text. A log that nobody reads any more is nobody's trouble.
    pub(super) fn raw(&self, text: &str) {
        let mut stderr = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    }
}
