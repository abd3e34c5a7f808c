//! Files of this machine as a tar stream, and back. What is unpacked stays inside its directory, whatever
//! an archive says.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{Stream, stream};
use hyper::body::Bytes;
use tar::{Archive, Builder, EntryType, Header};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;

use super::copying::{Source, asks_for_contents, base};

/// Bytes collected before they are handed on.
const CHUNK: usize = 64 << 10;

/// How many chunks may wait.
const WAITING: usize = 8;

/// Pieces of a tar stream. An error in it means that it is not whole.
pub type Pieces = Receiver<io::Result<Bytes>>;

/// Ends what the threads of one copy do, at their next piece.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From now on, nothing more is read or written.
    pub fn now(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Relaxed) {
            // Not `Interrupted`: that one is tried again.
            return Err(io::Error::other("interrupted"));
        }
        Ok(())
    }
}

/// Looks up what is to be copied: its path, with links followed as asked, and what the rules need to know.
///
/// # Errors
/// It is not there, or cannot be seen.
pub fn source(path: &str, follow: bool) -> io::Result<(PathBuf, Source)> {
    let contents = asks_for_contents(path);
    let real = if contents || follow || path.ends_with('/') {
        fs::canonicalize(path)?
    } else {
        PathBuf::from(path)
    };
    let source = Source {
        base: base(path),
        is_dir: fs::symlink_metadata(&real)?.is_dir(),
    };
    if (contents || path.ends_with('/')) && !source.is_dir {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok((real, source))
}

/// Packs a file or directory under a name (`.`: what is in the directory), on a thread of its own.
pub fn pack(path: PathBuf, name: String, stop: Stop) -> (Pieces, JoinHandle<io::Result<()>>) {
    produce(stop, move |to| {
        let mut archive = Builder::new(to);
        add(&path, Path::new(&name), &mut archive)?;
        archive.finish()
    })
}

/// What is written on a thread of its own, as pieces.
pub(super) fn produce(
    stop: Stop,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
) -> (Pieces, JoinHandle<io::Result<()>>) {
    let (sender, receiver) = channel(WAITING);
    let producing = tokio::task::spawn_blocking(move || {
        let mut to = Chunks {
            stop,
            sender,
            filled: Vec::with_capacity(CHUNK),
        };
        let done = write(&mut to).and_then(|()| to.flush());
        if done.is_err() {
            let broken = Err(io::ErrorKind::BrokenPipe.into());
            drop(to.sender.blocking_send(broken));
        }
        done
    });
    (receiver, producing)
}

/// Pieces as a request's body.
pub fn body(pieces: Pieces) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::unfold(pieces, |mut pieces| async {
        pieces.recv().await.map(|piece| (piece, pieces))
    })
}

/// Pieces of a stream that somebody else packed (standard input), read on a thread of its own, which this
/// command may leave behind: nothing can call it back from its read.
///
/// # Errors
/// No more threads.
pub fn read(mut from: impl Read + Send + 'static) -> io::Result<Pieces> {
    let (sender, receiver) = channel(WAITING);
    std::thread::Builder::new().spawn(move || {
        let mut buffer = vec![0; CHUNK];
        loop {
            let piece = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => Ok(Bytes::copy_from_slice(
                    buffer.get(..count).unwrap_or_default(),
                )),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let over = piece.is_err();
            if sender.blocking_send(piece).is_err() || over {
                break;
            }
        }
    })?;
    Ok(receiver)
}

/// Unpacks into a directory, on a thread of its own. With `name`, the one thing in the archive (or all of
/// it, where the archive holds the contents of a directory: `contents`) gets that name.
pub fn unpack(
    pieces: Pieces,
    dir: PathBuf,
    name: Option<String>,
    contents: bool,
    stop: Stop,
) -> JoinHandle<io::Result<()>> {
    tokio::task::spawn_blocking(move || {
        let from = Joined {
            stop,
            pieces,
            present: Bytes::new(),
        };
        match name {
            None => into(from, &dir).map(drop),
            Some(name) => under(from, &dir, &name, contents),
        }
    })
}

/// Unpacks everything below a directory; the mode that the archive gives the directory itself.
fn into(from: Joined, dir: &Path) -> io::Result<Option<u32>> {
    let mut archive = Archive::new(from);
    archive.set_overwrite(true);
    let mut directories = Vec::new();
    let mut own = None;
    for entry in archive.entries()? {
        let entry = entry?;
        if entry.header().entry_type() == EntryType::Directory {
            if entry.path()? == Path::new(".") {
                own = Some(entry.header().mode()?);
            }
            // Made last: one that may not be written to would keep its own contents out.
            directories.push(entry);
        } else {
            put(entry, dir)?;
        }
    }
    directories
        .into_iter()
        .rev()
        .try_for_each(|entry| put(entry, dir))?;
    // What follows the end of an archive must not break the sender's pipe.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(own)
}

fn put(mut entry: tar::Entry<'_, Joined>, dir: &Path) -> io::Result<()> {
    if entry.unpack_in(dir)? {
        return Ok(());
    }
    let path = entry.path()?.display().to_string();
    Err(io::Error::other(format!(
        "the archive holds `{path}`, which is outside of the directory it is unpacked in"
    )))
}

/// Unpacks beside its place, then moves it there.
fn under(from: Joined, dir: &Path, name: &str, contents: bool) -> io::Result<()> {
    let aside = Aside::new(dir)?;
    let own = into(from, &aside.0)?;
    let whole = if contents {
        if let Some(mode) = own {
            fs::set_permissions(&aside.0, fs::Permissions::from_mode(mode & 0o777))?;
        }
        aside.0.clone()
    } else {
        let mut entries = fs::read_dir(&aside.0)?;
        let first = entries.next().transpose()?;
        first
            .ok_or_else(|| io::Error::other("the archive is empty"))?
            .path()
    };
    fs::rename(whole, dir.join(name))
}

/// A directory that goes away with this, unless it was moved.
struct Aside(PathBuf);

impl Aside {
    fn new(dir: &Path) -> io::Result<Self> {
        let path = dir.join(format!(".wharf-cp-{}", super::process::run::new_run_id()?));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Adds what is at a path, and all below it.
fn add(path: &Path, name: &Path, archive: &mut Builder<impl Write>) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path).map_err(|error| at(path, &error))?;
    if !metadata.is_dir() {
        return file(path, name, &metadata, archive).map_err(|error| at(path, &error));
    }
    let mut header = header(&metadata, EntryType::Directory);
    archive.append_data(&mut header, name, io::empty())?;
    let mut entries = fs::read_dir(path)
        .and_then(Iterator::collect::<io::Result<Vec<_>>>)
        .map_err(|error| at(path, &error))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    entries
        .into_iter()
        .try_for_each(|entry| add(&entry.path(), &name.join(entry.file_name()), archive))
}

fn file(
    path: &Path,
    name: &Path,
    metadata: &Metadata,
    archive: &mut Builder<impl Write>,
) -> io::Result<()> {
    if metadata.is_symlink() {
        let mut header = header(metadata, EntryType::Symlink);
        return archive.append_link(&mut header, name, fs::read_link(path)?);
    }
    // Sockets, pipes and devices have no content to send.
    if !metadata.is_file() {
        return Ok(());
    }
    let mut header = header(metadata, EntryType::Regular);
    header.set_size(metadata.len());
    // A file that changes its size meanwhile must not shift what follows.
    let mut content = File::open(path)?.take(metadata.len());
    archive.append_data(&mut header, name, &mut content)?;
    if content.limit() > 0 {
        return Err(io::Error::other("it became shorter while it was read"));
    }
    Ok(())
}

fn header(metadata: &Metadata, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_metadata(metadata);
    header.set_entry_type(kind);
    header.set_size(0);
    header
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Collects what the tar writer writes in small pieces.
struct Chunks {
    stop: Stop,
    sender: Sender<io::Result<Bytes>>,
    filled: Vec<u8>,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.filled.extend_from_slice(bytes);
        if self.filled.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.filled.is_empty() {
            return Ok(());
        }
        self.stop.check()?;
        let chunk = std::mem::replace(&mut self.filled, Vec::with_capacity(CHUNK));
        self.sender
            .blocking_send(Ok(chunk.into()))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Pieces as a reader.
struct Joined {
    stop: Stop,
    pieces: Pieces,
    present: Bytes,
}

impl Read for Joined {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stop.check()?;
        while self.present.is_empty() {
            let Some(piece) = self.pieces.blocking_recv() else {
                // The end of a stopped copy is no end of its archive.
                self.stop.check()?;
                return Ok(0);
            };
            self.present = piece?;
        }
        let count = buffer.len().min(self.present.len());
        let bytes = self.present.split_to(count);
        if let Some(place) = buffer.get_mut(..count) {
            place.copy_from_slice(&bytes);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// An archive of entries: name, kind, and content or link.
    fn archive(entries: &[(&str, EntryType, &str)]) -> Pieces {
        let mut builder = Builder::new(Vec::new());
        for (name, kind, text) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(if *kind == EntryType::Directory {
                0o555
            } else {
                0o644
            });
            // Past the library's own care: a hostile archive is not made with it.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            let content = if *kind == EntryType::Regular {
                text.as_bytes()
            } else {
                if *kind != EntryType::Directory {
                    header.set_link_name_literal(text).unwrap();
                }
                b""
            };
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, content).unwrap();
        }
        let (sender, receiver) = channel(1);
        let bytes = builder.into_inner().unwrap();
        sender.try_send(Ok(bytes.into())).unwrap();
        receiver
    }

    #[tokio::test]
    async fn nothing_is_unpacked_outside() {
        let root = tempfile::tempdir().unwrap();
        let inside = root.path().join("inside");
        fs::create_dir(&inside).unwrap();
        let regular = EntryType::Regular;
        for entries in [
            &[("../out", regular, "x")][..],
            &[("a/../../out", regular, "x")],
            &[
                ("link", EntryType::Symlink, ".."),
                ("link/out", regular, "x"),
            ],
            &[("hard", EntryType::Link, "../secret")],
        ] {
            fs::write(root.path().join("secret"), "s").unwrap();
            let done = unpack(
                archive(entries),
                inside.clone(),
                None,
                false,
                Stop::default(),
            )
            .await;
            assert!(done.unwrap().is_err(), "{entries:?}");
            assert!(!root.path().join("out").exists(), "{entries:?}");
        }
        // An absolute path is one below the directory.
        let entries = [("/etc/wharf-test-out", regular, "x")];
        let done = unpack(
            archive(&entries),
            inside.clone(),
            None,
            false,
            Stop::default(),
        )
        .await;
        done.unwrap().unwrap();
        assert!(inside.join("etc/wharf-test-out").exists());
        assert!(!Path::new("/etc/wharf-test-out").exists());
    }

    #[tokio::test]
    async fn a_directory_that_may_not_be_written_to_is_filled_first() {
        let root = tempfile::tempdir().unwrap();
        let entries = [
            ("d/", EntryType::Directory, ""),
            ("d/f", EntryType::Regular, "x"),
        ];
        let done = unpack(
            archive(&entries),
            root.path().to_owned(),
            Some("other".to_owned()),
            false,
            Stop::default(),
        );
        done.await.unwrap().unwrap();
        let other = root.path().join("other");
        assert_eq!(fs::read_to_string(other.join("f")).unwrap(), "x");
        let mode = fs::metadata(&other).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o555);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "no remains");
        fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[tokio::test]
    async fn what_was_packed_comes_out_again() {
        let root = tempfile::tempdir().unwrap();
        let from = root.path().join("from");
        fs::create_dir_all(from.join("sub")).unwrap();
        let deep = format!("{}/{}", "d".repeat(90), "f".repeat(120));
        fs::create_dir(from.join("d".repeat(90))).unwrap();
        fs::write(from.join(&deep), vec![7; 3 * CHUNK + 1]).unwrap();
        symlink("sub/nowhere", from.join("link")).unwrap();
        for (name, place) in [("copy", "copy"), (".", "")] {
            let to = root.path().join(format!("to-{place}"));
            fs::create_dir(&to).unwrap();
            let (pieces, packing) = pack(from.clone(), name.to_owned(), Stop::default());
            unpack(pieces, to.clone(), None, false, Stop::default())
                .await
                .unwrap()
                .unwrap();
            packing.await.unwrap().unwrap();
            let to = to.join(place);
            assert_eq!(fs::read(to.join(&deep)).unwrap().len(), 3 * CHUNK + 1);
            let link = fs::read_link(to.join("link")).unwrap();
            assert_eq!(link, Path::new("sub/nowhere"));
            assert!(to.join("sub").is_dir());
        }
    }

    #[tokio::test]
    async fn what_is_stopped_leaves_nothing_half_done() {
        let root = tempfile::tempdir().unwrap();
        let stop = Stop::default();
        let (sender, pieces) = channel(1);
        let name = Some("copy".to_owned());
        let unpacking = unpack(pieces, root.path().to_owned(), name, false, stop.clone());
        let mut whole = archive(&[("d/f", EntryType::Regular, "x")]);
        sender.send(whole.recv().await.unwrap()).await.unwrap();
        stop.now();
        drop(sender);
        // Either it was done before it was told, or there is no trace of it.
        let done = unpacking.await.unwrap().is_ok();
        let left = fs::read_dir(root.path()).unwrap().count();
        assert_eq!(left, usize::from(done));
    }
}
