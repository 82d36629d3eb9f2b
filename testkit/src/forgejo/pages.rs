//! The HTML pages: sign-in, consent, and messages, with the field names of Forgejo's own pages.

use super::{
    instance::{Application, User},
    wire::Params,
};

pub(super) fn login(complaint: Option<&str>) -> String {
    let complaint = complaint.map(|text| format!("<p class=\"flash-error\">{}</p>", escape(text)));
    let complaint = complaint.unwrap_or_default();
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

pub(super) fn grant(application: &Application, user: &User, request: &Params) -> String {
    let hidden = ["client_id", "state", "scope", "redirect_uri"].map(|name| {
        let value = escape(request.text(name));
        format!("<input type=\"hidden\" name=\"{name}\" value=\"{value}\">\n")
    });
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
            hidden = hidden.concat(),
        ),
    )
}

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
