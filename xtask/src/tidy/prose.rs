//! The language of comments: subject first, common words, lines of at most 100 columns.
//!
//! A sentence that begins with "What" or "Whether" puts a clause where a reader looks for the
//! subject. Some such sentences are the clearest ones, so the rule limits their share of all
//! sentences instead of forbidding them.

use std::path::Path;

use super::Tree;

/// The first words of the sentences that are counted.
const OPENINGS: [&str; 9] = [
    "What", "Who", "Whoever", "Whether", "How", "That", "Where", "When", "Whatever",
];

/// The largest share of such sentences, in percent.
const MAX_SHARE: usize = 4;

/// Words that have a plainer one: "the caller", "no client", "again".
const RARE: [&str; 4] = ["whoever", "nobody", "somebody", "anew"];

/// The most occurrences of all those words together.
const MAX_RARE: usize = 5;

/// The last column of a comment.
const WIDTH: usize = 100;

/// The sentences of a tree that the rules are about.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    sentences: usize,
    /// The places of the counted sentences.
    openings: Vec<String>,
    /// The places of rare words.
    rare: Vec<String>,
    /// The places of lines that are too wide.
    wide: Vec<String>,
}

pub(super) fn check(tree: &Tree) -> Vec<String> {
    let mut counts = Counts::default();
    for (path, text) in tree.with_ending("rs") {
        counts.add(path, text);
    }
    let mut broken = counts.wide;
    if counts.openings.len() * 100 > counts.sentences * MAX_SHARE {
        broken.push(format!(
            "{} of {} sentences in comments begin with one of {OPENINGS:?}; at most {MAX_SHARE} % may",
            counts.openings.len(),
            counts.sentences
        ));
        broken.extend(counts.openings);
    }
    if counts.rare.len() > MAX_RARE {
        broken.push(format!("more than {MAX_RARE} times one of {RARE:?} in comments"));
        broken.extend(counts.rare);
    }
    broken
}

impl Counts {
    fn add(&mut self, path: &Path, text: &str) {
        let mut block = String::new();
        let mut begins = 0;
        for (number, line) in (1..).zip(text.lines()) {
            let place = || format!("{}:{number}", path.display());
            let Some(comment) = comment(line) else {
                self.add_block(path, begins, &block);
                block.clear();
                continue;
            };
            // A row of a table cannot be wrapped.
            if line.chars().count() > WIDTH && !comment.starts_with('|') {
                self.wide
                    .push(format!("{}: a comment wider than {WIDTH} columns", place()));
            }
            let words = comment.split(|character: char| !character.is_ascii_alphabetic());
            for word in words.filter(|word| RARE.contains(&word.to_lowercase().as_str())) {
                self.rare.push(format!("{}: {word}", place()));
            }
            if block.is_empty() {
                begins = number;
            }
            block.push_str(comment);
            block.push(' ');
        }
        self.add_block(path, begins, &block);
    }

    fn add_block(&mut self, path: &Path, begins: usize, block: &str) {
        for sentence in sentences(block) {
            let mut words = sentence.split_whitespace();
            let first = words.next().unwrap_or_default();
            if words.count() < 2 {
                continue;
            }
            self.sentences += 1;
            if OPENINGS.contains(&first) {
                self.openings.push(format!("{}:{begins}: {sentence}", path.display()));
            }
        }
    }
}

/// The text of a line that holds nothing but a comment.
fn comment(line: &str) -> Option<&str> {
    let text = line.trim_start().strip_prefix("//")?;
    Some(text.strip_prefix(['/', '!']).unwrap_or(text).trim_start())
}

/// Splits at a full stop that white space follows, so that `a.b` and `1.5` stay whole.
fn sentences(block: &str) -> Vec<&str> {
    let mut sentences = Vec::new();
    let mut rest = block.trim();
    let ends = [". ", "! ", "? "];
    while let Some(end) = ends.iter().filter_map(|end| rest.find(end)).min() {
        sentences.push(&rest[..=end]);
        rest = rest[end + 1..].trim_start();
    }
    sentences.push(rest);
    sentences
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Counts;

    #[test]
    fn sentences_rare_words_and_wide_lines_are_counted() {
        let wide = format!("// {}", "wide ".repeat(20));
        let text = format!(
            "/// What is left is kept. The table\n/// holds it. Nobody asks.\nfn a() {{}} // What not\n{wide}\n"
        );
        let mut counts = Counts::default();
        counts.add(Path::new("a.rs"), &text);
        assert_eq!(counts.sentences, 3);
        assert_eq!(counts.openings, ["a.rs:1: What is left is kept."]);
        assert_eq!(counts.rare, ["a.rs:2: Nobody"]);
        assert_eq!(counts.wide, ["a.rs:4: a comment wider than 100 columns"]);
    }
}
