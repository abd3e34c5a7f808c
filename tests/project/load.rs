//! What a loaded project holds.

use std::path::PathBuf;
use std::time::Duration;

use wharf::project::model::{Condition, Conflict, HealthTest, MountKind, Restart};
use wharf::project::{LoadErrorKind, LoadOptions, check_ports, load};
use wharf::state::BackendKind;

use crate::disk::{Table, env, one};

#[test]
fn a_service_is_typed() {
    let project = one(r#"
name: demo
services:
  web:
    image: app:${TAG:-1}
    command: echo "two words"
    ports: ["127.0.0.1:8080:80", {target: 81, published: "9000", app_protocol: ws}]
    environment: {A: 1, B: }
    volumes: ["./data:/data:ro", "db:/db"]
    depends_on: {db: {condition: service_healthy}}
    healthcheck: {test: "true", interval: 1m30s}
    restart: on-failure:3
    mem_limit: 64m
    cpus: 0.5
  db: {image: "db:1", scale: 2}
volumes: {db: }
"#)
    .unwrap()
    .project;
    assert_eq!(project.name, "demo");
    assert_eq!(project.directory, PathBuf::from("/p"));
    let web = &project.services["web"];
    assert_eq!(web.image.as_deref(), Some("app:1"));
    assert_eq!(
        web.command.as_deref(),
        Some(["echo".to_owned(), "two words".to_owned()].as_slice())
    );
    assert_eq!(web.place, "/p/compose.yaml:4");
    assert_eq!(web.ports[0].published, Some((8080, 8080)));
    assert_eq!(web.ports[1].app_protocol.as_deref(), Some("ws"));
    assert_eq!(web.environment["A"], "1");
    assert!(!web.environment.contains_key("B"));
    assert!(matches!(
        &web.volumes[0].kind,
        MountKind::Bind { source, .. } if source == &PathBuf::from("/p/data")
    ));
    assert!(web.volumes[0].read_only);
    assert_eq!(web.depends_on["db"].condition, Condition::Healthy);
    let check = web.healthcheck.as_ref().unwrap();
    assert_eq!(check.test, Some(HealthTest::Shell("true".into())));
    assert_eq!(check.interval, Some(Duration::from_secs(90)));
    assert_eq!(web.restart, Restart::OnFailure(Some(3)));
    assert_eq!(web.mem_limit, Some(64 << 20));
    assert_eq!(web.nano_cpus, Some(500_000_000));
    assert_eq!(project.services["db"].scale, Some(2));
    assert_eq!(project.volumes["db"].name, "demo_db");
    assert_eq!(project.networks["default"].name, "demo_default");
}

#[test]
fn a_process_form_needs_no_image() {
    let project = one(r"
name: demo
x-wharf: {conflict: fail}
services:
  ws:
    x-wharf:
      backend: process
      process: {command: python -m app, working_dir: src, environment: {DEBUG: 1}}
      ready: {path: /ws, timeout: 5s}
      conflict: move
  tool:
    provider: {type: wharf, options: {command: sleep 5}}
")
    .unwrap()
    .project;
    assert_eq!(project.conflict, Some(Conflict::Fail));
    let ws = &project.services["ws"];
    assert!(!ws.has_container_form());
    assert_eq!(ws.wharf.backend, Some(BackendKind::Process));
    let process = ws.wharf.process.as_ref().unwrap();
    assert_eq!(process.command.as_deref().map(<[String]>::len), Some(3));
    assert_eq!(process.working_dir, Some(PathBuf::from("/p/src")));
    assert_eq!(process.environment["DEBUG"].as_deref(), Some("1"));
    assert_eq!(ws.wharf.ready.timeout, Some(Duration::from_secs(5)));
    assert_eq!(ws.wharf.conflict, Some(Conflict::Move));
    let tool = project.services["tool"].wharf.process.as_ref().unwrap();
    assert_eq!(tool.command.as_deref().map(<[String]>::len), Some(2));
}

#[test]
fn x_wharf_is_strict() {
    let error = one("services: {a: {image: x, x-wharf: {proces: {}}}}").unwrap_err();
    assert_eq!(error.kind, LoadErrorKind::Invalid);
    assert_eq!(
        error.diagnostics[0].hint.as_deref(),
        Some("did you mean `process`?")
    );
    let error = one("services: {a: {image: x, x-wharf: {process: true}}}").unwrap_err();
    assert_eq!(
        error.diagnostics[0].hint.as_deref(),
        Some("write {} to run the service's own command")
    );
}

#[test]
fn all_mistakes_are_told_at_once() {
    let error = one("services:\n  a: {imgae: x}\n  b: {image: x, ports: web}\n").unwrap_err();
    let lines: Vec<usize> = error
        .diagnostics
        .iter()
        .map(|found| found.place.as_ref().unwrap().line_and_column().0)
        .collect();
    assert_eq!(lines, [2, 3]);
}

#[test]
fn a_port_that_does_not_exist_is_refused() {
    let error = one("services: {a: {image: x, ports: [{target: 70000}]}}").unwrap_err();
    assert_eq!(error.diagnostics[0].key, "services.a.ports[0].target");
}

#[test]
fn files_merge_and_services_are_selected() {
    let files = Table::new(&[
        (
            "a.yaml",
            "name: demo\nservices: {a: {image: x, depends_on: [b]}, b: {image: y}, c: {image: z}}",
        ),
        ("b.yaml", "services: {a: {image: x:2}}"),
        (".env", "COMPOSE_PROJECT_NAME=fromenv"),
    ]);
    let options = LoadOptions {
        files: vec!["a.yaml".into(), "b.yaml".into()],
        services: vec!["a".into()],
        ..LoadOptions::default()
    };
    let project = load(&options, &env(&[]), &files).unwrap().project;
    assert_eq!(project.name, "fromenv");
    let names: Vec<&String> = project.services.keys().collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(project.services["a"].image.as_deref(), Some("x:2"));
    assert_eq!(project.disabled, ["c"]);
}

#[test]
fn an_unknown_service_is_a_usage_mistake() {
    let files = Table::new(&[("compose.yaml", "services: {web: {image: x}}")]);
    let options = LoadOptions {
        services: vec!["wbe".into()],
        ..LoadOptions::default()
    };
    let error = load(&options, &env(&[]), &files).unwrap_err();
    assert_eq!(error.kind, LoadErrorKind::Usage);
    assert_eq!(
        error.diagnostics[0].hint.as_deref(),
        Some("did you mean `web`?")
    );
}

#[test]
fn no_file_is_told() {
    let error = load(&LoadOptions::default(), &env(&[]), &Table::new(&[])).unwrap_err();
    assert_eq!(error.kind, LoadErrorKind::NotFound);
}

#[test]
fn two_claims_on_a_host_port_name_both_services() {
    let project = one(
        "services:\n  a: {image: x, ports: ['80:80']}\n  b: {image: x, ports: ['127.0.0.1:80:81']}\n  c: {image: x, ports: ['80:80/udp']}\n",
    )
    .unwrap()
    .project;
    let found = check_ports(&project);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].message, "`a` and `b` both publish host port 80");
}
