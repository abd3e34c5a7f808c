//! A build's files as the tar stream that `POST /build` takes.
//!
//! Walks the context directory and reads files, on a thread of its own; decides nothing about the
//! build. Entries are sorted and owned by root, so that equal files make equal streams.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use futures_util::Stream;
use hyper::body::Bytes;
use tar::{Builder, EntryType, Header};
use tokio::task::JoinHandle;

use super::ignore::Ignore;
use crate::backend::parcel::{self, Stop};

/// What to send.
#[derive(Debug)]
pub(super) struct Context {
    /// The directory; `None` for a build whose files the engine fetches itself.
    pub root: PathBuf,
    /// What to leave out.
    pub ignore: Ignore,
    /// Files that are not in the directory: path in the stream and content.
    pub extra: Vec<(String, Vec<u8>)>,
}

/// The stream, and the thread that fills it; the latter knows the reason if the stream breaks off.
pub(super) fn stream(
    context: Context,
) -> (
    impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    JoinHandle<io::Result<()>>,
) {
    let (pieces, walk) = parcel::produce(Stop::default(), move |mut to| write(&context, &mut to));
    (parcel::body(pieces), walk)
}

fn write(context: &Context, to: &mut impl Write) -> io::Result<()> {
    let mut archive = Builder::new(to);
    for (path, content) in &context.extra {
        let mut header = header(EntryType::Regular, 0o600, 0);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, path, content.as_slice())?;
    }
    directory(context, Path::new(""), "", &mut archive)?;
    archive.finish()
}

/// Adds what is in a directory; `name` is its path as patterns see it.
fn directory(
    context: &Context,
    relative: &Path,
    name: &str,
    archive: &mut Builder<impl Write>,
) -> io::Result<()> {
    let place = context.root.join(relative);
    let mut entries = fs::read_dir(&place)
        .and_then(Iterator::collect::<io::Result<Vec<_>>>)
        .map_err(|error| at(&place, &error))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let relative = relative.join(entry.file_name());
        let file_name = entry.file_name();
        let own = file_name.to_string_lossy();
        let name = if name.is_empty() {
            own.into_owned()
        } else {
            format!("{name}/{own}")
        };
        let path = entry.path();
        let metadata = fs::symlink_metadata(&path).map_err(|error| at(&path, &error))?;
        let excluded = context.ignore.excludes(&name);
        if metadata.is_dir() {
            if !excluded {
                let mut header = header(EntryType::Directory, metadata.mode(), metadata.mtime());
                archive.append_data(&mut header, format!("{name}/"), io::empty())?;
            }
            if !excluded || context.ignore.reaches_into(&name) {
                directory(context, &relative, &name, archive)?;
            }
        } else if !excluded {
            file(&path, &relative, &metadata, archive).map_err(|error| at(&path, &error))?;
        }
    }
    Ok(())
}

fn file(
    path: &Path,
    relative: &Path,
    metadata: &fs::Metadata,
    archive: &mut Builder<impl Write>,
) -> io::Result<()> {
    if metadata.is_symlink() {
        let mut header = header(EntryType::Symlink, metadata.mode(), metadata.mtime());
        return archive.append_link(&mut header, relative, fs::read_link(path)?);
    }
    // Sockets, pipes and devices have no content to send.
    if !metadata.is_file() {
        return Ok(());
    }
    let mut header = header(EntryType::Regular, metadata.mode(), metadata.mtime());
    header.set_size(metadata.len());
    let content = Whole {
        file: File::open(path)?,
        left: metadata.len(),
    };
    archive.append_data(&mut header, relative, content)
}

fn header(kind: EntryType, mode: u32, mtime: i64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode & 0o7777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(u64::try_from(mtime).unwrap_or(0));
    header.set_size(0);
    header
}

/// Exactly the bytes that the header promised: a file that shrinks meanwhile must not shift the rest.
struct Whole {
    file: File,
    left: u64,
}

impl Read for Whole {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = self.file.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::Error::other("the file changed while it was read"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use futures_util::TryStreamExt;

    use super::*;

    /// Path and content of every entry; directories end in a slash.
    async fn entries(context: Context) -> BTreeMap<String, String> {
        let (stream, walk) = stream(context);
        let bytes: Vec<u8> = stream
            .try_fold(Vec::new(), |mut all, chunk| async move {
                all.extend_from_slice(&chunk);
                Ok(all)
            })
            .await
            .unwrap();
        walk.await.unwrap().unwrap();
        tar::Archive::new(bytes.as_slice())
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                assert_eq!(entry.header().uid().unwrap(), 0);
                let path = entry.path().unwrap().display().to_string();
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap();
                if let Some(link) = entry.link_name().unwrap() {
                    text = format!("-> {}", link.display());
                }
                (path, text)
            })
            .collect()
    }

    #[tokio::test]
    async fn the_stream_holds_what_is_not_ignored() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("Dockerfile", "FROM scratch");
        put("src/main.rs", "fn main() {}");
        put("out/big", "x");
        put("out/keep/this", "y");
        put(
            &format!("deep/{}/{}", "d".repeat(90), "f".repeat(120)),
            "long",
        );
        std::os::unix::fs::symlink("src/main.rs", root.path().join("link")).unwrap();
        let found = entries(Context {
            root: root.path().to_owned(),
            ignore: Ignore::parse("out\n!out/keep").unwrap(),
            extra: vec![(".dockerfile.x".to_owned(), b"FROM other".to_vec())],
        })
        .await;
        assert_eq!(found["src/main.rs"], "fn main() {}");
        assert_eq!(found["link"], "-> src/main.rs");
        assert_eq!(found[".dockerfile.x"], "FROM other");
        assert_eq!(found["out/keep/this"], "y");
        assert!(found.contains_key("src/"));
        assert!(!found.contains_key("out/big"));
        assert!(found.values().any(|text| text == "long"));
    }

    #[tokio::test]
    async fn an_unreadable_context_is_named() {
        let (stream, walk) = stream(Context {
            root: PathBuf::from("/nonexistent/context"),
            ignore: Ignore::default(),
            extra: Vec::new(),
        });
        assert!(stream.try_collect::<Vec<_>>().await.is_err());
        let error = walk.await.unwrap().unwrap_err();
        assert!(
            error.to_string().contains("/nonexistent/context"),
            "{error}"
        );
    }
}
