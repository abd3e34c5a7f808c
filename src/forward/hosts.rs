//! The hosts files of local instances. They are mounted over `/etc/hosts` by their inode, so each is rewritten
//! in place, with one write, and never becomes shorter: a reader sees the old names or the new ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::routes::Lines;
use crate::backend::process::Record;

/// An address and its names.
type Line = (IpAddr, Vec<String>);

/// The machine's own hosts file, followed.
#[derive(Debug)]
pub(super) struct Base {
    path: PathBuf,
    text: String,
    /// Which file was read, and in which state.
    seen: Option<(u64, u64, i64, i64)>,
}

impl Base {
    /// Nothing is read yet.
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            text: String::new(),
            seen: None,
        }
    }

    /// Reads it if it has changed; whether it has. One that cannot be read says nothing.
    pub(super) fn refresh(&mut self) -> bool {
        let Ok(metadata) = std::fs::metadata(&self.path) else {
            return false;
        };
        let seen = Some((
            metadata.ino(),
            metadata.len(),
            metadata.mtime(),
            metadata.mtime_nsec(),
        ));
        if seen == self.seen {
            return false;
        }
        self.seen = seen;
        match std::fs::read(&self.path) {
            Ok(text) => {
                self.text = String::from_utf8_lossy(&text).into_owned();
                true
            }
            Err(_) => false,
        }
    }

    /// A file with these names in it. What the machine says about the same names is
    /// left out: resolvers differ in which of two answers they take. They compare letter by letter, so what is asked
    /// for with a dot at its end stands there, too: in lines of its own, after the others, since the first line of an
    /// address says how that is called.
    pub(super) fn with(&self, lines: &[Line]) -> String {
        let plain = |name: &String| name.trim_end_matches('.').to_owned();
        let lines: Vec<Line> = lines
            .iter()
            .map(|(address, names)| (*address, names.iter().map(plain).collect()))
            .collect();
        let whole = |name: &String| format!("{name}.");
        let wholes = lines
            .iter()
            .map(|(address, names)| (*address, names.iter().map(whole).collect::<Vec<_>>()));
        let lines: Vec<Line> = lines.iter().cloned().chain(wholes).collect();
        let ours: BTreeSet<&str> = lines
            .iter()
            .flat_map(|(_, names)| names.iter().map(String::as_str))
            .collect();
        let mut text = String::with_capacity(self.text.len() + 64 * lines.len());
        for line in self.text.lines() {
            if let Some(line) = without(line, &ours) {
                text.push_str(&line);
                text.push('\n');
            }
        }
        for (address, names) in &lines {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{address}\t{}", names.join(" "));
        }
        text
    }
}

/// A line of a hosts file without some names; `None` when none is left.
fn without(line: &str, names: &BTreeSet<&str>) -> Option<String> {
    let code = line.split('#').next().unwrap_or_default();
    let mut words = code.split_whitespace();
    let Some(address) = words.next() else {
        return Some(line.to_owned());
    };
    let all: Vec<&str> = words.collect();
    let kept: Vec<&str> = all
        .iter()
        .copied()
        .filter(|word| !names.contains(word))
        .collect();
    if kept.len() == all.len() {
        return Some(line.to_owned());
    }
    (!kept.is_empty()).then(|| format!("{address}\t{}", kept.join(" ")))
}

/// What the files of instances say, as far as it was written here.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// By name: the id that the instance was made with, and the lines.
    written: BTreeMap<String, (String, Lines)>,
    /// The text of the lines that were written last: as a rule the next instance has the same.
    last: Option<(Lines, String)>,
}

impl Files {
    /// Makes the file of an instance say this. One that has been removed meanwhile has none.
    pub(super) fn write(
        &mut self,
        path: &Path,
        record: &Record,
        base: &Base,
        lines: &Lines,
    ) -> io::Result<()> {
        let name = &record.spec.name;
        let is_same = |old: &Lines| Arc::ptr_eq(old, lines) || old == lines;
        let old = self.written.get(name);
        if old.is_some_and(|(id, old)| *id == record.created_id && is_same(old)) {
            return Ok(());
        }
        let last = self.last.take().filter(|(old, _)| Arc::ptr_eq(old, lines));
        let (_, text) = self
            .last
            .insert(last.unwrap_or_else(|| (Arc::clone(lines), base.with(lines))));
        match write(path, text) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.written.remove(name);
                return Ok(());
            }
            Err(error) => {
                self.written.remove(name);
                return Err(error);
            }
        }
        let now = (record.created_id.clone(), Arc::clone(lines));
        self.written.insert(name.clone(), now);
        Ok(())
    }
}

/// Makes a file that is there say this, in place. Returns whether it said something else before.
fn write(path: &Path, text: &str) -> io::Result<bool> {
    // It comes and goes with its instance: one that is being removed must not get it back.
    let mut file: File = OpenOptions::new().read(true).write(true).open(path)?;
    let mut old = Vec::new();
    file.read_to_end(&mut old)?;
    let mut new = text.as_bytes().to_vec();
    if new.len() < old.len() {
        new.resize(old.len(), b'\n');
    }
    if new == old {
        return Ok(false);
    }
    let written = file.write_at(&new, 0)?;
    if written < new.len() {
        // The disk is full. What follows would be a part of a line.
        return Err(io::ErrorKind::WriteZero.into());
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(text: &str) -> Base {
        Base {
            path: PathBuf::new(),
            text: text.to_owned(),
            seen: None,
        }
    }

    fn line(address: &str, names: &[&str]) -> Line {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        (address.parse().unwrap(), names)
    }

    #[test]
    fn the_machines_lines_stay_and_ours_win() {
        let base =
            base("# mine\n127.0.0.1 localhost\n10.0.0.9\tdb db.example # old\n10.0.0.8 api\n");
        let lines = [
            line("172.18.0.2", &["db", "p-db-1"]),
            line("fd00::2", &["db"]),
            line("127.0.0.1", &["api"]),
        ];
        assert_eq!(
            base.with(&lines),
            "# mine\n127.0.0.1 localhost\n10.0.0.9\tdb.example\n172.18.0.2\tdb p-db-1\nfd00::2\tdb\n127.0.0.1\tapi\n\
             172.18.0.2\tdb. p-db-1.\nfd00::2\tdb.\n127.0.0.1\tapi.\n"
        );
        assert_eq!(base.with(&[]), base.text);
    }

    #[test]
    fn a_file_is_rewritten_in_place_and_never_shrinks() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("hosts");
        std::fs::write(&path, "").unwrap();
        assert!(write(&path, "127.0.0.1\tlocalhost\n10.0.0.1\tdb\n").unwrap());
        let before = std::fs::metadata(&path).unwrap();
        assert!(write(&path, "127.0.0.1\tlocalhost\n").unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.trim_end(), "127.0.0.1\tlocalhost");
        let after = std::fs::metadata(&path).unwrap();
        assert_eq!((after.ino(), after.len()), (before.ino(), before.len()));
        assert!(!write(&path, "127.0.0.1\tlocalhost\n").unwrap());
        let missing = root.path().join("gone/hosts");
        assert_eq!(
            write(&missing, "").unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn the_machines_file_is_followed() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("hosts");
        let mut base = Base::new(path.clone());
        assert!(!base.refresh());
        std::fs::write(&path, "127.0.0.1 localhost\n").unwrap();
        assert!(base.refresh());
        assert!(!base.refresh());
        assert_eq!(base.with(&[]), "127.0.0.1 localhost\n");
        std::fs::write(&path, "127.0.0.1 localhost\n10.0.0.1 x\n").unwrap();
        assert!(base.refresh());
        assert!(base.with(&[]).contains("10.0.0.1 x"));
    }
}
