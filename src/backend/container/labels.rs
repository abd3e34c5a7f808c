//! The labels by which Docker Compose and wharf find each other's things.
//!
//! Names and values are Docker Compose's own, so that both tools list, log and stop what either of them
//! started. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::convert::Surroundings;
use super::hooks;
use crate::naming::HOOK;
use crate::plan::step::{InstanceSpec, ProjectIdentity};
use crate::project::model::{Condition, Service};

/// What the labels of Docker Compose begin with.
pub(super) const OWN: &str = "com.docker.compose.";
/// The project's name; on everything a project makes.
pub(super) const PROJECT: &str = "com.docker.compose.project";
/// The service's name.
pub(super) const SERVICE: &str = "com.docker.compose.service";
/// The version of the tool that made it: Docker Compose's, or wharf's own. Nothing compares it.
pub(super) const VERSION: &str = "com.docker.compose.version";
/// The project's directory.
pub(super) const WORKING_DIR: &str = "com.docker.compose.project.working_dir";
/// The compose files, joined by commas.
pub(super) const CONFIG_FILES: &str = "com.docker.compose.project.config_files";
/// The env files that were asked for, joined by commas; not there where none was.
pub(super) const ENV_FILES: &str = "com.docker.compose.project.environment_file";
/// `True` for the containers of `run`.
pub(super) const ONE_OFF: &str = "com.docker.compose.oneoff";
/// What such a container has in place of a number.
pub(super) const SLUG: &str = "com.docker.compose.slug";
/// What it was made from.
pub(super) const CONFIG_HASH: &str = "com.docker.compose.config-hash";
/// The replica's number.
pub(super) const NUMBER: &str = "com.docker.compose.container-number";
/// `service:condition:restart`, joined by commas.
pub(super) const DEPENDS_ON: &str = "com.docker.compose.depends_on";
/// The image's id.
pub(super) const IMAGE: &str = "com.docker.compose.image";
/// On a container made in another one's place, the name (`service-N`, or `container_name`) of what it replaced.
pub(super) const REPLACE: &str = "com.docker.compose.replace";
/// A network's key.
pub(super) const NETWORK: &str = "com.docker.compose.network";
/// A volume's key.
pub(super) const VOLUME: &str = "com.docker.compose.volume";
/// Which builder made an image, when it was not `BuildKit`.
pub(super) const BUILDER: &str = "com.docker.compose.image.builder";
/// wharf's own: how to tell that the instance answers (JSON).
pub(super) const READY: &str = "wharf.ready";

/// wharf's own: commands to run in it after its start (JSON).
pub(super) const POST_START: &str = "wharf.post_start";
/// wharf's own: commands to run in it before it is stopped (JSON).
pub(super) const PRE_STOP: &str = "wharf.pre_stop";

/// What wharf writes where Docker Compose writes its version.
pub(super) const OUR_VERSION: &str = env!("CARGO_PKG_VERSION");

/// A container's labels: the service's own, and on top of them those of the project.
pub(super) fn of_container(spec: &InstanceSpec, around: &Surroundings) -> BTreeMap<String, String> {
    let mut labels = spec.service.labels.clone();
    labels.extend(of_project(&spec.project));
    labels.extend(hooks::recorded(&spec.service));
    let mut set = |name: &str, value: String| labels.insert(name.to_owned(), value);
    set(SERVICE, spec.service.name.clone());
    set(WORKING_DIR, spec.project.working_dir.display().to_string());
    set(CONFIG_FILES, joined(&spec.project.config_files));
    if !spec.project.env_files.is_empty() {
        set(ENV_FILES, joined(&spec.project.env_files));
    }
    if spec.service.labels.contains_key(HOOK) {
        // It is none of the service's instances, so nothing that tells one of them.
        labels.insert(IMAGE.to_owned(), around.image_id.clone());
        return labels;
    }
    if let Some(one_off) = &spec.one_off {
        set(ONE_OFF, "True".to_owned());
        set(SLUG, one_off.slug.clone());
    } else {
        set(ONE_OFF, "False".to_owned());
        set(NUMBER, spec.number.to_string());
    }
    set(CONFIG_HASH, around.fingerprint.0.clone());
    set(DEPENDS_ON, dependencies(&spec.service));
    set(IMAGE, around.image_id.clone());
    if spec.replaces.is_some() {
        let own = format!("{}-{}", spec.service.name, spec.number);
        set(REPLACE, spec.service.container_name.clone().unwrap_or(own));
    }
    if let Some(ready) = &spec.readiness
        && let Ok(text) = serde_json::to_string(ready)
    {
        set(READY, text);
    }
    labels
}

/// The labels that everything of a project has.
pub(super) fn of_project(project: &ProjectIdentity) -> BTreeMap<String, String> {
    BTreeMap::from([
        (PROJECT.to_owned(), project.name.clone()),
        (VERSION.to_owned(), OUR_VERSION.to_owned()),
    ])
}

/// The labels of an image that is built for a service; the classic builder adds its own.
pub(super) fn of_image(project: &ProjectIdentity, service: &Service) -> BTreeMap<String, String> {
    let mut labels = service
        .build
        .as_ref()
        .map(|build| build.labels.clone())
        .unwrap_or_default();
    labels.extend(of_project(project));
    labels.insert(SERVICE.to_owned(), service.name.clone());
    labels
}

fn joined(files: &[PathBuf]) -> String {
    let files: Vec<String> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    files.join(",")
}

/// What a service depends on, as the label says it.
pub(in crate::backend) fn dependencies(service: &Service) -> String {
    let dependencies: Vec<String> = service
        .depends_on
        .iter()
        .map(|(name, dependency)| {
            let condition = match dependency.condition {
                Condition::Started => "service_started",
                Condition::Healthy => "service_healthy",
                Condition::CompletedSuccessfully => "service_completed_successfully",
            };
            format!("{name}:{condition}:{}", dependency.restart)
        })
        .collect();
    dependencies.join(",")
}
