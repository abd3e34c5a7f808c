//! `.dockerignore`: which paths of a build context stay at home. Pure.
//!
//! The rules are the Docker builder's, not Git's: patterns are rooted at the context, `**` spans
//! directories, a pattern covers all that is below what it matches, and the last pattern that matches
//! decides (Dockerfile reference, section ".dockerignore file").

/// The patterns of one file, in order.
#[derive(Debug, Default)]
pub(crate) struct Ignore {
    patterns: Vec<Pattern>,
}

/// A pattern that cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the ignore file: `{text}` is not a pattern")]
pub(crate) struct BadPattern {
    /// The line, from 1.
    pub line: usize,
    /// The text.
    pub text: String,
}

#[derive(Debug)]
struct Pattern {
    /// It lets paths in again (`!`).
    exception: bool,
    /// The text after cleaning, to find out what an exception may reach.
    text: String,
    automaton: Automaton,
}

/// What a pattern takes; the index of a token is a state.
#[derive(Debug)]
pub(crate) struct Automaton(pub(crate) Vec<Token>);

/// A piece of a pattern.
#[derive(Debug, PartialEq)]
pub(crate) enum Token {
    /// This character.
    Char(char),
    /// `?`: any character but `/`.
    One,
    /// `*`: any run without `/`.
    Run,
    /// `**` at the end: anything.
    Rest,
    /// `**/`: nothing, or what [`Token::Directories`] takes.
    Optional,
    /// Any run that ends in `/`.
    Directories,
    /// `[a-z]`, `[^a-z]`.
    Class {
        /// Whether it takes all others, but for `/`.
        negated: bool,
        /// First and last character of each.
        ranges: Vec<(char, char)>,
    },
}

impl Ignore {
    /// Reads the text of an ignore file.
    pub(crate) fn parse(text: &str) -> Result<Self, BadPattern> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut patterns = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let bad = || BadPattern {
                line: index + 1,
                text: line.trim().to_owned(),
            };
            patterns.push(Pattern::parse(line.trim()).ok_or_else(bad)?);
        }
        Ok(Self { patterns })
    }

    /// Takes patterns as they are: none is a comment.
    pub(super) fn of(patterns: &[String]) -> Result<Self, BadPattern> {
        let parsed = patterns.iter().enumerate().map(|(index, text)| {
            Pattern::parse(text.trim()).ok_or_else(|| BadPattern {
                line: index + 1,
                text: text.clone(),
            })
        });
        Ok(Self {
            patterns: parsed.collect::<Result<_, _>>()?,
        })
    }

    /// Lets one path in, whatever the patterns before say.
    pub(crate) fn always_send(&mut self, path: &str) {
        self.patterns.push(Pattern {
            exception: true,
            text: path.to_owned(),
            automaton: Automaton(path.chars().map(Token::Char).collect()),
        });
    }

    /// Whether a path (relative to the context, with `/`) is left out.
    pub(crate) fn excludes(&self, path: &str) -> bool {
        self.patterns.iter().fold(false, |excluded, pattern| {
            if pattern.exception == excluded && pattern.covers(path) {
                !pattern.exception
            } else {
                excluded
            }
        })
    }

    /// Whether something below an excluded directory may be let in again, so that it must be walked.
    pub(crate) fn reaches_into(&self, directory: &str) -> bool {
        let below = format!("{directory}/");
        self.patterns.iter().any(|pattern| {
            pattern.exception
                && (pattern.text.contains(['*', '?', '[', '\\'])
                    || format!("{}/", pattern.text).starts_with(&below))
        })
    }
}

impl Pattern {
    fn parse(line: &str) -> Option<Self> {
        let (exception, rest) = match line.strip_prefix('!') {
            Some(rest) => (true, rest.trim()),
            None => (false, line),
        };
        if rest.is_empty() {
            return None;
        }
        let text = cleaned(rest);
        Some(Self {
            exception,
            automaton: Automaton(tokens(&text)?),
            text,
        })
    }

    /// Whether it matches the path or a directory above it.
    fn covers(&self, path: &str) -> bool {
        path.match_indices('/')
            .map(|(end, _)| &path[..end])
            .chain([path])
            .any(|prefix| self.automaton.matches(prefix))
    }
}

impl Automaton {
    /// Whether it takes the whole path.
    pub(crate) fn matches(&self, path: &str) -> bool {
        let end = self.0.len();
        let mut states = vec![false; end + 1];
        self.enter(0, &mut states);
        for c in path.chars() {
            let mut next = vec![false; end + 1];
            for (state, token) in self.0.iter().enumerate() {
                if states[state] {
                    self.step(state, token, c, &mut next);
                }
            }
            states = next;
        }
        states[end]
    }

    /// Marks a state and those reached from it without a character.
    fn enter(&self, state: usize, states: &mut [bool]) {
        states[state] = true;
        match self.0.get(state) {
            Some(Token::Run | Token::Rest) => self.enter(state + 1, states),
            Some(Token::Optional) => {
                self.enter(state + 1, states);
                self.enter(state + 2, states);
            }
            Some(Token::Char(_) | Token::One | Token::Directories | Token::Class { .. }) | None => {
            }
        }
    }

    fn step(&self, state: usize, token: &Token, c: char, next: &mut [bool]) {
        let (stay, go) = match token {
            Token::Char(wanted) => (false, c == *wanted),
            Token::One => (false, c != '/'),
            Token::Run => (c != '/', false),
            Token::Rest => (true, false),
            Token::Optional => (false, false),
            Token::Directories => (true, c == '/'),
            Token::Class { negated, ranges } => {
                let inside = ranges.iter().any(|(low, high)| (*low..=*high).contains(&c));
                (false, inside != *negated && c != '/')
            }
        };
        if stay {
            self.enter(state, next);
        }
        if go {
            self.enter(state + 1, next);
        }
    }
}

/// Resolves `.`, `..` and repeated slashes, and roots the pattern at the context.
fn cleaned(pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            // Above the root there is nothing to match: `/..` is `/`.
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if pattern.starts_with('/') => {}
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        return ".".to_owned();
    }
    parts.join("/")
}

fn tokens(pattern: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                if chars.peek().is_none() {
                    tokens.push(Token::Rest);
                } else {
                    tokens.extend([Token::Optional, Token::Directories]);
                }
            }
            '*' => tokens.push(Token::Run),
            '?' => tokens.push(Token::One),
            '[' => tokens.push(class(&mut chars)?),
            '\\' => tokens.push(Token::Char(chars.next()?)),
            c => tokens.push(Token::Char(c)),
        }
    }
    Some(tokens)
}

/// The rest of a character class, after its `[`.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Token> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let low = match chars.next()? {
            ']' if ranges.is_empty() => return None,
            ']' => return Some(Token::Class { negated, ranges }),
            '\\' => chars.next()?,
            c => c,
        };
        let high = if chars.next_if_eq(&'-').is_some() {
            match chars.next()? {
                ']' => return None,
                '\\' => chars.next()?,
                c => c,
            }
        } else {
            low
        };
        ranges.push((low, high));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excluded(file: &str, path: &str) -> bool {
        Ignore::parse(file).unwrap().excludes(path)
    }

    #[test]
    fn patterns_are_rooted_and_cover_what_is_below() {
        assert!(excluded("target", "target"));
        assert!(excluded("target", "target/debug/x"));
        assert!(excluded("/target/", "target/debug"));
        assert!(!excluded("target", "sub/target"));
        assert!(!excluded("target", "targets"));
        assert!(excluded("./a/../b", "b/c"));
    }

    #[test]
    fn wildcards_stay_within_a_directory() {
        assert!(excluded("*.md", "README.md"));
        assert!(!excluded("*.md", "docs/README.md"));
        assert!(excluded("*/temp*", "a/temporary/x"));
        assert!(!excluded("*/temp*", "a/b/temporary"));
        assert!(excluded("temp?", "tempa"));
        assert!(!excluded("temp?", "temp"));
        assert!(!excluded("a?b", "a/b"));
        assert!(excluded("*", "anything/below"));
    }

    #[test]
    fn two_stars_span_directories() {
        for path in ["a.go", "x/a.go", "x/y/z/a.go"] {
            assert!(excluded("**/*.go", path), "{path}");
        }
        assert!(excluded("**/node_modules", "web/app/node_modules/x/y.js"));
        assert!(!excluded("**/node_modules", "web/my_node_modules"));
        assert!(excluded("a/**/z", "a/z"));
        assert!(excluded("a/**/z", "a/b/c/z"));
        assert!(!excluded("a/**/z", "ab/z"));
        assert!(excluded("a/**", "a/b/c"));
        assert!(excluded("**", "x"));
    }

    #[test]
    fn the_last_match_decides() {
        let file = "*.md\n!README*.md\nREADME-secret.md";
        assert!(excluded(file, "notes.md"));
        assert!(!excluded(file, "README.md"));
        assert!(excluded(file, "README-secret.md"));
        let file = "*\n!src\nsrc/private";
        assert!(excluded(file, "Makefile"));
        assert!(!excluded(file, "src/lib.rs"));
        assert!(excluded(file, "src/private/key"));
    }

    #[test]
    fn classes_and_escapes() {
        assert!(excluded("[a-c]x", "bx"));
        assert!(!excluded("[^a-c]x", "bx"));
        assert!(excluded("[^a-c]x", "dx"));
        assert!(excluded(r"\*x", "*x"));
        assert!(!excluded(r"\*x", "ax"));
        assert!(excluded("a+(b).c$", "a+(b).c$"));
    }

    #[test]
    fn comments_blanks_and_a_byte_order_mark_are_skipped() {
        assert!(excluded("\u{feff}# no\n\n  \n  spaced  \n", "spaced"));
        assert!(excluded(" #odd", "#odd"));
    }

    #[test]
    fn a_bad_pattern_names_its_line() {
        for text in ["!", "[", "[]a]", "a[b-", "\\"] {
            let file = format!("ok\n{text}");
            assert_eq!(
                Ignore::parse(&file).unwrap_err(),
                BadPattern {
                    line: 2,
                    text: text.to_owned()
                }
            );
        }
    }

    #[test]
    fn an_excluded_directory_is_walked_only_for_an_exception() {
        let ignore = Ignore::parse("a\nb\n!a/keep/me").unwrap();
        assert!(ignore.reaches_into("a"));
        assert!(ignore.reaches_into("a/keep"));
        assert!(!ignore.reaches_into("b"));
        assert!(Ignore::parse("b\n!**/me").unwrap().reaches_into("b"));
    }

    #[test]
    fn the_builder_s_own_files_are_always_sent() {
        let mut ignore = Ignore::parse("*").unwrap();
        ignore.always_send("docker/Dockerfile");
        assert!(!ignore.excludes("docker/Dockerfile"));
        assert!(ignore.excludes("docker/other"));
        assert!(ignore.reaches_into("docker"));
    }
}
