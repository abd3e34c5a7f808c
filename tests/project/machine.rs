//! `config --format json` on a mistake: the same facts, for programs.

use std::process::Command;

use serde_json::Value;

#[test]
fn mistakes_are_json_on_standard_error() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("compose.yaml"),
        "services:\n  web:\n    imgae: app\n    ports: [web]\n",
    )
    .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_wharf"))
        .args(["config", "--format", "json"])
        .current_dir(directory.path())
        .env_clear()
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(output.stdout.is_empty());
    let findings: Vec<Value> = serde_json::from_slice(&output.stderr).unwrap();
    let places: Vec<_> = findings
        .iter()
        .map(|finding| {
            (
                finding["key"].as_str(),
                finding["line"].as_u64(),
                finding["column"].as_u64(),
            )
        })
        .collect();
    assert_eq!(
        places,
        [
            (Some("services.web.imgae"), Some(3), Some(5)),
            (Some("services.web.ports[0]"), Some(4), Some(13)),
        ]
    );
    assert_eq!(findings[0]["hint"], "did you mean `image`?");
    assert!(
        findings[0]["file"]
            .as_str()
            .unwrap()
            .ends_with("compose.yaml")
    );
}
