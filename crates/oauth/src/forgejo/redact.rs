//! Texts of Forgejo, made safe for a log.

/// Removes from a text whatever may be a token, and control characters, and cuts it.
pub(super) fn redact(text: &str) -> String {
    const LONGEST_WORD: usize = 20;
    const LENGTH: usize = 200;
    let is_token = |run: &str| run.chars().count() > LONGEST_WORD || run.starts_with("gto_") || run.starts_with("gta_");
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LENGTH)
        .collect();
    let words = text.split(' ').map(|word| {
        let mut runs = word.split(|c: char| !(c.is_ascii_alphanumeric() || "-_.+/=~".contains(c)));
        if runs.any(is_token) { "[redacted]" } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_redacted() {
        let jwt = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJnbnQiOjF9.c2ln";
        let text = redact(&format!("token \"{jwt}\" is bad:{jwt} gto_short\nnext"));
        assert_eq!(text, "token [redacted] is [redacted] [redacted] next");
        let harmless = "token does not have at least one of required scope(s): [read:organization]";
        assert_eq!(redact(harmless), harmless);
    }

    #[test]
    fn texts_are_cut() {
        assert!(redact(&"word ".repeat(1000)).len() <= 200);
    }
}
