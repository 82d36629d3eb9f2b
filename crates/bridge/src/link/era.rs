//! The protocol era of a server, and the question for it.
//!
//! The first message decides for some servers which era they speak, and others exit on one that
//! they do not expect (MCP 2026-07-28, stdio, "Backward Compatibility"). So the question goes to a
//! process that serves no one.

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};

/// The longest answer, in bytes, with everything that a server writes before it.
const MAX_OUTPUT: u64 = 1024 * 1024;
/// The version of the modern era.
const VERSION: &str = "2026-07-28";
/// An error of that era: the version is not supported.
const UNSUPPORTED_VERSION: i64 = -32022;
/// `server/discover` as a line.
pub(crate) const QUESTION: &str = concat!(
    r#"{"jsonrpc":"2.0","id":"era","method":"server/discover","params":{"_meta":{"#,
    r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","#,
    r#""io.modelcontextprotocol/clientCapabilities":{},"#,
    r#""io.modelcontextprotocol/clientInfo":{"name":"forgejo-mcp-broker","version":"0"}}}}"#,
    "\n"
);

/// The protocol that a server speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerEra {
    /// With a handshake: MCP 2025-11-25 and before.
    #[default]
    Legacy,
    /// Without a handshake, by requests that each say who sends them: MCP 2026-07-28.
    Modern,
}

/// The answer of a server to the question for its era.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EraAnswer {
    /// It speaks the modern era.
    Modern,
    /// It does not.
    Legacy,
    /// There was none: the output has ended. A legacy server may do so, and also one that has
    /// failed.
    Silent,
}

impl EraAnswer {
    /// The era to assume.
    #[must_use]
    pub fn era(self) -> ServerEra {
        match self {
            Self::Modern => ServerEra::Modern,
            Self::Legacy | Self::Silent => ServerEra::Legacy,
        }
    }

    /// Reads a response to the question.
    pub(crate) fn of(response: &Value) -> Self {
        let error = &response["error"];
        let versions = if error["code"] == UNSUPPORTED_VERSION {
            &error["data"]["supported"]
        } else {
            &response["result"]["supportedVersions"]
        };
        let is_modern = versions
            .as_array()
            .is_some_and(|versions| versions.iter().any(|version| version == VERSION));
        if is_modern { Self::Modern } else { Self::Legacy }
    }
}

/// Asks a server that serves no one for its era, over its output and input, and waits for the
/// answer.
///
/// Cancel safe: a server that is asked must not be connected in any case.
pub async fn ask_era(mut io: impl AsyncRead + AsyncWrite + Unpin) -> EraAnswer {
    if io.write_all(QUESTION.as_bytes()).await.is_err() || io.flush().await.is_err() {
        return EraAnswer::Silent;
    }
    let mut lines = BufReader::new(io.take(MAX_OUTPUT));
    let mut line = Vec::new();
    loop {
        line.clear();
        match lines.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return EraAnswer::Silent,
            Ok(_) => {}
        }
        let message = serde_json::from_slice::<Value>(&line).unwrap_or_default();
        let is_response = message.get("result").is_some() || message.get("error").is_some();
        // A server that reads no question may answer without its id.
        if is_response && (message["id"] == "era" || message["id"].is_null()) {
            return EraAnswer::of(&message);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::duplex;

    use super::*;

    /// The answer to a server that writes this after the question.
    async fn answer(output: &str) -> EraAnswer {
        let (near, mut far) = duplex(4096);
        let server = async {
            let mut question = vec![0; QUESTION.len()];
            far.read_exact(&mut question).await.expect("an open pipe");
            far.write_all(output.as_bytes()).await.expect("an open pipe");
            drop(far);
        };
        let (answer, ()) = tokio::join!(ask_era(near), server);
        answer
    }

    #[tokio::test]
    async fn only_a_server_that_names_the_version_is_modern() {
        let result = |versions: &[&str]| json!({ "result": { "supportedVersions": versions } });
        let unsupported = |versions: &[&str]| json!({ "error": { "code": -32022, "data": { "supported": versions } } });
        for (mut response, expected) in [
            (result(&[VERSION]), EraAnswer::Modern),
            (result(&["2027-01-01", VERSION]), EraAnswer::Modern),
            (result(&["2027-01-01"]), EraAnswer::Legacy),
            (json!({ "result": {} }), EraAnswer::Legacy),
            (unsupported(&[VERSION]), EraAnswer::Modern),
            (unsupported(&["2027-01-01"]), EraAnswer::Legacy),
            (
                json!({ "error": { "code": -32601, "message": "no" } }),
                EraAnswer::Legacy,
            ),
        ] {
            response["jsonrpc"] = json!("2.0");
            response["id"] = json!("era");
            assert_eq!(answer(&format!("log\n\n{response}\n")).await, expected, "{response}");
        }
    }

    #[tokio::test]
    async fn the_end_of_the_output_is_no_answer() {
        let other = r#"{"jsonrpc":"2.0","id":1,"result":{"supportedVersions":["2026-07-28"]}}"#;
        for output in ["", "panic\n", "{\"jsonrpc\":", other] {
            assert_eq!(answer(output).await, EraAnswer::Silent, "{output}");
        }
    }

    #[test]
    fn the_question_is_one_line() {
        let line = QUESTION.strip_suffix('\n').expect("a line break");
        let question: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(question["method"], "server/discover");
    }
}
