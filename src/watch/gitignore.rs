//! `.gitignore` → the patterns of `.dockerignore`, which watching knows. Pure.
//!
//! After gitignore(5): a pattern without a slash, but for one at its end, means files at any depth; any other is
//! rooted. A slash at the end, which restricts a pattern to directories, is dropped: what is below them is what
//! counts.

use crate::backend::container::ignore::Ignore;

/// The patterns, one a line; a line that is none is left out, as Git does. So is one that ends in an escaped blank,
/// which `.dockerignore` cannot say.
pub fn as_dockerignore(text: &str) -> String {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut all = String::new();
    for line in text.lines() {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (sign, pattern) = line
            .strip_prefix('!')
            .map_or(("", line), |rest| ("!", rest));
        let pattern = pattern.trim_end_matches('/');
        if pattern.is_empty() {
            continue;
        }
        let pattern = match pattern.strip_prefix('/') {
            Some(rooted) => rooted.to_owned(),
            None if pattern.contains('/') => pattern.to_owned(),
            None => format!("**/{pattern}"),
        };
        let line = format!("{sign}{pattern}\n");
        if Ignore::parse(&line).is_ok() {
            all.push_str(&line);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_without_a_slash_is_for_any_depth() {
        let text = "# mine\n*.log\n/target/\ndocs/*.html\nnode_modules/\n!keep.log  \n\n";
        let patterns = as_dockerignore(text);
        assert_eq!(
            patterns,
            "**/*.log\ntarget\ndocs/*.html\n**/node_modules\n!**/keep.log\n"
        );
        let ignore = Ignore::parse(&patterns).unwrap();
        for path in [
            "a.log",
            "x/y/a.log",
            "target/debug/a",
            "docs/a.html",
            "web/node_modules/a/b",
        ] {
            assert!(ignore.excludes(path), "{path}");
        }
        for path in ["x/keep.log", "web/target/a", "docs/x/a.html", "src/a"] {
            assert!(!ignore.excludes(path), "{path}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_left_out() {
        assert_eq!(as_dockerignore("[\n/\n!\nx\n"), "**/x\n");
    }
}
