//! What the operator writes in `child.args` and `child.env`, and what becomes of it for one user.
//!
//! There are two placeholders and no expressions. The access token may stand in the environment only: arguments can be
//! read by every user of the machine.

use secrecy::{ExposeSecret, SecretString};

/// Replaced by `forgejo.url`.
const FORGEJO_URL: &str = "{forgejo_url}";
/// Replaced by the user's Forgejo access token.
const ACCESS_TOKEN: &str = "{access_token}";

/// Checks an argument of the child.
///
/// # Errors
///
/// Why it is refused.
pub fn check_argument(argument: &str) -> Result<(), String> {
    if argument.contains(ACCESS_TOKEN) {
        return Err(format!(
            "{ACCESS_TOKEN} may stand in child.env only: arguments can be read by every user of the machine"
        ));
    }
    if argument.contains('\0') {
        return Err("an argument cannot hold a NUL".to_owned());
    }
    Ok(())
}

/// Checks an environment variable of the child.
///
/// # Errors
///
/// Why it is refused; never with its value.
pub fn check_variable(name: &str, value: &SecretString) -> Result<(), String> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(format!("{name:?} is not the name of a variable"));
    }
    if value.expose_secret().contains('\0') {
        return Err(format!("the value of {name} cannot hold a NUL"));
    }
    Ok(())
}

/// An argument as the child gets it.
#[must_use]
pub fn argument(template: &str, forgejo_url: &str) -> String {
    template.replace(FORGEJO_URL, forgejo_url)
}

/// The value of an environment variable as the child gets it.
#[must_use]
pub fn variable(template: &SecretString, forgejo_url: &str, access_token: &SecretString) -> SecretString {
    let value = template.expose_secret().replace(FORGEJO_URL, forgejo_url);
    SecretString::from(value.replace(ACCESS_TOKEN, access_token.expose_secret()))
}

#[cfg(test)]
mod tests {
    use super::{argument, check_argument, check_variable, variable};

    #[test]
    fn placeholders_are_replaced_wherever_they_stand() {
        assert_eq!(
            argument("--url={forgejo_url}/", "https://git.example"),
            "--url=https://git.example/"
        );
        let value = variable(&"token {access_token}".into(), "https://git.example", &"abc".into());
        assert_eq!(secrecy::ExposeSecret::expose_secret(&value), "token abc");
    }

    #[test]
    fn the_access_token_is_refused_in_an_argument() {
        assert!(
            check_argument("--token={access_token}")
                .unwrap_err()
                .contains("child.env only")
        );
        assert!(check_argument("--url={forgejo_url}").is_ok());
    }

    #[test]
    fn a_refused_variable_is_named_without_its_value() {
        let reason = check_variable("A", &"secret\0".into()).unwrap_err();
        assert!(reason.contains('A') && !reason.contains("secret"), "{reason}");
    }
}
