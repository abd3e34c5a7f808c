//! Relative paths → absolute ones, against the project's directory or that of an included file.
//!
//! One table says which values are paths. Text only; the disk is not touched.

use std::path::Path;
use std::sync::OnceLock;

use super::canonical::clean;
use super::tree::{Node, Table, Value};

/// What kind of path stands at some place.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// A path of this machine.
    Plain,
    /// The same; a Windows path stays.
    Portable,
    /// A build context: may be a URL, a Git reference or a service.
    Context,
    /// The file of `extends`.
    Extends,
    /// A mount: its source, when it is a bind.
    Mount,
    /// A volume: the device of a local bind.
    Volume,
}

fn kinds() -> &'static Table<Kind> {
    static TABLE: OnceLock<Table<Kind>> = OnceLock::new();
    TABLE.get_or_init(|| {
        Table::new(&[
            ("configs.*.file", Kind::Portable),
            ("secrets.*.file", Kind::Portable),
            ("services.*.build.additional_contexts.*", Kind::Context),
            ("services.*.build.context", Kind::Context),
            ("services.*.build.ssh.*", Kind::Portable),
            ("services.*.develop.watch.*.path", Kind::Plain),
            ("services.*.env_file.*.path", Kind::Plain),
            ("services.*.extends.file", Kind::Extends),
            ("services.*.label_file.*", Kind::Plain),
            ("services.*.volumes.*", Kind::Mount),
            ("volumes.*", Kind::Volume),
        ])
    })
}

/// Where paths start from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Base<'a> {
    /// The directory; relative for a file that another one includes or extends.
    pub(crate) directory: &'a Path,
    /// What `~` stands for.
    pub(crate) home: Option<&'a str>,
}

/// Resolves every path of a tree.
pub(crate) fn resolve(node: &mut Node, base: Base<'_>) {
    walk(node, kinds(), base);
}

fn walk(node: &mut Node, table: &Table<Kind>, base: Base<'_>) {
    if let Some(kind) = table.here {
        apply(node, kind, base);
        return;
    }
    match &mut node.value {
        Value::Map(map) => {
            for (key, child) in map {
                if let Some(below) = table.key(key) {
                    walk(child, below, base);
                }
            }
        }
        Value::List(list) => {
            if let Some(below) = table.item() {
                for child in list {
                    walk(child, below, base);
                }
            }
        }
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Large(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Date(_) => {}
    }
}

fn apply(node: &mut Node, kind: Kind, base: Base<'_>) {
    match kind {
        Kind::Plain => change(node, |path| absolute(path, base)),
        Kind::Portable => change(node, |path| portable(path, base)),
        Kind::Context => change(node, |path| {
            if is_remote(path) || path.starts_with("service:") {
                path.to_owned()
            } else {
                absolute(path, base)
            }
        }),
        Kind::Extends => change(node, |path| {
            if is_remote(path) {
                path.to_owned()
            } else {
                absolute(path, base)
            }
        }),
        Kind::Mount => {
            if node.text("type") == Some("bind")
                && let Some(source) = node.as_map_mut().and_then(|map| map.get_mut("source"))
            {
                change(source, |path| portable(path, base));
            }
        }
        Kind::Volume => {
            let local = node.text("driver") == Some("local");
            let options = node.as_map_mut().and_then(|map| map.get_mut("driver_opts"));
            if let Some(options) = options
                && local
                && options.text("o") == Some("bind")
                && let Some(device) = options.as_map_mut().and_then(|map| map.get_mut("device"))
            {
                change(device, |path| portable(path, base));
            }
        }
    }
}

fn change(node: &mut Node, with: impl Fn(&str) -> String) {
    if let Value::Text(text) = &mut node.value {
        *text = with(text);
    }
}

/// Whether a context is fetched rather than read: a URL or a Git reference.
pub(crate) fn is_remote(path: &str) -> bool {
    path.contains("://")
        || path.starts_with("github.com/")
        || path.starts_with("git@")
        || path.starts_with("oci:")
}

/// `~` and `~/x` with the home directory.
fn expand_home(path: &str, home: Option<&str>) -> String {
    match (path.strip_prefix('~'), home) {
        (Some(rest), Some(home)) => join(home, rest.trim_start_matches('/')),
        _ => path.to_owned(),
    }
}

pub(crate) fn absolute(path: &str, base: Base<'_>) -> String {
    let path = expand_home(path, base.home);
    if path.is_empty() || path.starts_with('/') {
        return path;
    }
    join(&base.directory.to_string_lossy(), &path)
}

fn portable(path: &str, base: Base<'_>) -> String {
    let path = expand_home(path, base.home);
    if path.starts_with('/') || is_windows(&path) {
        return path;
    }
    join(&base.directory.to_string_lossy(), &path)
}

/// `c:\x`, `c:/x` or `\\x`.
fn is_windows(path: &str) -> bool {
    let mut chars = path.chars();
    path.starts_with("\\\\")
        || matches!(
            (chars.next(), chars.next(), chars.next()),
            (Some(drive), Some(':'), Some('\\' | '/')) if drive.is_ascii_alphabetic()
        )
}

/// Two parts of a path as one, cleaned.
pub(crate) fn join(directory: &str, path: &str) -> String {
    if directory.is_empty() {
        clean(path)
    } else {
        clean(&format!("{directory}/{path}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_resolved_by_kind() {
        let base = Base {
            directory: Path::new("/p"),
            home: Some("/home/u"),
        };
        for (path, expected) in [
            ("./x", "/p/x"),
            ("../x", "/x"),
            ("~/x", "/home/u/x"),
            ("~", "/home/u"),
            ("/x/../y", "/x/../y"),
            ("c:\\x", "c:\\x"),
            ("", "/p"),
        ] {
            assert_eq!(portable(path, base), expected, "{path}");
        }
        assert_eq!(absolute("", base), "");
        assert!(is_remote("https://example.com/x.git"));
        assert!(!is_remote("./github.com"));
    }
}
