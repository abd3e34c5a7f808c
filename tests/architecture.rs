//! Keeps the rules of docs/architecture.md true by reading the source.
//!
//! A rule here is a row of a table. A new top-level module needs a row in [`MAY_IMPORT`] before
//! anything passes, so that its place in the flow is a decision and not an accident.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What a top-level module may import from the crate besides itself. An entry allows everything
/// below it, so `port::claim` allows `port::claim::Claim`. `cli` is at the end of the flow and may
/// import all.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("project", &["naming", "port::claim", "state::BackendKind"]),
    ("state", &["naming", "port::claim", "port::holder"]),
    ("port", &["naming", "state", "users"]),
    ("naming", &[]),
    (
        "plan",
        &["project", "state", "naming", "port::claim", "port::holder"],
    ),
    ("event", &["plan::step", "state"]),
    ("probe", &["state", "port"]),
    (
        "backend",
        &[
            "project",
            "state",
            "naming",
            "event",
            "port",
            "probe",
            "plan::step",
            "supervise::lifecycle",
            "users",
        ],
    ),
    (
        "forward",
        &["project", "state", "naming", "port", "backend", "relay"],
    ),
    ("relay", &[]),
    ("users", &[]),
    (
        "supervise",
        &[
            "project",
            "state",
            "naming",
            "event",
            "port",
            "probe",
            "backend",
            "plan::step",
        ],
    ),
    (
        "doctor",
        &["project", "state", "port", "plan::placement", "backend"],
    ),
    (
        "observe",
        &["project", "state", "naming", "port", "plan", "backend"],
    ),
    ("watch", &["project", "backend::container::ignore"]),
    ("execute", &["state", "event", "plan", "backend"]),
    ("server", &["project", "state", "probe"]),
    (
        "error",
        &[
            "project",
            "state",
            "port",
            "plan",
            "probe",
            "backend",
            "supervise",
            "observe",
            "execute",
            "server",
        ],
    ),
    (
        "ui",
        &[
            "project",
            "state",
            "event",
            "plan",
            "port::claim",
            "port::holder",
            "error",
        ],
    ),
];

/// Crates that one place knows: elsewhere wharf's own types stand for what they bring.
const KNOWN_ONLY_IN: &[(&str, &str)] = &[
    ("granit_parser", "project/node"),
    ("bollard", "backend/container"),
    ("netlink_sys", "port/sockets"),
    ("netlink_packet_core", "port/sockets"),
    ("netlink_packet_sock_diag", "port/sockets"),
    ("annotate_snippets", "ui/"),
    ("gotmpl", "ui/template"),
    ("axum", "server/"),
    ("clap", "cli/"),
];

/// Where the same input must give the same output.
const PURE: &[&str] = &[
    "plan/",
    "plan.rs",
    "project/",
    "supervise/again",
    "supervise/lifecycle",
    "state.rs",
    "naming.rs",
    "forward/routes",
    "watch/batch",
    "watch/rules",
    "doctor/findings",
    "doctor/needs",
    "doctor/api",
    "ui/graph",
];

/// The edge at which a pure place meets the disk.
const EDGE: &str = "project/files";

/// I/O, clocks, concurrency and unordered collections, as they look in code. The calls without
/// arguments are those of `std::path::Path` that ask the disk.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::io::stdin",
    "std::io::stdout",
    "std::io::stderr",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "tokio",
    "bollard",
    "nix::",
    "rustix::",
    "async ",
    ".await",
    "Instant::now",
    "SystemTime",
    "Timestamp::now",
    "Zoned::now",
    "HashMap",
    "HashSet",
    "println!",
    ".exists()",
    ".try_exists()",
    ".is_dir()",
    ".is_file()",
    ".is_symlink()",
    ".metadata()",
    ".symlink_metadata()",
    ".canonicalize()",
    ".read_dir()",
    ".read_link()",
];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &[
    "util", "utils", "helper", "helpers", "common", "misc", "manager", "types",
];

/// Lines of one file before its tests, at most.
const LONGEST: usize = 600;

#[test]
fn imports_point_one_way() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for file in sources() {
        let module = file.top_module();
        if matches!(module, "lib" | "main" | "cli") {
            continue;
        }
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!(
                "{}: `{module}` has no row in MAY_IMPORT",
                file.name
            ));
            continue;
        };
        for path in crate_paths(&file.code) {
            seen += 1;
            let permitted = |prefix: &str| is_below(&path, prefix);
            if !permitted(module) && !allowed.iter().any(|prefix| permitted(prefix)) {
                wrong.push(format!("{}: `{module}` may not import `{path}`", file.name));
            }
        }
        if climbs_out(&file) {
            wrong.push(format!(
                "{}: `super` leaves `{module}`; write `crate::`",
                file.name
            ));
        }
    }
    assert!(seen >= 20, "only {seen} imports were understood");
    assert_none(&wrong);
}

#[test]
fn deciding_performs_no_io_and_reads_no_clock() {
    let pure: Vec<_> = sources()
        .into_iter()
        .filter(|file| PURE.iter().any(|place| file.name.starts_with(place)))
        .filter(|file| !file.name.starts_with(EDGE))
        .collect();
    assert!(pure.len() >= 10, "only {} pure files were seen", pure.len());
    let mut wrong = Vec::new();
    for file in &pure {
        for word in IMPURE.iter().filter(|word| mentions(&file.code, word)) {
            wrong.push(format!("{}: `{word}` in a pure place", file.name));
        }
    }
    assert_none(&wrong);
}

#[test]
fn a_crate_is_known_where_it_belongs() {
    let mut wrong = Vec::new();
    for file in sources() {
        for (name, place) in KNOWN_ONLY_IN {
            if !file.name.starts_with(place) && mentions(&file.code, &format!("{name}::")) {
                wrong.push(format!("{}: `{name}` belongs into {place}", file.name));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut wrong = Vec::new();
    for file in sources() {
        if !file.text.starts_with("//!") {
            wrong.push(format!("{}: does not open with `//!`", file.name));
        }
        let lines = before_tests(&file.text).lines().count();
        if lines > LONGEST {
            wrong.push(format!("{}: {lines} lines before its tests", file.name));
        }
        let words = file.name.trim_end_matches(".rs").split('/');
        wrong.extend(
            words
                .filter(|word| EMPTY_NAMES.contains(word))
                .map(|word| format!("{}: `{word}` is not a subject", file.name)),
        );
    }
    assert_none(&wrong);
}

#[test]
fn every_test_file_is_part_of_a_test_crate() {
    let mut crates = 0;
    let mut wrong = Vec::new();
    for directory in entries(&root().join("tests")) {
        if !directory.is_dir() {
            continue;
        }
        // Cargo finds tests/x.rs and tests/x/main.rs; their modules it must be told. A tests/x.rs may
        // leave that to tests/x/mod.rs.
        let roots = ["main.rs", "mod.rs"].map(|name| directory.join(name));
        let roots = [&roots[..], &[directory.with_extension("rs")]].concat();
        let declared: String = roots
            .iter()
            .filter_map(|file| fs::read_to_string(file).ok())
            .collect();
        if !roots[0].exists() && !roots[2].exists() {
            continue;
        }
        crates += 1;
        for file in entries(&directory) {
            let name = file.file_stem().and_then(|name| name.to_str());
            let is_module =
                file.extension().is_some_and(|end| end == "rs") && !roots.contains(&file);
            if is_module && !declared.contains(&format!("mod {};", name.unwrap_or_default())) {
                wrong.push(format!("{} is not run", file.display()));
            }
        }
    }
    assert!(crates >= 2, "only {crates} test crates were seen");
    assert_none(&wrong);
}

#[test]
fn imports_are_understood() {
    let code = "use crate::plan::step::{Action, Step};\n\
                use crate::{event::Events, port::{claim::Claim, holder::{Holder, Who}}, state};\n\
                pub(crate) fn f() -> crate::backend::BackendError { supercrate::nothing() }\n\
                pub use crate::probe as p;\n\
                let n = crate::probe::of::<u8>();";
    let expected = [
        "plan::step::Action",
        "plan::step::Step",
        "event::Events",
        "port::claim::Claim",
        "port::holder::Holder",
        "port::holder::Who",
        "state",
        "backend::BackendError",
        "probe",
        "probe::of",
    ];
    assert_eq!(crate_paths(code), expected);
    assert!(is_below("port::claim::Claim", "port::claim"));
    assert!(!is_below("port::claims", "port::claim"));
    assert!(mentions("use std::fs;", "std::fs") && !mentions("unix::fs", "nix::"));
    assert!(mentions("x().await?", ".await") && !mentions("x.awaits_key()", ".await"));
}

#[test]
fn comments_and_tests_are_not_code() {
    let text = "//! doc crate::ui\nuse a; // crate::ui\nlet url = \"http://x\";\n\
                #[cfg(test)]\nmod tests {\n    use crate::ui;\n}\n";
    assert_eq!(code(text), "use a; \nlet url = \"http://x\";");
}

/// One file of `src`.
struct Source {
    /// Its path below `src`, with `/`.
    name: String,
    text: String,
    /// The text without comments and without its tests.
    code: String,
}

impl Source {
    fn top_module(&self) -> &str {
        self.name
            .split(['/', '.'])
            .next()
            .expect("a split has a first part")
    }
}

/// Every file of `src`, in the order of their names.
fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut pending = vec![src.clone()];
    let mut found = Vec::new();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(entries(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            let name = path
                .strip_prefix(&src)
                .expect("it was found there")
                .display()
                .to_string();
            let text = fs::read_to_string(&path).expect("source files are readable");
            let code = code(&text);
            found.push(Source { name, text, code });
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    let modules: BTreeSet<_> = found.iter().map(Source::top_module).collect();
    for module in ["backend", "event", "plan", "port", "project", "state"] {
        assert!(modules.contains(module), "no file of `{module}` was seen");
    }
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("directories of the repository are readable");
    entries
        .map(|entry| entry.expect("its entries too").path())
        .collect()
}

/// The part of a file before its module of tests.
fn before_tests(text: &str) -> &str {
    text.split_once("#[cfg(test)]\nmod tests")
        .map_or(text, |(before, _)| before)
}

fn code(text: &str) -> String {
    let lines = before_tests(text).lines();
    lines
        .filter(|line| !line.trim_start().starts_with("//"))
        // A blank before it tells a comment from the slashes of an address.
        .map(|line| line.find(" // ").map_or(line, |at| &line[..=at]))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Whether a word stands in code, not as a part of a longer name.
fn mentions(code: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + word.len()..]);
        let goes_on_before = word.starts_with(is_name) && before.ends_with(is_name);
        let goes_on_after = word.ends_with(is_name) && after.starts_with(is_name);
        !goes_on_before && !goes_on_after
    })
}

/// Whether a path is a prefix or lies below it.
fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// What follows every `crate::`, groups in braces spelt out.
fn crate_paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (at, word) in code.match_indices("crate::") {
        let inside_a_name = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if !inside_a_name {
            read_tree("", &code[at + word.len()..], &mut paths);
        }
    }
    paths
}

/// Reads one use tree, appends its paths to `paths`, and returns the text behind it.
fn read_tree<'a>(prefix: &str, text: &'a str, paths: &mut Vec<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(group) = text.strip_prefix('{') {
        return read_group(prefix, group, paths);
    }
    let (name, rest) = split_name(text);
    let path = if prefix.is_empty() {
        name.to_owned()
    } else {
        format!("{prefix}::{name}")
    };
    match rest.strip_prefix("::") {
        // `f::<T>` ends the path: what follows are arguments.
        Some(rest) if !rest.starts_with('<') => read_tree(&path, rest, paths),
        _ => {
            paths.push(path);
            let alias = rest.trim_start().strip_prefix("as ");
            alias.map_or(rest, |alias| split_name(alias.trim_start()).1)
        }
    }
}

/// Reads the trees of a group up to its closing brace.
fn read_group<'a>(prefix: &str, mut text: &'a str, paths: &mut Vec<String>) -> &'a str {
    loop {
        text = text.trim_start();
        if let Some(rest) = text.strip_prefix('}') {
            return rest;
        }
        let rest = read_tree(prefix, text, paths).trim_start();
        assert!(rest.len() < text.len(), "not a use tree: {text}");
        text = rest.strip_prefix(',').unwrap_or(rest);
    }
}

fn split_name(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '*');
    text.split_at(end.unwrap_or(text.len()))
}

/// Whether a chain of `super::` reaches above the file's top-level module.
fn climbs_out(file: &Source) -> bool {
    let path = file
        .name
        .trim_end_matches("/mod.rs")
        .trim_end_matches(".rs");
    let depth = path.split('/').count();
    file.code.contains(&"super::".repeat(depth))
}

#[track_caller]
fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}
