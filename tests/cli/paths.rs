//! Paths that are no plain words, or lead nowhere: errors name them as they are, and hints can be pasted.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;

use crate::support::Sandbox;
use crate::support::running::Finished;

/// What a run says to do, done by a shell.
#[track_caller]
fn follow(sandbox: &Sandbox, said: &Finished) {
    let hint = said.stderr.lines().rev().find_map(|line| {
        let (_, hint) = line.split_once("hint: ")?;
        Some(hint.rsplit_once("make it: ").map_or(hint, |(_, it)| it))
    });
    let hint = hint.unwrap_or_else(|| panic!("no hint in {said}"));
    sandbox.program("bash", &["-c", hint]).wait().expect(0);
}

fn sleeper(more: &str) -> String {
    format!("services:\n  a: {{x-wharf: {{process: {{command: [sleep, '600']{more}}}}}}}\n")
}

#[test]
fn a_directory_whose_name_is_not_utf_8_is_told_by_its_name() {
    let sandbox = Sandbox::new();
    let directory = sandbox.path().join(OsStr::from_bytes(b"my caf\xe9"));
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("compose.yaml"), sleeper("")).unwrap();
    fs::write(directory.join("env"), "A=1\n").unwrap();
    let name = "the name of $'[DIR]/my caf\\351' is not UTF-8";
    for words in [
        "cd my\\ caf* && wharf up -d",
        "wharf --project-directory my\\ caf* up -d",
        "wharf -f my\\ caf*/compose.yaml up -d",
    ] {
        let said = sandbox.program("sh", &["-c", words]).wait();
        said.expect(1).expect_text(name);
    }
    let shell = ["-c", "wharf --env-file my\\ caf*/env ps"];
    let said = sandbox.program("sh", &shell).wait().expect(1);
    said.expect_text("the name of $'my caf\\351' is not UTF-8");
    let shell = ["-c", "cd my\\ caf* && wharf -p x ps"];
    sandbox.program("sh", &shell).wait().expect(0);
    let shell = ["-c", "cd my\\ caf* && wharf up -d"];
    follow(&sandbox, &sandbox.program("sh", &shell).wait().expect(1));
    let shell = ["-c", "cd 'my café' && wharf up -d && wharf down -t 0"];
    sandbox.program("sh", &shell).wait().expect(0);
}

#[test]
fn what_is_missing_can_be_made_as_said() {
    let sandbox = Sandbox::new();
    symlink("gone away", sandbox.path().join("link")).unwrap();
    for directory in ["my $HOME", "it''s", "link"] {
        let file = sleeper(&format!(", working_dir: './{directory}'"));
        sandbox.write("compose.yaml", file);
        follow(&sandbox, &sandbox.wharf(&["up", "-d"]).expect(1));
        sandbox.wharf(&["up", "-d"]).expect(0);
        sandbox.wharf(&["down", "-t", "0"]).expect(0);
    }
    sandbox.write("my prog", "#!/bin/sh\nexec sleep 600\n");
    let file = "services:\n  a: {x-wharf: {process: {command: ['./my prog']}}}\n";
    sandbox.write("compose.yaml", file);
    follow(&sandbox, &sandbox.wharf(&["up", "-d"]).expect(1));
    sandbox.wharf(&["up", "-d"]).expect(0);
}

#[test]
fn links_that_lead_nowhere_are_told() {
    let sandbox = Sandbox::new();
    symlink("nowhere.yaml", sandbox.path().join("compose.yaml")).unwrap();
    let leads = "is a symbolic link to `nowhere.yaml`, where nothing is";
    sandbox.wharf(&["ps"]).expect(1).expect_text(leads);
    sandbox
        .wharf(&["-f", "compose.yaml", "ps"])
        .expect(1)
        .expect_text("compose.yaml` does not exist")
        .expect_text(leads);
    let env_file = "services: {a: {image: x, env_file: [./compose.yaml]}}";
    sandbox.write("other.yaml", env_file);
    sandbox
        .wharf(&["-f", "other.yaml", "config"])
        .expect(3)
        .expect_text(leads);
}

#[test]
fn a_directory_in_place_of_a_file_is_told() {
    let sandbox = Sandbox::new();
    sandbox.write("my stack/compose.yaml", sleeper(""));
    let said = sandbox.wharf(&["-f", "my stack", "ps"]).expect(1);
    said.expect_text("[DIR]/my stack` is a directory, and no file")
        .expect_text("hint: -f '[DIR]/my stack/compose.yaml'");
    let file = "secrets: {s: {file: ./my stack}}\nservices:\n  \
                a: {secrets: [s], x-wharf: {process: {command: [sleep, '600']}}}\n";
    sandbox.write("compose.yaml", file);
    let said = sandbox.wharf(&["up", "-d"]).expect(1);
    assert!(!said.stderr.contains("mv "), "{said}");
    said.expect_text("put a file there, or correct `file` of `s`");
}

#[test]
fn a_current_directory_that_has_gone_is_named() {
    let sandbox = Sandbox::new();
    let gone = "mkdir 'my work' && cd 'my work' && rmdir '../my work'";
    for (then, hint) in [
        ("", "cd [DIR]\n"),
        ("mkdir '../my work'; ", "cd '[DIR]/my work'\n"),
    ] {
        sandbox
            .program("sh", &["-c", &format!("{gone} && {then}wharf ps")])
            .wait()
            .expect(1)
            .expect_text("the current directory [DIR]/my work has been removed")
            .expect_text(hint);
    }
}
