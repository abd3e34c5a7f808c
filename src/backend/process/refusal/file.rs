//! What keeps a file from being run, or a directory from being run in, as far as a look at it tells.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statvfs};

use crate::backend::process::access;
use crate::project::shell;

/// How much of a file is read: the kernel reads as much (`BINPRM_BUF_SIZE`).
const HEAD: u64 = 256;

/// A file that its user may not run.
pub(super) fn forbidden(file: &Path, says: &str) -> (String, String) {
    use std::os::unix::fs::PermissionsExt as _;
    let (shown, word) = (file.display(), shell::word(file));
    let Ok(facts) = fs::metadata(file) else {
        return (says.to_owned(), format!("ls -l {word}"));
    };
    if facts.is_dir() {
        return (
            format!("{says}: {shown} is a directory"),
            "name a program in `command`".to_owned(),
        );
    }
    if facts.permissions().mode() & 0o111 == 0 {
        return (
            format!("{says}: {shown} is not executable"),
            format!("chmod +x {word}"),
        );
    }
    let noexec = statvfs(file).is_ok_and(|it| it.f_flag.contains(StatVfsMountFlags::NOEXEC));
    if noexec {
        return (
            format!("{says}: {shown} is on a file system that is mounted noexec"),
            format!("findmnt -T {word}"),
        );
    }
    if let Some(interpreter) = interpreter(file) {
        let interpreter = interpreter.trim_end().to_owned();
        if !access::runs(None, Path::new(&interpreter)) {
            return (
                format!(
                    "{says}: {interpreter}, which {shown} is to be run by, may not be executed"
                ),
                format!("ls -l {}", shell::word(Path::new(&interpreter))),
            );
        }
    }
    (
        format!("{says}: its user may not execute {shown}, or not enter a directory above it"),
        format!("namei -l {word}"),
    )
}

/// A file that is there, and that the system could not run.
pub(super) fn unfit(file: &Path, says: &str) -> (String, String) {
    let (shown, word) = (file.display(), shell::word(file));
    let Some(interpreter) = interpreter(file) else {
        return (
            format!(
                "{says}: {shown} is no program for this machine, or what loads it is not installed"
            ),
            format!("file {word}"),
        );
    };
    if interpreter.ends_with('\r') {
        return (
            format!(
                "the first line of {shown} ends with a carriage return, as files of Windows do"
            ),
            format!("sed -i 's/\\r$//' {word}"),
        );
    }
    if interpreter.is_empty() {
        return (
            format!("{says}: the first line of {shown} names no interpreter"),
            format!("head -n 1 {word}"),
        );
    }
    (
        format!("{says}: {interpreter}, which {shown} is to be run by"),
        format!("install {interpreter}, or correct the first line of {shown}"),
    )
}

/// What the first line of a script names (`execve(2)`, "Interpreter scripts"), with the carriage return that
/// may be there.
pub(super) fn interpreter(file: &Path) -> Option<String> {
    let mut head = Vec::new();
    let file = File::open(file).ok()?;
    file.take(HEAD).read_to_end(&mut head).ok()?;
    let line = head
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?;
    let line = String::from_utf8_lossy(line);
    let line = line.trim_start_matches([' ', '\t']);
    let end = line.find([' ', '\t']).unwrap_or(line.len());
    Some(line[..end].to_owned())
}

/// What is wrong with the way to a file.
pub(super) enum Way {
    /// This is a file where a directory should be.
    File(PathBuf),
    /// This is not there.
    Nothing(PathBuf),
}

/// The first part of a path that is not what it has to be.
pub(super) fn missing(file: &Path) -> Option<Way> {
    let mut above: Vec<&Path> = file.ancestors().collect();
    above.reverse();
    for part in above {
        match fs::metadata(part) {
            Ok(facts) if !facts.is_dir() && part != file => {
                return Some(Way::File(part.to_owned()));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let target = fs::read_link(part).ok();
                let place = target.map_or_else(
                    || part.to_owned(),
                    |target| part.parent().unwrap_or(Path::new("/")).join(target),
                );
                return Some(Way::Nothing(place));
            }
            Ok(_) | Err(_) => {}
        }
    }
    None
}

/// Why nothing can be run in a directory that is none.
pub(super) fn missing_directory(directory: &Path) -> (String, String) {
    let shown = directory.display();
    let correct = "correct `working_dir`";
    let file = match missing(directory) {
        Some(Way::Nothing(place)) => {
            // Nothing can be made through a link that leads nowhere.
            let is_above = directory.starts_with(&place);
            let made = if is_above { directory } else { &place };
            let which = if place == directory {
                String::new()
            } else {
                format!(": {} is missing", place.display())
            };
            return (
                format!("its directory {shown} is not there{which}"),
                format!("{correct}, or make it: mkdir -p {}", shell::word(made)),
            );
        }
        Some(Way::File(file)) => file,
        None => directory.to_owned(),
    };
    (
        format!(
            "its directory {shown} cannot be entered: {} is no directory",
            file.display()
        ),
        format!("{correct}: ls -ld {}", shell::word(&file)),
    )
}
