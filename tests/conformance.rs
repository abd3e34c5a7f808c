//! `wharf config` against recorded results of Docker Compose 2.40.3, one small project per case.
//!
//! Each case of `tests/conformance/cases` is copied to a temporary directory of its own and run with
//! an environment that holds `PATH`, `HOME` and what the case asks for. `tests/conformance/README.md`
//! describes the files of a case.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// Files of a case that the command must not see.
const OWN_FILES: [&str; 4] = [
    "case.json",
    "expected.json",
    "expected.txt",
    "oracle-error.txt",
];

#[test]
fn every_case_agrees() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/cases");
    let mut names: Vec<PathBuf> = fs::read_dir(&cases)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    assert!(names.len() >= 298, "only {} cases were found", names.len());
    let mut failures = Vec::new();
    for case in &names {
        if let Err(why) = Case::read(case).judge() {
            failures.push(format!("{}: {why}", case.file_name().unwrap().display()));
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {} cases fail:\n{}",
        failures.len(),
        names.len(),
        failures.join("\n")
    );
}

/// A case and its private copy.
struct Case {
    source: PathBuf,
    spec: Value,
    /// Removed when the case is done.
    _top: tempfile::TempDir,
    home: PathBuf,
    work: PathBuf,
}

/// What a run gave.
struct Output {
    code: Option<i32>,
    stdout: Vec<u8>,
    stderr: String,
}

impl Case {
    fn read(source: &Path) -> Self {
        let text = fs::read_to_string(source.join("case.json")).unwrap();
        let top = tempfile::tempdir().unwrap();
        let root = top.path().canonicalize().unwrap();
        let home = root.join("home");
        let work = root.join("work").join(source.file_name().unwrap());
        fs::create_dir_all(&home).unwrap();
        copy(source, &work, &OWN_FILES);
        Self {
            source: source.to_path_buf(),
            spec: serde_json::from_str(&text).unwrap(),
            _top: top,
            home,
            work,
        }
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.spec.get(key).and_then(Value::as_str)
    }

    fn expand(&self, text: &str) -> String {
        text.replace("<DIR>", &self.work.to_string_lossy())
            .replace("<HOME>", &self.home.to_string_lossy())
    }

    fn list(&self, key: &str) -> Vec<String> {
        self.spec[key]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| self.expand(item.as_str().unwrap()))
            .collect()
    }

    fn run(&self, arguments: &[String], directory: &Path, input: &[u8]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
        command
            .args(arguments)
            .current_dir(directory)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", &self.home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for (key, value) in self.spec["env"].as_object().unwrap() {
            command.env(key, self.expand(value.as_str().unwrap()));
        }
        let mut child = command.spawn().unwrap();
        // A command that does not read its input closes it early.
        let _written = child.stdin.take().unwrap().write_all(input);
        let output = child.wait_with_output().unwrap();
        Output {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn judge(&self) -> Result<(), String> {
        let directory = self.work.join(self.text("cwd").unwrap_or("."));
        let input = self
            .text("stdin")
            .map_or_else(Vec::new, |file| fs::read(self.work.join(file)).unwrap());
        let mut arguments = self.list("args");
        arguments.push("config".to_owned());
        arguments.extend(self.list("config_args"));
        let mut output = self.run(&arguments, &directory, &input);
        if self.spec.get("roundtrip").is_some() && output.code == Some(0) {
            let rendered = self.work.join("rendered.yaml");
            fs::write(&rendered, &output.stdout).unwrap();
            let again = [
                "-f",
                &rendered.to_string_lossy(),
                "config",
                "--format",
                "json",
            ];
            output = self.run(&again.map(str::to_owned), &directory, b"");
        }
        let Some(code) = output.code else {
            return Err("died of a signal".to_owned());
        };
        if output.stderr.contains("panicked at") {
            return Err(format!("panicked: {}", output.stderr));
        }
        if self.text("expect") == Some("reject") {
            return match code {
                0 => Err("is accepted, but must be refused".to_owned()),
                _ => Ok(()),
            };
        }
        if code != 0 {
            return Err(format!("exit code {code}: {}", output.stderr));
        }
        let bytes = match self.text("output_file") {
            Some(file) => fs::read(self.work.join(file)).map_err(|error| error.to_string())?,
            None => output.stdout,
        };
        let got = String::from_utf8(bytes)
            .map_err(|error| error.to_string())?
            .replace(&*self.work.to_string_lossy(), "<DIR>")
            .replace(&*self.home.to_string_lossy(), "<HOME>");
        let got = self.masked(got);
        if let Ok(expected) = fs::read_to_string(self.source.join("expected.json")) {
            let got: Value = serde_json::from_str(&got).map_err(|error| error.to_string())?;
            let expected: Value = serde_json::from_str(&expected).unwrap();
            return differ(&expected, &got, "").map_or(Ok(()), Err);
        }
        let expected = fs::read_to_string(self.source.join("expected.txt")).unwrap();
        let unordered = self.text("compare") == Some("unordered-lines");
        lines(&expected, &got, unordered)
    }

    /// The only mask that cases use hides hashes.
    fn masked(&self, got: String) -> String {
        let Some(mask) = self.text("mask") else {
            return got;
        };
        assert_eq!(mask, "[0-9a-f]{64}", "an unknown mask");
        let mut words: Vec<String> = Vec::new();
        for word in got.split_inclusive([' ', '\n']) {
            let bare = word.trim_end();
            let hash = bare.len() == 64 && bare.bytes().all(|b| b.is_ascii_hexdigit());
            let end = word.get(bare.len()..).unwrap_or_default();
            words.push(if hash {
                format!("<MASK>{end}")
            } else {
                word.to_owned()
            });
        }
        words.concat()
    }
}

fn copy(from: &Path, to: &Path, without: &[&str]) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if without.contains(&&*entry.file_name().to_string_lossy()) {
            continue;
        }
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target, &[]);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The first place where two values differ. Keys in any order; `1` and `1.0` are equal.
fn differ(expected: &Value, got: &Value, at: &str) -> Option<String> {
    match (expected, got) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            keys.into_iter().find_map(|key| {
                let at = format!("{at}.{key}");
                match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => differ(a, b, &at),
                    (a, b) => Some(format!("{at}: expected {a:?}, got {b:?}")),
                }
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .enumerate()
            .find_map(|(index, (a, b))| differ(a, b, &format!("{at}[{index}]"))),
        (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64() => None,
        (a, b) if a == b => None,
        (a, b) => Some(format!("{at}: expected {a}, got {b}")),
    }
}

fn lines(expected: &str, got: &str, unordered: bool) -> Result<(), String> {
    let split = |text: &str| -> Vec<String> {
        let mut lines: Vec<String> = text.trim_end().lines().map(str::to_owned).collect();
        if unordered {
            lines.sort();
        }
        lines
    };
    let (expected, got) = (split(expected), split(got));
    if expected == got {
        return Ok(());
    }
    Err(format!("expected {expected:?}, got {got:?}"))
}
