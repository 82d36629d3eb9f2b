//! The name that a client states, as it is stored and shown.
//!
//! A page shows the name between its own words, so that it must be visible, must stay in its line,
//! and must not pose as another text. Left out: letters of one script that look like those of
//! another. The pages say that the name is not verified.

use icu_properties::{
    CodePointMapData, CodePointSetData,
    props::{DefaultIgnorableCodePoint, GeneralCategory, GeneralCategoryGroup},
};

/// The longest name, in characters. Longer ones are cut.
const MAX_NAME: usize = 100;
/// The most combining marks on one character. Scripts that stack marks need no more, and a pile of
/// them covers the lines above and below.
const MAX_MARKS: usize = 4;

/// What a character does to a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// It shows by itself.
    Visible,
    /// It changes the character before it.
    Mark,
    Space,
    /// It shows nothing, or changes how others show.
    Hidden,
}

/// The name without hidden characters, piled marks and surplus spaces. `None` if nothing visible is
/// left.
pub(crate) fn clean_name(name: &str) -> Option<String> {
    let mut clean = String::new();
    let (mut length, mut marks) = (0, MAX_MARKS);
    for c in name.chars() {
        let kept = match effect(c) {
            Effect::Visible => {
                marks = 0;
                Some(c)
            }
            // Without a character before it, a mark would change the words of the page.
            Effect::Mark => {
                marks += 1;
                (marks <= MAX_MARKS).then_some(c)
            }
            Effect::Space => {
                marks = MAX_MARKS;
                (!clean.is_empty() && !clean.ends_with(' ')).then_some(' ')
            }
            Effect::Hidden => None,
        };
        if let Some(c) = kept {
            clean.push(c);
            length += 1;
        }
        if length == MAX_NAME {
            break;
        }
    }
    clean.truncate(clean.trim_end().len());
    (!clean.is_empty()).then_some(clean)
}

fn effect(c: char) -> Effect {
    if c.is_whitespace() {
        return Effect::Space;
    }
    if CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c) || is_blank(c) {
        return Effect::Hidden;
    }
    let category = CodePointMapData::<GeneralCategory>::new().get(c);
    if GeneralCategoryGroup::Other.contains(category) {
        // Control and format characters, private and unassigned ones.
        Effect::Hidden
    } else if GeneralCategoryGroup::Mark.contains(category) {
        Effect::Mark
    } else {
        Effect::Visible
    }
}

/// Characters that are symbols or letters by their properties, but whose glyph is blank: an empty
/// Braille pattern, a null note head, an object without its object, Egyptian blanks, a filler.
fn is_blank(c: char) -> bool {
    matches!(
        c,
        '\u{2800}' | '\u{fffc}' | '\u{13441}' | '\u{13442}' | '\u{16fe4}' | '\u{1d159}'
    )
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

    #[test]
    fn a_name_of_invisible_characters_is_no_name() {
        for c in [
            '\u{3164}',
            '\u{2800}',
            '\u{115f}',
            '\u{1160}',
            '\u{ffa0}',
            '\u{34f}',
            '\u{fe0f}',
            '\u{e0100}',
            '\u{ad}',
            '\u{61c}',
            '\u{180e}',
            '\u{200b}',
            '\u{200d}',
            '\u{2028}',
            '\u{202e}',
            '\u{2060}',
            '\u{3000}',
            '\u{feff}',
            '\u{fff9}',
            '\u{fffc}',
            '\u{1d159}',
            '\u{1d173}',
            '\u{13441}',
            '\u{16fe4}',
            '\u{e0041}',
            '\u{e000}',
            '\u{10ffff}',
            '\u{85}',
            '\u{0}',
            '\u{a0}',
        ] {
            let code = u32::from(c);
            assert_eq!(clean_name(&c.to_string()), None, "U+{code:04X}");
            assert_eq!(clean_name(&format!("{c} {c}{c}")), None, "U+{code:04X}");
            let name = clean_name(&format!("Cl{c}aude{c}")).unwrap_or_default();
            assert_eq!(name.replace(' ', ""), "Claude", "U+{code:04X}");
        }
    }

    #[test]
    fn combining_marks_do_not_pile_up_and_need_a_base() {
        let piled = format!("e{}x", "\u{301}".repeat(99));
        assert_eq!(clean_name(&piled), Some(format!("e{}x", "\u{301}".repeat(MAX_MARKS))));
        assert_eq!(clean_name(&"\u{20dd}".repeat(99)), None);
        assert_eq!(
            clean_name("\u{301}\u{489}Claude \u{301}Code"),
            Some("Claude Code".to_owned())
        );
    }

    /// A name is cleaned when it is stored and again when it is read.
    #[test]
    fn a_clean_name_stays_as_it_is() {
        let marks = "\u{301}".repeat(9);
        for name in [
            format!("a{marks} \u{200b} b{marks}"),
            format!("{}\u{3164} {}", "x ".repeat(60), "y".repeat(60)),
            format!("{} z", "w".repeat(99)),
        ] {
            let clean = clean_name(&name).unwrap();
            assert!(clean.chars().count() <= MAX_NAME);
            assert_eq!(clean_name(&clean).as_deref(), Some(clean.as_str()));
        }
    }

    #[test]
    fn names_of_all_scripts_are_kept() {
        for name in [
            "Cafe\u{301}",
            "\u{e9}diteur",
            "クライアント",
            "برنامج",
            "नमस्ते",
            "ไคลเอนต์",
            "🚀 Tool 2.0 (β)",
        ] {
            assert_eq!(clean_name(name).as_deref(), Some(name));
        }
    }
}
