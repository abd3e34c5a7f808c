//! Sends the builder the files it lacks (`moby.filesync.v1.FileSync/DiffCopy`): first all names with their
//! size and time, then the content of those that it asks for, so that an unchanged context costs a walk.
//!
//! Reads below the directories of the build only; decides nothing about it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hyper::header::HeaderMap;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::spawn_blocking;

use super::grpc::{Answers, Call, Status, decoded};
use super::proto::{Packet, PacketKind, Stat};
use super::session::Source;
use crate::backend::container::ignore::Ignore;

/// Bytes of a file in one message.
const PIECE: usize = 32 * 1024;

/// `os.ModeDir`, `os.ModeSymlink` and the like of Go, which the builder speaks.
const MODE_DIRECTORY: u32 = 1 << 31;
const MODE_SYMLINK: u32 = 1 << 27;
const MODE_SETUID: u32 = 1 << 23;
const MODE_SETGID: u32 = 1 << 22;
const MODE_STICKY: u32 = 1 << 20;

/// A file by the number it was told under: where to read it.
#[derive(Clone, Debug)]
enum Content {
    Path(PathBuf),
    Text(String),
    Nothing,
}

type Told = Arc<Mutex<Vec<Content>>>;

/// Answers one call.
pub(super) async fn send(mut call: Call, sources: &BTreeMap<String, Source>) -> Result<(), Status> {
    let directory = values(&call.metadata, "dir-name").pop().unwrap_or_default();
    let source = sources
        .get(&directory)
        .ok_or_else(|| Status::not_found(format!("no access allowed to dir {directory:?}")))?
        .clone();
    let view = View::new(&call.metadata, &source)?;
    let told = Told::default();
    let (wanted, queue) = unbounded_channel();
    let walk = spawn_blocking({
        let (told, answers) = (Arc::clone(&told), call.answers.clone());
        move || tell(&source, &view, &told, &answers)
    });
    let reading = spawn_blocking({
        let answers = call.answers.clone();
        move || read(queue, &told, &answers)
    });
    let listening = async {
        while let Some(packet) = call.messages.next::<Packet>().await? {
            match packet.kind() {
                // Nobody reads it any more only if reading failed, which is told below.
                PacketKind::Req => drop(wanted.send(packet.id)),
                PacketKind::Fin => break,
                PacketKind::Err => {
                    return Err(Status::internal(String::from_utf8_lossy(&packet.data)));
                }
                PacketKind::Stat | PacketKind::Data => {}
            }
        }
        drop(wanted);
        Ok(())
    };
    let walked = async { walk.await.map_err(Status::internal)? };
    let read = async { reading.await.map_err(Status::internal)? };
    tokio::try_join!(listening, walked, read)?;
    call.answers.send(&packet(PacketKind::Fin)).await
}

fn packet(kind: PacketKind) -> Packet {
    Packet {
        kind: kind.into(),
        ..Packet::default()
    }
}

/// The values of one key; what is not ASCII comes percent-encoded, and says so.
fn values(metadata: &HeaderMap, key: &str) -> Vec<String> {
    let is_encoded = metadata.contains_key(format!("{key}-encoded"));
    let all = metadata.get_all(key).iter();
    all.map(|value| {
        if is_encoded {
            let spaced: Vec<u8> = value
                .as_bytes()
                .iter()
                .map(|byte| if *byte == b'+' { b' ' } else { *byte })
                .collect();
            decoded(&spaced)
        } else {
            String::from_utf8_lossy(value.as_bytes()).into_owned()
        }
    })
    .collect()
}

/// Which files of a directory the builder wants to know of.
struct View {
    /// `None`: all.
    include: Option<Ignore>,
    exclude: Ignore,
}

impl View {
    fn new(metadata: &HeaderMap, source: &Source) -> Result<Self, Status> {
        let patterns = |lines: &[String]| Ignore::of(lines).map_err(Status::internal);
        let mut include = values(metadata, "include-patterns");
        let paths = values(metadata, "followpaths");
        let mut all = include.is_empty() && paths.is_empty();
        match source {
            Source::Directory(root) => {
                for path in &paths {
                    all |= !follow(root, path, &mut include);
                }
            }
            Source::Text(..) => all = true,
        }
        Ok(Self {
            include: if all { None } else { Some(patterns(&include)?) },
            exclude: patterns(&values(metadata, "exclude-patterns"))?,
        })
    }

    fn shows(&self, path: &str) -> bool {
        // The patterns of `include` are written as what to leave out.
        self.include
            .as_ref()
            .is_none_or(|wanted| wanted.excludes(path))
            && !self.exclude.excludes(path)
    }

    fn may_show_below(&self, directory: &str) -> bool {
        !self.exclude.excludes(directory) || self.exclude.reaches_into(directory)
    }
}

/// Adds a path to what is wanted, and where symbolic links in it lead; `false`: it is all.
fn follow(root: &Path, path: &str, wanted: &mut Vec<String>) -> bool {
    let mut open = vec![path.to_owned()];
    // A circle of links ends; what it would have led to is not there.
    for _ in 0..256 {
        let Some(path) = open.pop() else {
            return true;
        };
        let mut place = PathBuf::new();
        for part in Path::new(&path).components() {
            match part {
                Component::Normal(name) => place.push(name),
                Component::ParentDir => drop(place.pop()),
                Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            }
            let link = fs::read_link(root.join(&place));
            if let Ok(target) = link {
                let target = place.parent().unwrap_or(Path::new("")).join(target);
                open.push(target.display().to_string());
            }
        }
        if place.as_os_str().is_empty() || path.contains(['*', '?', '[']) && has_links(root, &place)
        {
            return false;
        }
        wanted.push(place.display().to_string());
    }
    false
}

/// Whether a path with wildcards may lead through symbolic links: then all is told.
fn has_links(root: &Path, pattern: &Path) -> bool {
    let fixed: PathBuf = pattern
        .components()
        .take_while(|part| !part.as_os_str().to_string_lossy().contains(['*', '?', '[']))
        .collect();
    let Ok(entries) = fs::read_dir(root.join(fixed)) else {
        return false;
    };
    entries.flatten().any(|entry| {
        entry
            .file_type()
            .is_ok_and(|kind| kind.is_symlink() || kind.is_dir())
    })
}

/// Tells the names of all files, in the order of their paths.
fn tell(source: &Source, view: &View, told: &Told, answers: &Answers) -> Result<(), Status> {
    let mut teller = Teller {
        view,
        told,
        answers,
        pending: Vec::new(),
    };
    match source {
        Source::Directory(root) => teller.directory(root, "")?,
        Source::Text(name, text) => {
            if view.shows(name) {
                let stat = Stat {
                    path: name.clone(),
                    mode: 0o644,
                    size: i64::try_from(text.len()).unwrap_or_default(),
                    mod_time: moment_of(text),
                    ..Stat::default()
                };
                teller.one(stat, Content::Text(text.clone()))?;
            }
        }
    }
    answers.send_now(&packet(PacketKind::Stat))
}

/// A time for a text that is on no disk, in nanoseconds: builders take a file of the same size and time for the
/// same file, so each text has its own.
fn moment_of(text: &str) -> i64 {
    let digest = Sha256::digest(text.as_bytes());
    let seconds = digest
        .iter()
        .take(4)
        .fold(0_i64, |all, byte| all << 8 | i64::from(*byte));
    seconds.saturating_mul(1_000_000_000)
}

struct Teller<'a> {
    view: &'a View,
    told: &'a Told,
    answers: &'a Answers,
    /// Directories above that nothing was told of yet: they are told when something in them is.
    pending: Vec<Stat>,
}

impl Teller<'_> {
    fn one(&mut self, stat: Stat, content: Content) -> Result<(), Status> {
        for above in std::mem::take(&mut self.pending) {
            self.say(above, Content::Nothing)?;
        }
        self.say(stat, content)
    }

    fn say(&self, stat: Stat, content: Content) -> Result<(), Status> {
        // It may be asked for as soon as it is told.
        self.told
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(content);
        self.answers.send_now(&Packet {
            stat: Some(stat),
            ..packet(PacketKind::Stat)
        })
    }

    fn directory(&mut self, place: &Path, name: &str) -> Result<(), Status> {
        let at = |error: io::Error| Status::internal(format!("{}: {error}", place.display()));
        let mut entries = fs::read_dir(place)
            .and_then(Iterator::collect::<io::Result<Vec<_>>>)
            .map_err(at)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let own = entry.file_name();
            let own = own.to_string_lossy();
            let path = if name.is_empty() {
                own.into_owned()
            } else {
                format!("{name}/{own}")
            };
            // What vanished meanwhile was never there.
            let Ok(metadata) = fs::symlink_metadata(entry.path()) else {
                continue;
            };
            self.entry(&entry.path(), &path, &metadata)?;
        }
        Ok(())
    }

    fn entry(&mut self, place: &Path, path: &str, metadata: &fs::Metadata) -> Result<(), Status> {
        let kind = metadata.file_type();
        let mut stat = Stat {
            mode: mode(metadata),
            mod_time: metadata
                .mtime()
                .saturating_mul(1_000_000_000)
                .saturating_add(metadata.mtime_nsec()),
            path: path.to_owned(),
            ..Stat::default()
        };
        if kind.is_dir() {
            if self.view.shows(path) {
                self.one(stat, Content::Nothing)?;
                self.directory(place, path)?;
            } else if self.view.may_show_below(path) {
                self.pending.push(stat);
                self.directory(place, path)?;
                // Still the last one if nothing below was told.
                self.pending.pop();
            }
            return Ok(());
        }
        // Sockets, pipes and devices have no content to send.
        let is_other =
            kind.is_socket() || kind.is_fifo() || kind.is_block_device() || kind.is_char_device();
        if is_other || !self.view.shows(path) {
            return Ok(());
        }
        if kind.is_symlink() {
            let Ok(target) = fs::read_link(place) else {
                return Ok(());
            };
            stat.linkname = target.to_string_lossy().into_owned();
            return self.one(stat, Content::Nothing);
        }
        stat.size = i64::try_from(metadata.len()).unwrap_or_default();
        self.one(stat, Content::Path(place.to_owned()))
    }
}

fn mode(metadata: &fs::Metadata) -> u32 {
    let unix = metadata.mode();
    let mut mode = unix & 0o777;
    for (theirs, ours) in [
        (0o4000, MODE_SETUID),
        (0o2000, MODE_SETGID),
        (0o1000, MODE_STICKY),
    ] {
        if unix & theirs != 0 {
            mode |= ours;
        }
    }
    if metadata.is_dir() {
        mode |= MODE_DIRECTORY;
    } else if metadata.is_symlink() {
        mode |= MODE_SYMLINK;
    }
    mode
}

/// Sends the content of the files that are asked for.
fn read(mut queue: UnboundedReceiver<u32>, told: &Told, answers: &Answers) -> Result<(), Status> {
    let mut buffer = vec![0; PIECE];
    while let Some(id) = queue.blocking_recv() {
        let content = usize::try_from(id).ok().and_then(|index| {
            let told = told.lock().unwrap_or_else(PoisonError::into_inner);
            told.get(index).cloned()
        });
        let piece = |data: &[u8]| {
            answers.send_now(&Packet {
                id,
                data: data.to_vec(),
                ..packet(PacketKind::Data)
            })
        };
        match content {
            Some(Content::Text(text)) => {
                for chunk in text.as_bytes().chunks(PIECE) {
                    piece(chunk)?;
                }
            }
            Some(Content::Path(path)) => {
                let at =
                    |error: io::Error| Status::internal(format!("{}: {error}", path.display()));
                let mut file = File::open(&path).map_err(at)?;
                loop {
                    let count = file.read(&mut buffer).map_err(at)?;
                    if count == 0 {
                        break;
                    }
                    piece(buffer.get(..count).unwrap_or_default())?;
                }
            }
            Some(Content::Nothing) | None => {
                return Err(Status::internal(format!("file {id} has no content")));
            }
        }
        piece(&[])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_to_what_they_stand_for() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("real/deep")).unwrap();
        fs::write(root.path().join("real/deep/file"), "x").unwrap();
        std::os::unix::fs::symlink("real", root.path().join("link")).unwrap();
        std::os::unix::fs::symlink("b", root.path().join("a")).unwrap();
        std::os::unix::fs::symlink("a", root.path().join("b")).unwrap();
        let followed = |path: &str| {
            let mut wanted = Vec::new();
            let part = follow(root.path(), path, &mut wanted);
            part.then_some(wanted)
        };
        assert_eq!(followed("real/deep"), Some(vec!["real/deep".to_owned()]));
        assert_eq!(
            followed("link/deep/file"),
            Some(vec!["link/deep/file".to_owned(), "real".to_owned()])
        );
        assert_eq!(followed("."), None, "all of it");
        assert_eq!(followed("a"), None, "a circle");
        assert_eq!(followed("*.rs"), None, "links beside it");
        assert_eq!(
            followed("real/deep/*.rs"),
            Some(vec!["real/deep/*.rs".to_owned()])
        );
    }
}
