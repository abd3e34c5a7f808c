//! `wharf config` on files that were made to hurt: it ends with a project or with an error that says
//! why, by itself, in bounded memory.
//!
//! Every run has limits on processor time and address space of its own, so that one that would hang
//! or take all memory is ended by a signal, which no test accepts.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::resource::{UsageWho, getrusage};

/// What the whole process may use at its peak, in KiB.
const MEMORY: i64 = 256 * 1024;

/// A project's files.
#[derive(Default)]
struct Files(Vec<(String, Vec<u8>)>);

impl Files {
    fn with(mut self, name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        self.0.push((name.into(), bytes.into()));
        self
    }

    /// Runs `wharf config` on them.
    fn config(&self) -> Outcome {
        self.run(&["config", "--format", "json"])
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        let top = tempfile::tempdir().unwrap();
        for (name, bytes) in &self.0 {
            fs::write(top.path().join(name), bytes).unwrap();
        }
        let shown = top.path().join("shown");
        // Unoptimised and next to other tests, none of these takes a tenth of the time.
        let limits = "ulimit -t 120 && ulimit -v 2097152 && exec \"$0\" \"$@\"";
        let output = Command::new("sh")
            .args(["-c", limits, env!("CARGO_BIN_EXE_wharf")])
            .args(arguments)
            .current_dir(top.path())
            .env_clear()
            .env("HOME", top.path())
            .stdin(Stdio::null())
            .stdout(File::create(&shown).unwrap())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.signal(), None, "ended by a signal: {stderr}");
        // The most that any command of this process has used so far.
        let peak = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss();
        assert!(peak < MEMORY, "{peak} KiB at the peak");
        Outcome {
            code: output.status.code(),
            stdout: read(&shown),
            stderr,
        }
    }
}

fn read(path: &Path) -> String {
    String::from_utf8(fs::read(path).unwrap()).unwrap()
}

struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Outcome {
    /// The project that was shown.
    #[track_caller]
    fn project(&self) -> serde_json::Value {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// Refused as invalid, with these words among the reasons, and not at endless length.
    #[track_caller]
    fn refused(&self, words: &str) {
        assert_eq!(self.code, Some(3), "{}", self.stderr);
        assert!(self.stderr.contains(words), "{}", self.stderr);
        assert!(self.stderr.len() < 256 * 1024, "{}", self.stderr.len());
        assert_eq!(self.stdout, "");
    }
}

fn compose(bytes: impl Into<Vec<u8>>) -> Outcome {
    Files::default().with("compose.yaml", bytes).config()
}

#[test]
fn an_alias_bomb_of_nine_levels() {
    let nine = |item: &str| [item; 9].join(", ");
    let mut text = format!("x-0: &x0 [{}]\n", nine("lol"));
    for level in 1..=9 {
        let items = nine(&format!("*x{}", level - 1));
        writeln!(text, "x-{level}: &x{level} [{items}]").unwrap();
    }
    compose(text).refused("aliases expand to more than");
}

#[test]
fn an_alias_bomb_of_mappings_and_merge_keys() {
    let mut text = "x-0: &x0 {a: b}\n".to_owned();
    for level in 1..=9 {
        let below = level - 1;
        let entries: Vec<String> = (0..9).map(|key| format!("k{key}: *x{below}")).collect();
        let entries = entries.join(", ");
        writeln!(text, "x-{level}: &x{level} {{<<: *x{below}, {entries}}}").unwrap();
    }
    compose(text).refused("aliases expand to more than");
}

#[test]
fn ten_megabytes_of_services() {
    let mut text = "services:\n".to_owned();
    let value = "v".repeat(90);
    for service in 0..1_000 {
        writeln!(text, "  s{service}:\n    image: a\n    labels:").unwrap();
        for label in 0..100 {
            writeln!(text, "      label{label}: \"{value}\"").unwrap();
        }
    }
    assert!(text.len() > 9_900_000);
    let project = compose(text).project();
    assert_eq!(project["services"].as_object().unwrap().len(), 1_000);
    assert_eq!(project["services"]["s999"]["labels"]["label99"], value);
}

#[test]
fn ten_thousand_services_that_wait_for_each_other() {
    let mut text = "services:\n  s0: {image: a}\n".to_owned();
    for service in 1..10_000 {
        writeln!(
            text,
            "  s{service}: {{image: a, ports: [\"{}:80\"], depends_on: [s{}]}}",
            10_000 + service,
            service - 1
        )
        .unwrap();
    }
    let project = compose(text).project();
    assert_eq!(project["services"].as_object().unwrap().len(), 10_000);
}

#[test]
fn ten_thousand_services_that_are_all_wrong() {
    let mut text = "services:\n".to_owned();
    for service in 0..10_000 {
        writeln!(text, "  s{service}: {{imag: a}}").unwrap();
    }
    compose(text).refused("unknown key `imag`");
}

#[test]
fn more_mounts_than_anybody_has() {
    let mut text = String::from("services:\n  a:\n    image: a\n    volumes:\n");
    for mount in 0..100_000 {
        writeln!(text, "      - /h{mount}:/m{mount}").unwrap();
    }
    compose(text).refused("mounts");
}

#[test]
fn more_ports_than_there_are() {
    let mut text = "services:\n".to_owned();
    for service in 0..100 {
        writeln!(
            text,
            "  s{service}: {{image: a, ports: [\"1-65535:1-65535\"]}}"
        )
        .unwrap();
    }
    compose(text).refused("ports");
}

#[test]
fn deep_nesting() {
    let deep = 100_000;
    compose(format!("x-a: {}", "[".repeat(deep))).refused("recursion limit");
    compose(format!("x-a: {}{}", "{a: ".repeat(deep), "}".repeat(deep))).refused("recursion limit");
    compose(format!("x-a:\n  {}a\n", "- ".repeat(deep))).refused("recursion limit");
    let mut block = String::new();
    for level in 0..3_000 {
        writeln!(block, "{}a:", " ".repeat(level)).unwrap();
    }
    compose(block).refused("recursion limit");
    let expression = format!("{}{}", "${A:-".repeat(deep), "}".repeat(deep));
    compose(format!("services: {{a: {{image: \"{expression}\"}}}}\n"))
        .refused("is not a valid variable");
}

#[test]
fn files_that_include_each_other() {
    Files::default()
        .with(
            "compose.yaml",
            "include: [other.yaml]\nservices: {a: {image: a}}\n",
        )
        .with("other.yaml", "include: [compose.yaml]\n")
        .config()
        .refused("circle");
}

#[test]
fn a_thousand_files_that_include_the_next() {
    let mut files = Files::default().with("compose.yaml", "include: [f1.yaml]\n");
    for file in 1..1_000 {
        files = files.with(
            format!("f{file}.yaml"),
            format!("include: [f{}.yaml]\n", file + 1),
        );
    }
    files
        .with("f1000.yaml", "services: {a: {image: a}}\n")
        .config()
        .refused("include each other more than");
}

#[test]
fn services_that_extend_each_other() {
    compose("services: {a: {extends: b}, b: {extends: a}}\n").refused("circle");
}

#[test]
fn a_thousand_services_that_extend_the_next() {
    let mut text = "services:\n".to_owned();
    for service in 0..1_000 {
        writeln!(text, "  s{service}: {{extends: s{}}}", service + 1).unwrap();
    }
    text += "  s1000: {image: last}\n";
    assert_eq!(compose(text).project()["services"]["s0"]["image"], "last");
}

#[test]
fn a_thousand_files_that_extend_the_next() {
    let link =
        |file: usize| format!("services: {{s: {{extends: {{file: f{file}.yaml, service: s}}}}}}\n");
    let mut files = Files::default().with("compose.yaml", link(1));
    for file in 1..1_000 {
        files = files.with(format!("f{file}.yaml"), link(file + 1));
    }
    let project = files
        .with("f1000.yaml", "services: {s: {image: last}}\n")
        .config()
        .project();
    assert_eq!(project["services"]["s"]["image"], "last");
}

#[test]
fn bytes_that_are_no_text() {
    compose(b"services: {a: {image: \"\xff\xfe\"}}\n".as_slice()).refused("UTF-8");
    compose(b"services: {a: {image: \"a\0b\"}}\n".as_slice()).refused("unexpected character");
    compose(vec![0; 1_000_000]).refused("unexpected character");
    Files::default()
        .with(
            "compose.yaml",
            "services: {a: {image: a, env_file: e.env}}\n",
        )
        .with("e.env", b"A=\xff\n".as_slice())
        .config()
        .refused("UTF-8");
}

#[test]
fn characters_that_yaml_cannot_hold_are_escaped() {
    let odd = "services: {a: {image: a, labels: {k: \"\\0\\uFFFE\\uFFFF\\uFEFF\"}}}\n";
    let shown = Files::default().with("compose.yaml", odd).run(&["config"]);
    assert!(
        shown.stdout.contains(r#""\0\uFFFE\uFFFF\uFEFF""#),
        "{}",
        shown.stdout
    );
    let project = compose(shown.stdout).project();
    assert_eq!(
        project["services"]["a"]["labels"]["k"],
        "\0\u{fffe}\u{ffff}\u{feff}"
    );
}

#[test]
fn a_byte_order_mark_and_other_line_ends() {
    let plain = compose("services:\n  a:\n    image: a\n").project();
    for text in [
        "\u{feff}services:\n  a:\n    image: a\n",
        "services:\r\n  a:\r\n    image: a\r\n",
        "services:\r  a:\r    image: a\r",
    ] {
        assert_eq!(compose(text).project()["services"], plain["services"]);
    }
}

/// The length of an endless line.
const LINE: usize = 10_000_000;

#[test]
fn an_endless_value() {
    let project = compose(format!(
        "services: {{a: {{image: \"{}\"}}}}\n",
        "a".repeat(LINE)
    ))
    .project();
    assert_eq!(
        project["services"]["a"]["image"].as_str().unwrap().len(),
        LINE
    );
}

#[test]
fn an_endless_line_with_a_mistake_in_it() {
    let text = format!("services: {{a: {{imag: \"{}\"}}}}\n", "a".repeat(LINE));
    compose(text).refused("unknown key `imag`");
    compose("a".repeat(LINE)).refused("a compose file is a mapping");
}

#[test]
fn an_endless_list_and_an_endless_command() {
    let list = "a,".repeat(LINE / 2);
    compose(format!(
        "services: {{a: {{image: a, command: [{list}]}}}}\n"
    ))
    .refused("values");
    let words = "a ".repeat(LINE / 2);
    compose(format!(
        "services: {{a: {{image: a, command: \"{words}\"}}}}\n"
    ))
    .refused("a command of more than");
}

#[test]
fn endless_variables() {
    let unset = "$A ".repeat(LINE / 3);
    let project = compose(format!("services: {{a: {{image: \"x{unset}\"}}}}\n"));
    assert!(
        project.stderr.contains("`A` is not set"),
        "{}",
        project.stderr
    );
    project.project();
    let open = "${A".repeat(LINE / 3);
    compose(format!("services: {{a: {{image: \"{open}\"}}}}\n")).refused("is not a valid variable");
}

#[test]
fn endless_indicators() {
    for indicator in ["a: ", "[", "{", "- ", "&a ", "!", "|", "%", "\""] {
        let outcome = compose(indicator.repeat(LINE / indicator.len()));
        outcome.refused("not valid YAML");
    }
}

#[test]
fn endless_nothing() {
    for filler in [" ", "\n", "\t", "#"] {
        compose(filler.repeat(LINE)).refused("is empty");
    }
}

#[test]
fn endless_env_files() {
    let with = |env: String| {
        Files::default()
            .with(
                "compose.yaml",
                "services: {a: {image: a, env_file: e.env}}\n",
            )
            .with("e.env", env)
            .config()
    };
    let project = with(format!("A={}", "a".repeat(LINE))).project();
    let value = project["services"]["a"]["environment"]["A"]
        .as_str()
        .unwrap();
    assert_eq!(value.len(), LINE);
    with("\"".repeat(LINE)).refused("cannot stand in the name of a variable");
    let mut growing = "A0=xxxxxxxxxx\n".to_owned();
    for level in 1..=9 {
        let tenfold = format!("$A{}", level - 1).repeat(10);
        writeln!(growing, "A{level}={tenfold}").unwrap();
    }
    with(growing).refused("grow too long");
}
