//! What `execute` may run: the explicit list, and how an entry becomes a file.
//!
//! The client's word is compared with the list as it is; nothing of it reaches a path look-up unless it
//! equals an entry.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::ServerError;

/// The list.
pub(super) struct AllowList {
    entries: Vec<String>,
    /// The absolute directories of `PATH`. A relative one would let the client's `cwd` choose the program.
    directories: Vec<PathBuf>,
}

/// The client's word on the list.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may run, and it is this file.
    Program(PathBuf),
    /// It may run, and there is no such file.
    NotFound,
    /// It may not run.
    NotAllowed,
}

impl AllowList {
    /// # Errors
    /// An entry that is neither a name nor an absolute path.
    pub(super) fn new(entries: &[String], path: &str) -> Result<Self, ServerError> {
        let odd = |entry: &&String| {
            let has_slash = entry.contains('/');
            entry.is_empty()
                || entry.contains('\0')
                || matches!(entry.as_str(), "." | "..")
                || (has_slash && !Path::new(entry).is_absolute())
        };
        if let Some(entry) = entries.iter().find(odd) {
            return Err(ServerError::Allow {
                entry: entry.clone(),
            });
        }
        Ok(Self {
            entries: entries.to_vec(),
            directories: std::env::split_paths(path)
                .filter(|directory| directory.is_absolute())
                .collect(),
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Judges a command.
    pub(super) fn judge(&self, command: &str) -> Verdict {
        if !self.entries.iter().any(|entry| entry == command) {
            return Verdict::NotAllowed;
        }
        let found = if command.contains('/') {
            Some(PathBuf::from(command)).filter(|file| is_program(file))
        } else {
            self.directories
                .iter()
                .map(|directory| directory.join(command))
                .find(|file| is_program(file))
        };
        found.map_or(Verdict::NotFound, Verdict::Program)
    }
}

fn is_program(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str], path: &str) -> Result<AllowList, ServerError> {
        let entries: Vec<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
        AllowList::new(&entries, path)
    }

    #[test]
    fn only_the_exact_word_is_allowed() {
        let allow = list(&["sh", "/bin/cat"], "/usr/bin:/bin").unwrap();
        assert!(matches!(allow.judge("sh"), Verdict::Program(_)));
        assert_eq!(allow.judge("/bin/cat"), Verdict::Program("/bin/cat".into()));
        for word in [
            "/bin/sh",
            "./sh",
            "../bin/sh",
            "SH",
            "sh ",
            "cat",
            "/bin//cat",
            "/bin/../bin/cat",
            "",
        ] {
            assert_eq!(allow.judge(word), Verdict::NotAllowed, "{word}");
        }
    }

    #[test]
    fn names_are_found_in_absolute_directories_only() {
        assert_eq!(
            list(&["sh"], ".:bin:").unwrap().judge("sh"),
            Verdict::NotFound
        );
        let here = tempfile::tempdir().unwrap();
        let file = here.path().join("tool");
        std::fs::write(&file, "").unwrap();
        let allow = list(&["tool"], here.path().to_str().unwrap()).unwrap();
        assert_eq!(allow.judge("tool"), Verdict::NotFound, "not executable");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(allow.judge("tool"), Verdict::Program(file));
    }

    #[test]
    fn entries_with_a_way_around_are_refused() {
        for entry in ["", ".", "..", "./sh", "bin/sh", "../sh"] {
            assert!(list(&[entry], "/bin").is_err(), "{entry}");
        }
    }
}
