//! Where copied files go: the rules of `docker cp`, which are those of cp(1) with a trailing `/` or `/.`
//! meaning more. Pure: paths are text, and what is there was looked up before.

/// What a copy starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its last name; `.` where only what is in the directory is meant.
    pub base: String,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// Where the copy is put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// A directory that is there.
    pub dir: String,
    /// Its name in it.
    pub name: String,
}

/// Why there is no place for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misplaced {
    /// `to/` and `to/.` are directories, and this one is not there.
    #[error("there is no such directory")]
    NoDirectory,
    /// A directory cannot take a file's place.
    #[error("a directory cannot be copied onto a file")]
    OntoFile,
}

/// Places a copy. `found` is whether the destination is a directory, where there is one.
///
/// # Errors
/// There is no place for it.
pub fn place(source: &Source, destination: &str, found: Option<bool>) -> Result<Place, Misplaced> {
    let (dir, name) = split(destination);
    match found {
        Some(true) => Ok(Place {
            dir: destination.to_owned(),
            name: source.base.clone(),
        }),
        Some(false) if source.is_dir => Err(Misplaced::OntoFile),
        None if !source.is_dir && asserts_directory(destination) => Err(Misplaced::NoDirectory),
        Some(false) | None => Ok(Place { dir, name }),
    }
}

/// Whether a path says that it is a directory.
pub fn asserts_directory(path: &str) -> bool {
    path.ends_with('/') || asks_for_contents(path)
}

/// Whether a path ends in `.`: what is in the directory is meant, not the directory.
pub fn asks_for_contents(path: &str) -> bool {
    path == "." || path.ends_with("/.")
}

/// A path's directory and its last name, without anything superfluous.
pub fn split(path: &str) -> (String, String) {
    let clean = clean(path);
    match clean.rsplit_once('/') {
        Some(("", "")) => ("/".to_owned(), ".".to_owned()),
        Some(("", name)) => ("/".to_owned(), name.to_owned()),
        Some((dir, name)) => (dir.to_owned(), name.to_owned()),
        None => (".".to_owned(), clean),
    }
}

/// The last name of a source: `.` where its contents are meant.
pub fn base(path: &str) -> String {
    if asks_for_contents(path) {
        return ".".to_owned();
    }
    split(path).1
}

/// A path without empty parts, `.` and (by text alone) `..`.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if path.starts_with('/') => {}
            part => parts.push(part),
        }
    }
    let clean = parts.join("/");
    if path.starts_with('/') {
        format!("/{clean}")
    } else if clean.is_empty() {
        ".".to_owned()
    } else {
        clean
    }
}

/// Where a symbolic link at `path` leads.
pub fn follow(path: &str, target: &str) -> String {
    if target.starts_with('/') {
        return target.to_owned();
    }
    clean(&format!("{}/{target}", split(path).0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(
        source: &str,
        is_dir: bool,
        to: &str,
        found: Option<bool>,
    ) -> Result<(String, String), Misplaced> {
        let source = Source {
            base: base(source),
            is_dir,
        };
        place(&source, to, found).map(|place| (place.dir, place.name))
    }

    #[test]
    fn a_copy_goes_where_docker_cp_puts_it() {
        let at = |dir: &str, name: &str| Ok((dir.to_owned(), name.to_owned()));
        // A file.
        assert_eq!(placed("/a/f", false, "/d", Some(true)), at("/d", "f"));
        assert_eq!(placed("/a/f", false, "/d/g", Some(false)), at("/d", "g"));
        assert_eq!(placed("/a/f", false, "/d/g", None), at("/d", "g"));
        assert_eq!(placed("/a/f", false, "g", None), at(".", "g"));
        assert_eq!(
            placed("/a/f", false, "/d/g/", None),
            Err(Misplaced::NoDirectory)
        );
        // A directory.
        assert_eq!(placed("/a/s", true, "/d", Some(true)), at("/d", "s"));
        assert_eq!(placed("/a/s/", true, "/d", Some(true)), at("/d", "s"));
        assert_eq!(placed("/a/s/.", true, "/d", Some(true)), at("/d", "."));
        assert_eq!(placed("/a/s", true, "/d/n", None), at("/d", "n"));
        assert_eq!(placed("/a/s", true, "/d/n/", None), at("/d", "n"));
        assert_eq!(placed("/a/s/.", true, "/d/n", None), at("/d", "n"));
        assert_eq!(
            placed("/a/s", true, "/d/f", Some(false)),
            Err(Misplaced::OntoFile)
        );
    }

    #[test]
    fn paths_lose_what_is_superfluous() {
        for (path, expected) in [
            ("/a//b/./c/", "/a/b/c"),
            ("/../a", "/a"),
            ("a/../..", ".."),
            ("", "."),
            ("/", "/"),
        ] {
            assert_eq!(clean(path), expected, "{path}");
        }
        assert_eq!(split("/"), ("/".to_owned(), ".".to_owned()));
        assert_eq!(follow("/a/link", "../b"), "/b");
        assert_eq!(follow("/a/link", "/c"), "/c");
    }
}
