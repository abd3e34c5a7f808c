//! Files of this machine as a tar stream, and back. What is unpacked stays inside its directory, whatever
//! an archive says.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

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
pub fn pack(path: PathBuf, name: String) -> (Pieces, JoinHandle<io::Result<()>>) {
    let (sender, receiver) = channel(WAITING);
    let packing = tokio::task::spawn_blocking(move || {
        let mut to = Chunks {
            sender,
            filled: Vec::with_capacity(CHUNK),
        };
        let mut archive = Builder::new(&mut to);
        let done = add(&path, Path::new(&name), &mut archive).and_then(|()| archive.finish());
        drop(archive);
        let done = done.and_then(|()| to.flush());
        if done.is_err() {
            let broken = Err(io::ErrorKind::BrokenPipe.into());
            drop(to.sender.blocking_send(broken));
        }
        done
    });
    (receiver, packing)
}

/// Pieces as a request's body.
pub fn body(pieces: Pieces) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::unfold(pieces, |mut pieces| async {
        pieces.recv().await.map(|piece| (piece, pieces))
    })
}

/// Pieces of a stream that somebody else packed (standard input), read on a thread of its own.
pub fn read(mut from: impl Read + Send + 'static) -> Pieces {
    let (sender, receiver) = channel(WAITING);
    tokio::task::spawn_blocking(move || {
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
    });
    receiver
}

/// Unpacks into a directory, on a thread of its own. With `name`, the one thing in the archive (or all of
/// it, where the archive holds the contents of a directory: `contents`) gets that name.
pub fn unpack(
    pieces: Pieces,
    dir: PathBuf,
    name: Option<String>,
    contents: bool,
) -> JoinHandle<io::Result<()>> {
    tokio::task::spawn_blocking(move || {
        let from = Joined {
            pieces,
            present: Bytes::new(),
        };
        match name {
            None => into(from, &dir),
            Some(name) => under(from, &dir, &name, contents),
        }
    })
}

/// Unpacks everything below a directory.
fn into(from: Joined, dir: &Path) -> io::Result<()> {
    let mut archive = Archive::new(from);
    archive.set_overwrite(true);
    let mut directories = Vec::new();
    for entry in archive.entries()? {
        let entry = entry?;
        if entry.header().entry_type() == EntryType::Directory {
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
    io::copy(&mut archive.into_inner(), &mut io::sink()).map(drop)
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
    into(from, &aside.0)?;
    let whole = if contents {
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
        let chunk = std::mem::replace(&mut self.filled, Vec::with_capacity(CHUNK));
        self.sender
            .blocking_send(Ok(chunk.into()))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Pieces as a reader.
struct Joined {
    pieces: Pieces,
    present: Bytes,
}

impl Read for Joined {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.present.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.present = piece?,
                None => return Ok(0),
            }
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
    use std::os::unix::fs::{PermissionsExt as _, symlink};

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
            let done = unpack(archive(entries), inside.clone(), None, false).await;
            assert!(done.unwrap().is_err(), "{entries:?}");
            assert!(!root.path().join("out").exists(), "{entries:?}");
        }
        // An absolute path is one below the directory.
        let entries = [("/etc/wharf-test-out", regular, "x")];
        let done = unpack(archive(&entries), inside.clone(), None, false).await;
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
            let (pieces, packing) = pack(from.clone(), name.to_owned());
            unpack(pieces, to.clone(), None, false)
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
}
