//! `wharf cp`

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use tokio::task::JoinHandle;

use crate::backend::container::{Download, PathStat};
use crate::backend::copying::{self, Misplaced, Place, Source};
use crate::backend::parcel::{self, Pieces, Stop};
use crate::backend::router::Backends;
use crate::cli::context::Context;
use crate::cli::replica::replica;
use crate::cli::signals::Signals;
use crate::error::{Error, Result};
use crate::event::Stream;
use crate::project::shell;
use crate::state::{BackendKind, Instance};
use crate::ui::terminal::Screen;
use crate::ui::{GOOD, NAME};

/// Standard input or output in place of a path.
const STANDARD: &str = "-";

/// Copy files between a service and this machine; `-` is a tar stream on standard input or output
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// To and from instances made by `run` too
    #[arg(long)]
    all: bool,
    /// Keep user and group ids
    #[arg(short, long)]
    archive: bool,
    /// Copy what a symbolic link leads to
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Which replica, where there are several [default: the first to copy from, all to copy to]
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 0,
        hide_default_value = true,
        allow_negative_numbers = true,
        value_parser = replica
    )]
    index: u32,
    /// SERVICE:PATH, PATH or -
    #[arg(value_name = "FROM")]
    from: String,
    /// SERVICE:PATH, PATH or -
    #[arg(value_name = "TO")]
    to: String,
}

/// A service and a path in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Remote<'a> {
    service: &'a str,
    path: &'a str,
}

/// Where files are.
enum Side<'a> {
    /// On this machine; relative paths start here.
    Local(PathBuf),
    /// In a container.
    Container(&'a Instance),
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let hint = "wharf cp SERVICE:PATH PATH, or wharf cp PATH SERVICE:PATH";
    let (remote, out) = match (remote(&args.from), remote(&args.to)) {
        (Some(from), None) => (from, true),
        (None, Some(to)) => (to, false),
        (Some(_), Some(_)) => {
            return Err(Error::usage("files are not copied from service to service").hint(hint));
        }
        (None, None) => {
            return Err(Error::usage("neither path is one of a service").hint(hint));
        }
    };
    let named = context.name_or_project()?;
    let backends = context.backends()?;
    let services = [remote.service.to_owned()];
    let sight = named.sight(context.ui, &backends, &services).await?;
    let instances = sight.instances;
    named.check_services(&services, &instances)?;
    let mut chosen: Vec<&Instance> = instances
        .iter()
        .filter(|instance| instance.service == remote.service)
        .filter(|instance| {
            if args.index > 0 {
                !instance.one_off && instance.number == args.index
            } else {
                args.all || !instance.one_off
            }
        })
        .collect();
    chosen.sort_by_key(|instance| (instance.one_off, instance.number));
    if out {
        chosen.truncate(1);
    }
    if chosen.is_empty() {
        let which = if args.index > 0 {
            format!(" replica {}", args.index)
        } else {
            " instance".to_owned()
        };
        return Err(
            Error::failed(format!("service `{}` has no{which}", remote.service))
                .hint(format!("wharf up -d {}", remote.service)),
        );
    }
    if !out && args.from == STANDARD && chosen.len() > 1 {
        return Err(
            Error::usage("standard input can be read for one replica only").hint("--index 1"),
        );
    }
    let here = Side::Local(context.env.current_dir.clone());
    let mut signals = Signals::new()?;
    for instance in chosen {
        let there = side(&backends, instance)?;
        let stop = Stop::default();
        let work = Work {
            backends: &backends,
            args,
            stop: stop.clone(),
        };
        let copied = async {
            if out {
                work.copy(&there, remote.path, &here, &args.to).await
            } else {
                work.copy(&here, &args.from, &there, remote.path).await
            }
        };
        // Not dropped before the threads are told, or they would take it for the end of the files.
        let mut copied = std::pin::pin!(copied);
        tokio::select! {
            copied = &mut copied => copied?,
            () = signals.next() => {
                // The threads put away what they have begun; the runtime waits for them.
                stop.now();
                return Err(Error::interrupted());
            }
        }
        let name = &instance.name;
        let (from, to) = if out {
            (format!("{name}:{}", remote.path), args.to.clone())
        } else {
            (args.from.clone(), format!("{name}:{}", remote.path))
        };
        context.ui.status(format!(
            " {GOOD}✔{GOOD:#} copied {NAME}{from}{NAME:#} to {NAME}{to}{NAME:#}"
        ));
    }
    Ok(())
}

/// Reads SERVICE:PATH. A path that begins with `/` or `.` is one of this machine, whatever follows.
fn remote(text: &str) -> Option<Remote<'_>> {
    if text.starts_with('/') {
        return None;
    }
    let (service, path) = text.split_once(':')?;
    (!service.starts_with('.')).then_some(Remote { service, path })
}

fn side<'a>(backends: &Backends, instance: &'a Instance) -> Result<Side<'a>> {
    Ok(match instance.backend {
        BackendKind::Container => Side::Container(instance),
        BackendKind::Process => Side::Local(
            backends
                .processes
                .working_dir(&instance.project, &instance.name)?,
        ),
    })
}

/// What is to be copied, looked up and under way.
struct Parcel {
    source: Source,
    /// The name that an archive of it has for it; a link that was followed has another one.
    held: String,
    content: Content,
}

enum Content {
    /// A file or directory of this machine, not yet packed.
    Files(PathBuf),
    /// An archive that a container's engine sends.
    Download(Download),
    /// An archive on standard input.
    Stdin,
}

/// An archive on its way, and the thread that packs it.
type Packed = (Pieces, Option<JoinHandle<io::Result<()>>>);

struct Work<'a> {
    backends: &'a Backends,
    args: &'a Args,
    stop: Stop,
}

impl Work<'_> {
    async fn copy(&self, from: &Side<'_>, what: &str, to: &Side<'_>, place: &str) -> Result<()> {
        let parcel = self.take(from, what).await?;
        if place == STANDARD {
            return self.show(parcel).await;
        }
        let (path, found) = self.destination(to, place).await?;
        if matches!(parcel.content, Content::Stdin) && found != Some(true) {
            return Err(Error::failed(format!("{place} is not a directory"))
                .hint("an archive is unpacked into a directory that is there"));
        }
        let placed = copying::place(&parcel.source, &path, found).map_err(|error| {
            let hint = match error {
                Misplaced::NoDirectory => format!("make {place} first, or leave the `/` out"),
                Misplaced::OntoFile => format!("copy what is in it: {what}/."),
            };
            Error::failed(error)
                .detail(format!("{what} to {place}"))
                .hint(hint)
        })?;
        self.put(parcel, to, placed).await
    }

    async fn take(&self, from: &Side<'_>, path: &str) -> Result<Parcel> {
        match from {
            Side::Local(_) if path == STANDARD => Ok(Parcel {
                source: Source {
                    base: ".".to_owned(),
                    is_dir: true,
                },
                held: ".".to_owned(),
                content: Content::Stdin,
            }),
            Side::Local(base) => {
                let path = local(base, path);
                let (real, source) =
                    parcel::source(&path, self.args.follow_link).map_err(|error| {
                        Error::failed(format!("cannot read {path}")).detail(error.to_string())
                    })?;
                Ok(Parcel {
                    held: source.base.clone(),
                    source,
                    content: Content::Files(real),
                })
            }
            Side::Container(instance) => self.request(instance, path).await,
        }
    }

    async fn request(&self, instance: &Instance, path: &str) -> Result<Parcel> {
        let containers = &self.backends.containers;
        let (id, name) = (&instance.id.0, &instance.name);
        let base = copying::base(path);
        let mut path = path.to_owned();
        if self.args.follow_link
            && let Some(stat) = containers.stat_path(id, name, &path).await?
            && let Some(target) = stat.link()
        {
            path = copying::follow(&path, target);
        }
        let (stat, download) = containers.read_archive(id, name, &path).await?;
        Ok(Parcel {
            source: Source {
                base,
                is_dir: stat.is_dir(),
            },
            held: copying::base(&path),
            content: Content::Download(download),
        })
    }

    /// The destination with links followed, and whether it is a directory.
    async fn destination(&self, to: &Side<'_>, path: &str) -> Result<(String, Option<bool>)> {
        let special =
            |path: &str| Error::failed(format!("{path} is neither a file nor a directory"));
        match to {
            Side::Local(base) => {
                let path = local(base, path);
                let Ok(found) = fs::metadata(&path) else {
                    let (dir, _) = copying::split(&path);
                    if !Path::new(&dir).is_dir() {
                        return Err(Error::failed(format!("there is no directory {dir}"))
                            .hint(format!("mkdir -p {}", shell::word(Path::new(&dir)))));
                    }
                    return Ok((path, None));
                };
                if !found.is_dir() && !found.is_file() {
                    return Err(special(&path));
                }
                let real = fs::canonicalize(&path).map_err(Error::failed)?;
                let real = real.to_string_lossy().into_owned();
                Ok((real, Some(found.is_dir())))
            }
            Side::Container(instance) => {
                let containers = &self.backends.containers;
                let (id, name) = (&instance.id.0, &instance.name);
                let mut path = path.to_owned();
                let mut stat = containers.stat_path(id, name, &path).await?;
                if let Some(target) = stat.as_ref().and_then(PathStat::link) {
                    path = copying::follow(&path, target);
                    stat = containers.stat_path(id, name, &path).await?;
                }
                if stat.as_ref().is_some_and(PathStat::is_special) {
                    return Err(special(&path));
                }
                Ok((path, stat.map(|stat| stat.is_dir())))
            }
        }
    }

    async fn put(&self, parcel: Parcel, to: &Side<'_>, place: Place) -> Result<()> {
        let Parcel { held, content, .. } = parcel;
        let broken =
            |error: io::Error| Error::failed("the copy is not complete").detail(error.to_string());
        let contents = held == ".";
        let renamed = (place.name != held).then(|| place.name.clone());
        match to {
            Side::Container(instance) => {
                let (pieces, packing) = self.packed(content, &place.name)?;
                let sent = self.backends.containers.write_archive(
                    &instance.id.0,
                    &instance.name,
                    &place.dir,
                    pieces,
                    self.args.archive,
                );
                let sent = sent.await;
                // A file that cannot be read explains a request that broke off.
                if let Some(packing) = packing {
                    let packed = packing.await.map_err(Error::failed)?;
                    if let Err(error) = packed
                        && error.kind() != io::ErrorKind::BrokenPipe
                    {
                        return Err(broken(error));
                    }
                }
                Ok(sent?)
            }
            Side::Local(_) => {
                let dir = PathBuf::from(&place.dir);
                if let Content::Download(mut download) = content {
                    let (sender, pieces) = tokio::sync::mpsc::channel(1);
                    let unpacking =
                        parcel::unpack(pieces, dir, renamed, contents, self.stop.clone());
                    while let Some(piece) = download.next().await.transpose() {
                        if sender.send(piece).await.is_err() {
                            break;
                        }
                    }
                    drop(sender);
                    return unpacking.await.map_err(Error::failed)?.map_err(broken);
                }
                if let Content::Files(source) = &content
                    && dir.canonicalize().is_ok_and(|dir| dir.starts_with(source))
                    && source.is_dir()
                {
                    return Err(Error::failed("a directory cannot be copied into itself")
                        .detail(format!("{} to {}", source.display(), dir.display())));
                }
                let (pieces, packing) = self.packed(content, &place.name)?;
                let unpacking = parcel::unpack(pieces, dir, None, contents, self.stop.clone());
                let unpacked = unpacking.await.map_err(Error::failed)?;
                if let Some(packing) = packing
                    && let Err(error) = packing.await.map_err(Error::failed)?
                    && error.kind() != io::ErrorKind::BrokenPipe
                {
                    return Err(broken(error));
                }
                unpacked.map_err(broken)
            }
        }
    }

    /// Writes the archive to standard output.
    async fn show(&self, parcel: Parcel) -> Result<()> {
        let screen = Screen::open().map_err(Error::failed)?;
        let cannot = |error: io::Error| {
            Error::failed("cannot copy to standard output").detail(error.to_string())
        };
        match parcel.content {
            Content::Download(mut download) => {
                while let Some(piece) = download.next().await.map_err(cannot)? {
                    if !screen.write(Stream::Stdout, piece.to_vec()).await {
                        break;
                    }
                }
            }
            content @ (Content::Files(_) | Content::Stdin) => {
                let (mut pieces, packing) = self.packed(content, &parcel.held)?;
                while let Some(Ok(piece)) = pieces.recv().await {
                    if !screen.write(Stream::Stdout, piece.to_vec()).await {
                        break;
                    }
                }
                drop(pieces);
                if let Some(packing) = packing
                    && let Err(error) = packing.await.map_err(Error::failed)?
                    && error.kind() != io::ErrorKind::BrokenPipe
                {
                    return Err(cannot(error));
                }
            }
        }
        screen.close().await.map_err(cannot)
    }

    /// What is on this machine, as an archive.
    fn packed(&self, content: Content, name: &str) -> Result<Packed> {
        match content {
            Content::Files(path) => {
                let (pieces, packing) = parcel::pack(path, name.to_owned(), self.stop.clone());
                Ok((pieces, Some(packing)))
            }
            Content::Stdin => {
                let stdin = io::stdin().as_fd().try_clone_to_owned();
                let stdin = File::from(stdin.map_err(Error::failed)?);
                Ok((parcel::read(stdin).map_err(Error::failed)?, None))
            }
            Content::Download(_) => Err(Error::failed(
                "files are not copied from service to service",
            )),
        }
    }
}

/// An absolute path that still says what its end says: `/` and `/.`.
fn local(base: &Path, path: &str) -> String {
    let joined = base.join(path).to_string_lossy().into_owned();
    let clean = copying::clean(&joined);
    if copying::asks_for_contents(path) {
        format!("{clean}/.")
    } else if path.ends_with('/') && clean != "/" {
        format!("{clean}/")
    } else {
        clean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_told_from_a_path() {
        let is = |text| remote(text).map(|remote| (remote.service, remote.path));
        assert_eq!(is("web:/a"), Some(("web", "/a")));
        assert_eq!(is("web:a:b"), Some(("web", "a:b")));
        for here in ["/a:b", "./a:b", "../a:b", "a", "-"] {
            assert_eq!(is(here), None, "{here}");
        }
    }

    #[test]
    fn a_local_path_keeps_its_end() {
        let base = Path::new("/here");
        assert_eq!(local(base, "a"), "/here/a");
        assert_eq!(local(base, "a/"), "/here/a/");
        assert_eq!(local(base, "a/."), "/here/a/.");
        assert_eq!(local(base, "."), "/here/.");
        assert_eq!(local(base, "../b"), "/b");
        assert_eq!(local(base, "/"), "/");
    }
}
