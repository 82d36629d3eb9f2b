//! The HTML pages a person meets: sign-in, consent, and the page that says what went wrong.
//!
//! They have the field names of Forgejo's own pages and none of their looks.

use super::state::{Application, User};
use super::wire::Params;

/// The sign-in page; `complaint` says why the last try failed.
pub(super) fn login(complaint: Option<&str>) -> String {
    let complaint = complaint.map_or(String::new(), |text| {
        format!("<p class=\"flash-error\">{}</p>", escape(text))
    });
    page(
        "Sign in",
        &format!(
            r#"{complaint}<form method="post" action="/user/login">
<label>Username or email address <input name="user_name" required autofocus></label>
<label>Password <input name="password" type="password" required></label>
<label><input name="remember" type="checkbox"> Remember this device</label>
<button>Sign in</button>
</form>"#
        ),
    )
}

/// The consent page for one application, with what the application asked for in hidden fields.
pub(super) fn grant(application: &Application, user: &User, asked: &Params) -> String {
    let hidden: String = [
        ("client_id", application.client_id.as_str()),
        ("state", asked.text("state")),
        ("scope", asked.text("scope")),
        ("nonce", asked.text("nonce")),
        ("redirect_uri", asked.text("redirect_uri")),
    ]
    .map(|(name, value)| format!("<input type=\"hidden\" name=\"{name}\" value=\"{}\">\n", escape(value)))
    .concat();
    page(
        "Authorize application",
        &format!(
            r#"<p>{user}, authorize "{name}" to access your account?</p>
<form method="post" action="/login/oauth/grant">
{hidden}<button name="granted" value="true">Authorize application</button>
<button name="granted" value="false">Cancel</button>
</form>"#,
            user = escape(&user.login),
            name = escape(&application.name),
        ),
    )
}

/// A page with a title and a sentence.
pub(super) fn message(title: &str, text: &str) -> String {
    page(title, &format!("<p>{}</p>", escape(text)))
}

fn page(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title></head>\n\
         <body><h1>{title}</h1>\n{body}\n</body></html>\n"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}
