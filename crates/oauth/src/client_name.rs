//! The name that a client states, cleaned before it is stored and shown.

/// The longest name, in characters. Longer ones are cut.
const MAX_NAME: usize = 100;

/// Removes the characters with which a name could pose as another text: control characters, marks
/// that change the direction of writing, and invisible characters.
pub(crate) fn clean_name(name: &str) -> Option<String> {
    let hidden = |c: char| {
        matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    };
    let name: String = name
        .chars()
        .filter(|c| !c.is_control() && !hidden(*c))
        .take(MAX_NAME)
        .collect();
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_and_shortened() {
        assert_eq!(clean_name("  Claude\u{202e}\n Code "), Some("Claude Code".to_owned()));
        assert_eq!(clean_name("Cl\u{200b}aude\u{e0041}"), Some("Claude".to_owned()));
        assert_eq!(clean_name(" \t\u{2066}"), None);
        assert_eq!(clean_name(&"x".repeat(1000)).map(|name| name.len()), Some(100));
    }
}
