//! Messages to and from a process, one JSON value per line.

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
};

/// The standard input and output of a process.
#[derive(Debug)]
pub(super) struct JsonLines {
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl JsonLines {
    /// Takes the pipes of a process that was started with both.
    pub(super) fn take_from(process: &mut Child) -> Self {
        Self {
            stdin: process.stdin.take().unwrap(),
            stdout: BufReader::new(process.stdout.take().unwrap()).lines(),
        }
    }

    pub(super) async fn send(&mut self, message: &Value) {
        let line = format!("{message}\n");
        self.stdin.write_all(line.as_bytes()).await.unwrap();
    }

    /// The next message. Panics if the process has closed its output, and on anything else than a
    /// `T`. Cancel safe.
    pub(super) async fn receive<T: DeserializeOwned>(&mut self) -> T {
        let line = self.stdout.next_line().await.unwrap();
        let line = line.expect("the process has closed its standard output");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }
}
