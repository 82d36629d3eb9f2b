//! Flags and environment, as `forgejo-mcp` takes them: a flag beats its variable, and a flag is written with one dash
//! or two, with its value after a space or an equals sign.

use std::ffi::OsString;

use super::{Options, STRICT, TEST_TOOLS};

/// The port of the HTTP transport unless another is given.
const HTTP_PORT: u16 = 8080;

/// What the command line asks for.
#[derive(Debug)]
pub(super) enum Invocation {
    /// To serve.
    Serve(Options),
    /// To print the version.
    Version,
}

/// Reads the arguments after the program's name, and the environment.
pub(super) fn parse(
    mut arguments: impl Iterator<Item = String>,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Invocation, String> {
    let environment: Vec<(String, String)> = environment
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let variable = |wanted: &str| {
        let found = environment
            .iter()
            .find(|(name, value)| name == wanted && !value.is_empty());
        found.map(|(_, value)| value.clone())
    };
    let (mut url, mut token) = (variable("FORGEJO_URL"), variable("FORGEJO_ACCESS_TOKEN"));
    let (mut http, mut port) = (false, HTTP_PORT);
    while let Some(argument) = arguments.next() {
        let Some(flag) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) else {
            return Err(format!("unexpected argument {argument:?}"));
        };
        let (flag, given) = match flag.split_once('=') {
            Some((flag, value)) => (flag, Some(value.to_owned())),
            None => (flag, None),
        };
        if flag == "version" {
            return Ok(Invocation::Version);
        }
        let mut value = || {
            given
                .clone()
                .or_else(|| arguments.next())
                .ok_or_else(|| format!("flag needs an argument: -{flag}"))
        };
        match flag {
            "url" => url = Some(value()?),
            "token" => token = Some(value()?),
            "user-agent" => drop(value()?),
            "transport" => match value()?.as_str() {
                "stdio" => http = false,
                "http" => http = true,
                other => return Err(format!("this double speaks stdio and http only, not {other:?}")),
            },
            "http-port" => {
                let given = value()?;
                port = given
                    .parse()
                    .map_err(|_| format!("invalid value {given:?} for flag -http-port"))?;
            }
            _ => return Err(format!("flag provided but not defined: -{flag}")),
        }
    }
    let mut names: Vec<String> = environment.iter().map(|(name, _)| name.clone()).collect();
    names.sort();
    Ok(Invocation::Serve(Options {
        url: url.ok_or("the URL of the instance is missing: --url or FORGEJO_URL")?,
        token,
        test_tools: variable(TEST_TOOLS).as_deref() == Some("1"),
        environment: names,
        http_port: http.then_some(port),
        strict: variable(STRICT).as_deref() == Some("1"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Invocation, String> {
        let environment = environment.iter().map(|&(name, value)| (name.into(), value.into()));
        parse(arguments.iter().map(|&argument| argument.to_owned()), environment)
    }

    fn options(arguments: &[&str], environment: &[(&str, &str)]) -> Options {
        match parsed(arguments, environment) {
            Ok(Invocation::Serve(options)) => options,
            other => panic!("{other:?}"),
        }
    }

    const ENVIRONMENT: [(&str, &str); 2] = [("FORGEJO_URL", "http://env"), ("FORGEJO_ACCESS_TOKEN", "env-token")];

    #[test]
    fn the_environment_is_enough() {
        let options = options(&["--transport", "stdio"], &ENVIRONMENT);
        assert_eq!(
            (options.url.as_str(), options.token.as_deref()),
            ("http://env", Some("env-token"))
        );
        assert!(!options.test_tools);
    }

    #[test]
    fn flags_beat_the_environment_in_each_spelling() {
        let options = options(&["--url", "http://flag", "-token=flag-token"], &ENVIRONMENT);
        assert_eq!(
            (options.url.as_str(), options.token.as_deref()),
            ("http://flag", Some("flag-token"))
        );
    }

    #[test]
    fn the_tools_for_tests_need_their_variable() {
        let url = ("FORGEJO_URL", "http://env");
        assert!(options(&[], &[url, (TEST_TOOLS, "1")]).test_tools);
        assert!(!options(&[], &[url, (TEST_TOOLS, "0")]).test_tools);
    }

    #[test]
    fn http_has_a_port() {
        let port = |arguments: &[&str]| options(arguments, &ENVIRONMENT).http_port;
        assert_eq!(port(&["--transport", "http"]), Some(8080));
        assert_eq!(port(&["--http-port=9090", "--transport", "http"]), Some(9090));
        assert_eq!(port(&["--http-port", "9090"]), None);
        assert!(options(&[], &[("FORGEJO_URL", "http://env"), (STRICT, "1")]).strict);
    }

    #[test]
    fn version_wins_over_everything() {
        assert!(matches!(
            parsed(&["--version", "--nonsense"], &[]),
            Ok(Invocation::Version)
        ));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for arguments in [
            &["--nonsense"][..],
            &["serve"],
            &["--url"],
            &["--transport", "sse"],
            &["--transport", "http", "--http-port", "many"],
            &[],
        ] {
            assert!(parsed(arguments, &[]).is_err(), "{arguments:?}");
        }
    }
}
