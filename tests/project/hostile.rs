//! Files that were made to hurt: each is refused or loaded, and costs little.

use std::fmt::Write as _;

use wharf::project::{LoadError, LoadOptions, load};

use crate::disk::{Table, env, one};

fn message(error: &LoadError) -> &str {
    &error.diagnostics[0].message
}

#[test]
fn an_alias_bomb_of_nine_levels() {
    let mut text = "x-a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(text, "x-a{level}: &a{level} [{items}]").unwrap();
    }
    let error = one(&text).unwrap_err();
    assert!(message(&error).starts_with("aliases expand to more than"));
}

#[test]
fn twenty_thousand_brackets() {
    let error = one(&format!("x-a: {}", "[".repeat(20_000))).unwrap_err();
    assert!(message(&error).starts_with("not valid YAML"));
}

#[test]
fn aliases_that_nest_each_other() {
    let mut text = "x-a0: &a0 [x]\n".to_owned();
    for level in 1..5_000 {
        writeln!(text, "x-a{level}: &a{level} [*a{}]", level - 1).unwrap();
    }
    assert!(message(&one(&text).unwrap_err()).contains("nested deeper"));
}

#[test]
fn ten_thousand_services() {
    let mut text = "services:\n  s0: {image: x}\n".to_owned();
    for index in 1..10_000 {
        writeln!(
            text,
            "  s{index}: {{image: x, depends_on: [s{}]}}",
            index - 1
        )
        .unwrap();
    }
    assert_eq!(one(&text).unwrap().project.services.len(), 10_000);
}

#[test]
fn a_line_of_ten_megabytes() {
    let value = "y".repeat(10_000_000);
    let text = format!("services: {{a: {{image: x, environment: {{A: \"{value}\"}}}}}}");
    let project = one(&text).unwrap().project;
    assert_eq!(project.services["a"].environment["A"].len(), 10_000_000);
}

#[test]
fn a_thousand_unknown_keys_are_not_all_told() {
    let keys: Vec<String> = (0..1_000).map(|index| format!("k{index}: 1")).collect();
    let error = one(&format!("services: {{a: {{{}}}}}", keys.join(", "))).unwrap_err();
    assert_eq!(error.diagnostics.len(), 101);
}

#[test]
fn variables_that_double_each_other() {
    let mut dotenv = "A0=xxxxxxxx\n".to_owned();
    for index in 1..60 {
        writeln!(dotenv, "A{index}=${{A{0}}}${{A{0}}}", index - 1).unwrap();
    }
    let files = Table::new(&[
        ("compose.yaml", "services: {a: {image: x}}"),
        (".env", &dotenv),
    ]);
    let error = load(&LoadOptions::default(), &env(&[]), &files).unwrap_err();
    assert!(message(&error).contains("grow too long"));
}

#[test]
fn expressions_within_expressions() {
    let nested = format!("{}{}", "${A:-".repeat(10_000), "}".repeat(10_000));
    let error = one(&format!("services: {{a: {{image: \"{nested}\"}}}}")).unwrap_err();
    assert!(message(&error).contains("not a valid variable expression"));
}

#[test]
fn includes_that_multiply() {
    let mut files = Vec::new();
    for level in 0..6 {
        for part in 0..10 {
            let next: Vec<String> = (0..10)
                .map(|p| format!("f{}x{p}.yaml", level + 1))
                .collect();
            let include = if level < 5 {
                format!("include: [{}]\n", next.join(", "))
            } else {
                String::new()
            };
            files.push((
                format!("f{level}x{part}.yaml"),
                format!("{include}services: {{n{level}x{part}: {{image: x}}}}\n"),
            ));
        }
    }
    let table: Vec<(&str, &str)> = files
        .iter()
        .map(|(a, b)| (a.as_str(), b.as_str()))
        .collect();
    let options = LoadOptions {
        files: vec!["f0x0.yaml".into()],
        ..LoadOptions::default()
    };
    let error = load(&options, &env(&[]), &Table::new(&table)).unwrap_err();
    assert!(
        error
            .diagnostics
            .iter()
            .any(|found| found.message.contains("files are included"))
    );
}

#[test]
fn a_chain_of_a_thousand_extends() {
    let mut text = "services:\n  s0: {image: x}\n".to_owned();
    for index in 1..1_000 {
        writeln!(text, "  s{index}: {{extends: s{}}}", index - 1).unwrap();
    }
    let project = one(&text).unwrap().project;
    assert_eq!(project.services["s999"].image.as_deref(), Some("x"));
}

#[test]
fn more_ports_than_there_are() {
    let ranges: Vec<String> = (1..=9)
        .map(|address| format!("\"127.0.0.{address}:1-65535:1-65535\""))
        .collect();
    let text = format!(
        "services: {{a: {{image: x, ports: [{}]}}}}",
        ranges.join(", ")
    );
    assert!(message(&one(&text).unwrap_err()).contains("ports"));
}

#[test]
fn bytes_that_are_no_text() {
    for bytes in [
        b"services: {a: {image: \"\xff\"}}".as_slice(),
        b"\xff\xfes\0e\0r\0v\0",
        b"services: {a: {image: x\0y}}",
    ] {
        let files = Table::new(&[]).with("compose.yaml", bytes);
        assert!(load(&LoadOptions::default(), &env(&[]), &files).is_err());
    }
}

#[test]
fn a_byte_order_mark_and_carriage_returns() {
    let project = one("\u{feff}services:\r\n  a:\r\n    image: x\r\n")
        .unwrap()
        .project;
    assert_eq!(project.services["a"].image.as_deref(), Some("x"));
}
