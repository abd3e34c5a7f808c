//! What happens beside an instance and no entry of the ledger tells, for `events`: commands in it, each signal that a
//! user sends, and that a start was one of `restart`. One JSON object a line, bounded. Nobody depends on it: what
//! cannot be written is left out.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;

use serde::{Deserialize, Serialize};

use super::dirs::InstanceDir;
use super::run::wall_clock;

/// So much is kept, in bytes; beyond it is begun anew.
const LONGEST: u64 = 256 * 1024;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    /// Nanoseconds since the Unix epoch.
    pub(super) time: i64,
    /// In the engine's words.
    pub(super) action: String,
    /// More about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) attributes: BTreeMap<String, String>,
}

/// Notes that something happened now.
pub(crate) fn note(dir: &InstanceDir, action: &str, attributes: &[(&str, &str)]) {
    let line = Line {
        time: wall_clock(),
        action: action.to_owned(),
        attributes: attributes
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    };
    let path = dir.journal();
    if fs::metadata(&path).is_ok_and(|facts| facts.len() > LONGEST) {
        drop(fs::remove_file(&path));
    }
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path);
    if let (Ok(mut file), Ok(mut text)) = (file, serde_json::to_vec(&line)) {
        text.push(b'\n');
        // In one piece, beside those of others.
        drop(file.write_all(&text));
    }
}

/// What was noted after the first `from` bytes, and how many there are now.
pub(super) fn after(dir: &InstanceDir, from: u64) -> (Vec<Line>, u64) {
    let mut text = Vec::new();
    let Ok(mut file) = fs::File::open(dir.journal()) else {
        return (Vec::new(), 0);
    };
    let length = file.metadata().map_or(0, |facts| facts.len());
    // Begun anew.
    let from = if length < from { 0 } else { from };
    if file.seek(SeekFrom::Start(from)).is_err() || file.read_to_end(&mut text).is_err() {
        return (Vec::new(), from);
    }
    let Some(end) = text.iter().rposition(|byte| *byte == b'\n') else {
        return (Vec::new(), from);
    };
    let lines = text[..end].split(|byte| *byte == b'\n');
    let lines = lines.filter_map(|line| serde_json::from_slice(line).ok());
    (lines.collect(), from + end as u64 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::process::Dirs;

    #[test]
    fn what_was_noted_is_told_once_and_half_a_line_not_yet() {
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs::new(root.path().join("s"), root.path().join("r"));
        let dir = dirs.project("p").unwrap().instance("p-a-1").unwrap();
        assert_eq!(after(&dir, 0), (Vec::new(), 0));
        dir.create().unwrap();
        note(&dir, "restart", &[]);
        note(&dir, "exec_die", &[("exitCode", "3")]);
        let (lines, end) = after(&dir, 0);
        let actions: Vec<&str> = lines.iter().map(|line| line.action.as_str()).collect();
        assert_eq!(actions, ["restart", "exec_die"]);
        assert_eq!(lines[1].attributes["exitCode"], "3");
        let mut file = OpenOptions::new().append(true).open(dir.journal()).unwrap();
        file.write_all(b"{\"time\":1,").unwrap();
        assert_eq!(after(&dir, end), (Vec::new(), end));
        file.write_all(b"\"action\":\"restart\"}\n").unwrap();
        assert_eq!(after(&dir, end).0.len(), 1);
    }
}
