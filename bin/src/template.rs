//! Placeholders in `child.args` and `child.env`, and their values for one user.
//!
//! There are two placeholders and no expressions. The access token may only be in the environment:
//! every user of the machine can read arguments.

use secrecy::{ExposeSecret, SecretString};

/// Replaced by `forgejo.url`.
const FORGEJO_URL: &str = "{forgejo_url}";
/// Replaced by the user's Forgejo access token.
const ACCESS_TOKEN: &str = "{access_token}";

/// Checks an argument of the child.
pub(crate) fn check_argument(argument: &str) -> Result<(), String> {
    if argument.contains(ACCESS_TOKEN) {
        return Err(format!(
            "{ACCESS_TOKEN} may only be in child.env: every user of the machine can read arguments"
        ));
    }
    if argument.contains('\0') {
        return Err("an argument cannot contain a NUL".to_owned());
    }
    Ok(())
}

/// Checks an environment variable of the child. An error never has its value.
pub(crate) fn check_variable(name: &str, value: &SecretString) -> Result<(), String> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(format!("{name:?} is not the name of a variable"));
    }
    if value.expose_secret().contains('\0') {
        return Err(format!("the value of {name} cannot contain a NUL"));
    }
    Ok(())
}

/// An argument with its placeholders replaced.
pub(crate) fn argument(template: &str, forgejo_url: &str) -> String {
    template.replace(FORGEJO_URL, forgejo_url)
}

/// The value of an environment variable with its placeholders replaced.
pub(crate) fn variable(template: &SecretString, forgejo_url: &str, access_token: &SecretString) -> SecretString {
    let value = template.expose_secret().replace(FORGEJO_URL, forgejo_url);
    SecretString::from(value.replace(ACCESS_TOKEN, access_token.expose_secret()))
}

#[cfg(test)]
mod tests {
    use super::{argument, check_argument, check_variable, variable};

    #[test]
    fn placeholders_are_replaced_anywhere() {
        assert_eq!(
            argument("--url={forgejo_url}/", "https://git.example"),
            "--url=https://git.example/"
        );
        let value = variable(&"token {access_token}".into(), "https://git.example", &"abc".into());
        assert_eq!(secrecy::ExposeSecret::expose_secret(&value), "token abc");
    }

    #[test]
    fn access_token_is_refused_in_an_argument() {
        assert!(
            check_argument("--token={access_token}")
                .unwrap_err()
                .contains("only be in child.env")
        );
        assert!(check_argument("--url={forgejo_url}").is_ok());
    }

    #[test]
    fn refused_variable_is_named_without_its_value() {
        let reason = check_variable("A", &"secret\0".into()).unwrap_err();
        assert!(reason.contains('A') && !reason.contains("secret"), "{reason}");
    }
}
