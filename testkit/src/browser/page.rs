//! A page: a response, its forms, and the target of its redirect.

use http::{HeaderMap, Method, StatusCode, header::LOCATION};
use scraper::{ElementRef, Html, Selector};
use url::Url;

/// One response, a redirect included.
#[derive(Debug, Clone)]
pub struct Page {
    pub url: Url,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    pub action: Url,
    pub method: Method,
    /// Names and values of its fields, hidden ones included, unchecked boxes excluded.
    pub fields: Vec<(String, String)>,
    pub buttons: Vec<(String, String)>,
}

impl Page {
    pub fn redirect(&self) -> Option<Url> {
        let location = self.headers.get(LOCATION).filter(|_| self.status.is_redirection())?;
        self.url.join(location.to_str().ok()?).ok()
    }

    pub fn forms(&self) -> Vec<Form> {
        let html = Html::parse_document(&self.body);
        let form = selector("form");
        html.select(&form).filter_map(|form| self.form(form)).collect()
    }

    pub fn text(&self) -> String {
        const LONGEST: usize = 200;
        let html = Html::parse_document(&self.body);
        let body = selector("body");
        let texts = html.select(&body).flat_map(|body| body.text());
        let words: Vec<&str> = texts.flat_map(str::split_whitespace).collect();
        words.join(" ").chars().take(LONGEST).collect()
    }

    fn form(&self, form: ElementRef<'_>) -> Option<Form> {
        let method = form.attr("method").unwrap_or_default();
        let mut found = Form {
            action: self.url.join(form.attr("action").unwrap_or("")).ok()?,
            method: if method.eq_ignore_ascii_case("post") {
                Method::POST
            } else {
                Method::GET
            },
            fields: Vec::new(),
            buttons: Vec::new(),
        };
        for element in form.select(&selector("input[name], textarea[name], button[name]")) {
            let name = element.attr("name").unwrap_or_default().to_owned();
            let value = element.attr("value").map(str::to_owned);
            let kind = element.attr("type").unwrap_or("").to_ascii_lowercase();
            match (element.value().name(), kind.as_str()) {
                ("button", "button" | "reset") | (_, "reset" | "image" | "file") => {}
                ("button", _) | ("input", "submit") => found.buttons.push((name, value.unwrap_or_default())),
                ("input", "checkbox" | "radio") if element.attr("checked").is_none() => {}
                ("input", "checkbox" | "radio") => found.fields.push((name, value.unwrap_or("on".to_owned()))),
                ("textarea", _) => found.fields.push((name, element.text().collect())),
                _ => found.fields.push((name, value.unwrap_or_default())),
            }
        }
        Some(found)
    }
}

impl Form {
    pub fn has_field(&self, name: &str) -> bool {
        self.fields.iter().any(|(field, _)| field == name)
    }

    pub fn has_button(&self, name: &str, value: &str) -> bool {
        self.buttons.iter().any(|button| button.0 == name && button.1 == value)
    }

    /// Its fields, with some of them filled in; values without a field are added, such as a
    /// button's.
    pub fn filled(&self, values: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut fields = self.fields.clone();
        for (name, value) in values {
            match fields.iter_mut().find(|(field, _)| field == name) {
                Some((_, old)) => *old = (*value).to_owned(),
                None => fields.push(((*name).to_owned(), (*value).to_owned())),
            }
        }
        fields
    }
}

fn selector(css: &str) -> Selector {
    Selector::parse(css).expect("the selectors of this module are well formed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(body: &str) -> Page {
        Page {
            url: "http://h/a/b?c".parse().unwrap(),
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: body.to_owned(),
        }
    }

    #[test]
    fn forms_have_the_fields_that_a_browser_sends() {
        let page = page(
            r#"<form method=post action="../go?x=1"><input type=hidden name=h value="&lt;1&gt;"><input name=t>
            <input type=checkbox name=off><input type=checkbox name=on checked><textarea name=a>text</textarea>
            <button name=decision value=approve>Yes</button><input type=submit name=decision value=deny>
            <button type=button name=script value=1>No submit</button></form><form></form>"#,
        );
        let forms = page.forms();
        assert_eq!(forms.len(), 2);
        let form = &forms[0];
        assert_eq!((form.action.as_str(), &form.method), ("http://h/go?x=1", &Method::POST));
        let fields = [("h", "<1>"), ("t", ""), ("on", "on"), ("a", "text")];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(form.fields, fields);
        assert!(form.has_button("decision", "approve") && form.has_button("decision", "deny"));
        assert!(!form.has_button("script", "1"));
        let filled = form.filled(&[("t", "typed"), ("decision", "approve")]);
        assert_eq!(filled[1].1, "typed");
        assert_eq!(filled.last().unwrap().1, "approve");
        let second = (forms[1].action.as_str(), &forms[1].method);
        assert_eq!(second, ("http://h/a/b?c", &Method::GET));
    }

    #[test]
    fn text_of_a_page_is_one_line_without_markup() {
        let page = page("<html><head><title>no</title></head><body><h1>Not\n allowed</h1><p>ask &amp; wait</p></body>");
        assert_eq!(page.text(), "Not allowed ask & wait");
    }
}
