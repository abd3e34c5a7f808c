//! What a service says of other services, as the engine takes it: their containers.
//!
//! A namespace, volumes or links of another service are those of its containers, which must exist when
//! the container is made.

use std::collections::BTreeMap;

use super::reply::Listed;
use super::{Engine, labels, observe};
use crate::backend::BackendError;
use crate::naming::{Role, is_left};
use crate::plan::step::InstanceSpec;
use crate::project::model::volumes_of;
use crate::state::Fingerprint;

/// The containers of the services that an instance refers to.
#[derive(Debug)]
pub(super) struct References<'a> {
    spec: &'a InstanceSpec,
    /// Each service's containers, by name.
    containers: BTreeMap<String, Vec<Container>>,
}

/// A container that is referred to. The service's own come first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Container {
    /// Whether it is a relay in the place of a local service.
    stands_in: bool,
    /// What a link to it names.
    target: String,
    id: String,
}

impl<'a> References<'a> {
    /// Lists the project's containers, if the service refers to any.
    pub(super) async fn look_up(
        engine: &Engine,
        spec: &'a InstanceSpec,
    ) -> Result<Self, BackendError> {
        let mut references = Self {
            spec,
            containers: BTreeMap::new(),
        };
        if spec.service.shares_with().next().is_none() && spec.service.links.is_empty() {
            return Ok(references);
        }
        let having = [
            format!("{}={}", labels::PROJECT, spec.project.name),
            format!("{}=False", labels::ONE_OFF),
        ];
        let having: Vec<&str> = having.iter().map(String::as_str).collect();
        let found = observe::list(engine, &having)
            .await
            .map_err(|error| engine.refused(format!("create {}", spec.name), error))?;
        for entry in found {
            let Some(service) = entry.labels.get(labels::SERVICE) else {
                continue;
            };
            let stands_in = Role::of(&entry.labels).is_some();
            let container = Container {
                stands_in,
                target: if stands_in {
                    // Its own name goes with it, and the service's stays with whoever comes after it.
                    service.clone()
                } else {
                    name(&entry)
                },
                id: entry.id.clone(),
            };
            let containers = references.containers.entry(service.clone()).or_default();
            containers.push(container);
        }
        references.keep_replicas();
        Ok(references)
    }

    /// Leaves out what waits for another one's name: it goes, and does not run before.
    fn keep_replicas(&mut self) {
        for containers in self.containers.values_mut() {
            let names: Vec<String> = containers.iter().map(|it| it.target.clone()).collect();
            containers.retain(|it| !is_left(&it.target, names.iter().map(String::as_str)));
            containers.sort();
        }
    }

    /// `service:x` as the container of that service; other modes are the engine's own words.
    pub(super) fn mode(&self, mode: Option<&str>) -> Result<Option<String>, BackendError> {
        match mode.and_then(|mode| mode.strip_prefix("service:")) {
            Some(service) => Ok(Some(format!("container:{}", self.first(service)?))),
            None => Ok(mode.map(str::to_owned)),
        }
    }

    /// `volumes_from` by container.
    pub(super) fn volumes_from(&self) -> Result<Vec<String>, BackendError> {
        for entry in &self.spec.service.volumes_from {
            let service = entry.split(':').next().unwrap_or_default();
            if service != "container" {
                self.first(service)?;
            }
        }
        let id = |service: &str| self.first(service).ok();
        let entries = self.spec.service.volumes_from.iter();
        Ok(entries.map(|entry| volumes_of(entry, id)).collect())
    }

    /// `container:name` for every name that a linked container gets, as Docker Compose gives them.
    pub(super) fn links(&self) -> Vec<String> {
        let spec = self.spec;
        let mut links = Vec::new();
        for link in &spec.service.links {
            let (service, alias) = link.split_once(':').unwrap_or((link, link));
            let all = self.containers.get(service).map_or(&[][..], Vec::as_slice);
            let kind = all.first().map(|first| first.stands_in);
            for container in all.iter().filter(|it| Some(it.stands_in) == kind) {
                let target = &container.target;
                links.push(format!("{target}:{alias}"));
                links.push(format!("{target}:{service}-{}", spec.number));
                links.push(format!(
                    "{target}:{}-{service}-{}",
                    spec.project.name, spec.number
                ));
            }
        }
        for link in &spec.service.external_links {
            let (container, alias) = link.split_once(':').unwrap_or((link, link));
            links.push(format!("{container}:{alias}"));
        }
        links
    }

    /// What the container is made from, by the containers it refers to.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        if self.spec.service.shared_form.is_none() {
            return self.spec.fingerprint.clone();
        }
        let id = |service: &str| self.first(service).ok();
        Fingerprint(self.spec.service.hash_beside(id))
    }

    fn first(&self, service: &str) -> Result<String, BackendError> {
        let containers = self.containers.get(service);
        match containers.and_then(|containers| containers.first()) {
            Some(container) => Ok(container.id.clone()),
            None => Err(BackendError::Unsupported(format!(
                "{}: service `{service}`, whose namespace or volumes it shares, has no container",
                self.spec.name
            ))),
        }
    }
}

/// Links add further names with a slash inside.
fn name(entry: &Listed) -> String {
    entry
        .names
        .iter()
        .map(|name| name.trim_start_matches('/'))
        .find(|name| !name.contains('/'))
        .unwrap_or_default()
        .to_owned()
}
