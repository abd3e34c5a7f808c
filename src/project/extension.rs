//! `x-wharf` → model: what wharf adds to a service, and the process form that
//! `provider: {type: wharf}` stands for.

use super::cast;
use super::model::{Conflict, ProcessForm, ReadySetting, ServiceExtension};
use super::report::Report;
use super::shape;
use super::tree::{Node, Trail};
use super::typed::{Context, argv, healthcheck, maybe_pairs, owned, texts, time};
use crate::naming::Way;
use crate::state::BackendKind;

/// The word for what to do about a held port.
pub(crate) fn conflict(text: &str) -> Option<Conflict> {
    match text {
        "ask" => Some(Conflict::Ask),
        "replace" => Some(Conflict::Replace),
        "move" => Some(Conflict::Move),
        "fail" => Some(Conflict::Fail),
        _ => None,
    }
}

/// What a service's extension says.
pub(crate) fn extension(
    name: &str,
    node: &Node,
    context: &Context<'_>,
    report: &mut Report,
) -> ServiceExtension {
    let mut extension = ServiceExtension::default();
    if let Some(provider) = node
        .get("provider")
        .filter(|p| p.text("type") == Some("wharf"))
    {
        extension.process = Some(provided(provider, context));
    }
    let Some(wharf) = node.get("x-wharf") else {
        return extension;
    };
    extension.backend = match wharf.text("backend") {
        Some("process") => Some(BackendKind::Process),
        Some("container") => Some(BackendKind::Container),
        _ => None,
    };
    extension.conflict = wharf.text("conflict").and_then(conflict);
    let top = Trail::default();
    let services = top.key("services");
    let service = services.key(name);
    let trail = service.key("x-wharf");
    if let Some(process) = wharf.get("process") {
        let mut process = process.clone();
        cast::fields_of(&mut process, PROCESS, &trail.key("process"), report);
        extension.process = Some(ProcessForm {
            command: argv(&process, "command"),
            working_dir: owned(&process, "working_dir").map(|path| context.absolute(&path)),
            build: argv(&process, "build"),
            environment: maybe_pairs(&process, "environment"),
            user: owned(&process, "user"),
            names: match process.text("names") {
                Some("environment") => Some(Way::Environment),
                Some("off") => Some(Way::Off),
                _ => None,
            },
            healthcheck: process.get("healthcheck").map(healthcheck),
        });
    }
    if let Some(ready) = wharf.get("ready") {
        let mut ready = ready.clone();
        cast::fields_of(&mut ready, READY, &trail.key("ready"), report);
        extension.ready = ReadySetting {
            path: owned(&ready, "path"),
            timeout: time(&ready, "timeout"),
        };
    }
    extension
}

static PROCESS: &[shape::Field] = &[
    shape::field("command", shape::Form::Command),
    shape::field("build", shape::Form::Command),
    shape::field("working_dir", shape::Form::Text),
    shape::field("environment", shape::Form::Environment),
    shape::field("user", shape::Form::Text),
    shape::field("healthcheck", shape::Form::Section(shape::HEALTHCHECK)),
];
static READY: &[shape::Field] = &[
    shape::field("path", shape::Form::Text),
    shape::field("timeout", shape::Form::MaybeDuration),
];

/// The options of a provider: `command` in one text or one per word, `working_dir`, `user` and
/// `environment` entries of the form `KEY=value`.
fn provided(provider: &Node, context: &Context<'_>) -> ProcessForm {
    let empty = Node::default();
    let options = provider.get("options").unwrap_or(&empty);
    let command = texts(options, "command");
    let command = match command.as_slice() {
        [] => None,
        [line] => cast::split(line).or_else(|| Some(command.clone())),
        _ => Some(command),
    };
    let first = |key: &str| texts(options, key).into_iter().next();
    ProcessForm {
        command,
        working_dir: first("working_dir").map(|path| context.absolute(&path)),
        build: texts(options, "build")
            .first()
            .and_then(|line| cast::split(line)),
        environment: texts(options, "environment")
            .into_iter()
            .map(|entry| match entry.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (entry, None),
            })
            .collect(),
        user: first("user"),
        names: None,
        healthcheck: None,
    }
}
