//! Which backend runs a service.

use wharf::plan::placement::{
    PlacementError, Selection, Wishes, in_form, place, place_without_engine,
};
use wharf::state::BackendKind::{Container, Process};

use crate::world::{load, names};

const FORMS: &str = "
services:
  both:
    image: both
    working_dir: /in/the/image
    entrypoint: [in-the-image]
    environment: {A: '1', B: '1'}
    x-wharf: {process: {command: [local], environment: {B: '2'}}}
  local-first: {image: x, x-wharf: {backend: process, process: {command: [x]}}}
  image-only: {image: x}
  process-only: {x-wharf: {process: {command: [x]}}}
  provided: {provider: {type: some-cloud}}
";

#[test]
fn the_forms_decide_where_nothing_else_does() {
    let placed = place(&load(FORMS), &Wishes::default()).expect("all have a place");
    assert_eq!(placed.of("both"), Container);
    assert_eq!(placed.of("local-first"), Process);
    assert_eq!(placed.of("image-only"), Container);
    assert_eq!(placed.of("process-only"), Process);
}

#[test]
fn the_command_line_comes_first() {
    let wishes = Wishes {
        local: Selection::Everybody,
        ..Wishes::default()
    };
    let placed = place(&load(FORMS), &wishes).expect("all have a place");
    assert_eq!(placed.of("both"), Process);
    assert_eq!(placed.of("image-only"), Container);
    let wishes = Wishes {
        container: Selection::Named(names(&["local-first"])),
        local: Selection::Everybody,
        ..Wishes::default()
    };
    let placed = place(&load(FORMS), &wishes).expect("all have a place");
    assert_eq!(placed.of("local-first"), Container);
    assert_eq!(placed.of("both"), Process);
}

#[test]
fn wishes_that_cannot_be_met_are_refused() {
    let project = load(FORMS);
    let local = |name| Wishes {
        local: Selection::Named(names(&[name])),
        ..Wishes::default()
    };
    let refused = |wishes: &Wishes| place(&project, wishes).expect_err("cannot be met");
    assert_eq!(
        refused(&local("image-only")),
        PlacementError::NoProcessForm("image-only".to_owned())
    );
    let kind = "some-cloud".to_owned();
    let name = "provided".to_owned();
    assert_eq!(
        refused(&local("provided")),
        PlacementError::Provided { name, kind }
    );
    assert_eq!(
        refused(&local("nobody")),
        PlacementError::Unknown("nobody".to_owned())
    );
    let both = Wishes {
        local: Selection::Named(names(&["both"])),
        container: Selection::Named(names(&["both"])),
        ..Wishes::default()
    };
    assert_eq!(refused(&both), PlacementError::Both("both".to_owned()));
}

#[test]
fn without_an_engine_all_must_have_a_process_form() {
    let refused = place_without_engine(&load(FORMS), &Wishes::default()).expect_err("no engine");
    assert_eq!(
        refused,
        PlacementError::NeedEngine {
            services: vec!["image-only".to_owned()],
            could_be_local: false
        }
    );
    let local = load("services: {a: {image: a, x-wharf: {process: {command: [a]}}}}");
    let placed = place_without_engine(&local, &Wishes::default()).expect("runs as a process");
    assert_eq!(placed.of("a"), Process);
    let asked = Wishes {
        container: Selection::Everybody,
        ..Wishes::default()
    };
    assert!(
        place_without_engine(&local, &asked).is_err(),
        "--container was asked for"
    );
}

#[test]
fn the_process_form_is_put_on_top() {
    let project = load(FORMS);
    let local = in_form(&project.services["both"], Process);
    assert_eq!(
        local.command.as_deref(),
        Some(["local".to_owned()].as_slice())
    );
    assert_eq!(local.entrypoint, None);
    assert_eq!(
        local.working_dir, None,
        "a path inside the image means nothing here"
    );
    let left_out = local.wharf.working_dir_of_image.as_deref();
    assert_eq!(left_out, project.services["both"].working_dir.as_deref());
    assert!(left_out.is_some());
    assert_eq!(local.environment["A"], "1");
    assert_eq!(local.environment["B"], "2");
}
