//! Flags and environment of `forgejo-mcp`: a flag overrides its variable, and is written with one
//! dash or two.

use std::path::Path;

use clap::{CommandFactory as _, Parser, ValueEnum, error::ErrorKind};
use http::StatusCode;

use super::{ERA, SCRIPT, STRICT, Script, TEST_TOOLS};

#[derive(Clone, Default)]
pub(super) struct Options {
    pub(super) url: String,
    /// The token for it. The double starts without one too.
    pub(super) token: Option<String>,
    /// The port of the HTTP transport; `None` for standard streams.
    pub(super) http_port: Option<u16>,
    pub(super) test_tools: bool,
    /// The status for a session that it has not opened, if it is strict.
    pub(super) strict: Option<StatusCode>,
    pub(super) script: Script,
    pub(super) era: Era,
}

/// The behavior toward the eras of the protocol.
#[derive(Clone, Copy, Default, PartialEq)]
pub(super) enum Era {
    #[default]
    Legacy,
    /// Legacy, and a first message that is not `initialize` ends the process.
    Exits,
    Modern,
}

#[derive(Parser)]
#[command(name = "forgejo-mcp", version = concat!("version ", "2.34.1"))]
struct Flags {
    #[arg(long)]
    url: Option<String>,
    #[arg(long)]
    token: Option<String>,
    #[arg(long = "user-agent")]
    _user_agent: Option<String>,
    #[arg(long, default_value = "stdio")]
    transport: Transport,
    #[arg(long, default_value_t = 8080)]
    http_port: u16,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Transport {
    Stdio,
    Http,
}

/// Reads the command line, program name first, and the variables of the environment.
pub(super) fn parse(
    arguments: impl Iterator<Item = String>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Options, clap::Error> {
    let with_two_dashes = |argument: String| match argument.strip_prefix('-') {
        Some(flag) if !flag.starts_with('-') => format!("--{flag}"),
        _ => argument,
    };
    let flags = Flags::try_parse_from(arguments.map(with_two_dashes))?;
    let Some(url) = flags.url.or_else(|| variable("FORGEJO_URL")) else {
        let message = "the URL of the instance is missing: --url or FORGEJO_URL";
        return Err(Flags::command().error(ErrorKind::MissingRequiredArgument, message));
    };
    let script = match variable(SCRIPT) {
        Some(path) => Script::read(Path::new(&path))
            .map_err(|error| Flags::command().error(ErrorKind::Io, format!("{path}: {error}")))?,
        None => Script::default(),
    };
    Ok(Options {
        url,
        token: flags.token.or_else(|| variable("FORGEJO_ACCESS_TOKEN")),
        http_port: (flags.transport == Transport::Http).then_some(flags.http_port),
        test_tools: variable(TEST_TOOLS).as_deref() == Some("1"),
        strict: match variable(STRICT).as_deref() {
            Some("1") => Some(StatusCode::NOT_FOUND),
            Some("400") => Some(StatusCode::BAD_REQUEST),
            _ => None,
        },
        script,
        era: match variable(ERA).as_deref() {
            Some("modern") => Era::Modern,
            Some("exits") => Era::Exits,
            _ => Era::Legacy,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENVIRONMENT: [(&str, &str); 2] = [("FORGEJO_URL", "http://env"), ("FORGEJO_ACCESS_TOKEN", "env-token")];

    fn parsed(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Options, clap::Error> {
        let arguments = ["forgejo-mcp"].iter().chain(arguments).map(ToString::to_string);
        let variable = |wanted: &str| environment.iter().find(|(name, _)| *name == wanted);
        parse(arguments, |name| variable(name).map(|(_, value)| (*value).to_owned()))
    }

    fn options(arguments: &[&str], environment: &[(&str, &str)]) -> Options {
        parsed(arguments, environment).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn flags_override_the_environment_in_each_spelling() {
        for (arguments, url, token) in [
            (&["--transport", "stdio"][..], "http://env", "env-token"),
            (
                &["--url", "http://flag", "-token=flag-token"],
                "http://flag",
                "flag-token",
            ),
        ] {
            let options = options(arguments, &ENVIRONMENT);
            assert_eq!((options.url.as_str(), options.token.as_deref()), (url, Some(token)));
            assert!(!options.test_tools && options.strict.is_none());
        }
    }

    #[test]
    fn test_tools_and_strictness_need_their_variables() {
        let url = ("FORGEJO_URL", "http://env");
        for (value, test_tools, status) in [("1", true, Some(404)), ("0", false, None), ("400", false, Some(400))] {
            let options = options(&[], &[url, (TEST_TOOLS, value), (STRICT, value)]);
            let strict = options.strict.map(|status| status.as_u16());
            assert_eq!((options.test_tools, strict), (test_tools, status));
        }
    }

    #[test]
    fn http_has_a_port() {
        let port = |arguments: &[&str]| options(arguments, &ENVIRONMENT).http_port;
        assert_eq!(port(&["--transport", "http"]), Some(8080));
        assert_eq!(port(&["--http-port=9090", "--transport", "http"]), Some(9090));
        assert_eq!(port(&["--http-port", "9090"]), None);
    }

    #[test]
    fn version_takes_precedence() {
        let shown = parsed(&["--version", "--nonsense"], &[]).err().unwrap();
        assert_eq!(shown.kind(), ErrorKind::DisplayVersion);
        let version = super::super::VERSION;
        assert_eq!(shown.to_string(), format!("forgejo-mcp version {version}\n"));
    }

    #[test]
    fn nonsense_is_refused() {
        let bad_port = "--transport http --http-port many";
        for arguments in ["--nonsense", "serve", "--url", "--transport sse", bad_port, ""] {
            let words: Vec<&str> = arguments.split_whitespace().collect();
            assert!(parsed(&words, &[]).is_err(), "{arguments:?}");
        }
    }
}
