//! The plan of `build`: one step an image, the images that others start from first.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::plan::Plan;
use crate::plan::spec::identity;
use crate::plan::step::{Action, Cause, StepId};
use crate::project::model::{Build, Project, Service};

/// Builds the images of these services (none: all that are built), and those that they start from.
pub fn builds(project: &Project, services: &[String]) -> Plan {
    let mut builds = Builds {
        project,
        plan: Plan::default(),
        known: BTreeMap::new(),
    };
    for (name, service) in &project.services {
        if services.is_empty() || services.contains(name) {
            builds.service(service);
        }
    }
    builds.plan
}

struct Builds<'a> {
    project: &'a Project,
    plan: Plan,
    /// By image: two services may share one.
    known: BTreeMap<String, Option<StepId>>,
}

impl Builds<'_> {
    fn service(&mut self, service: &Arc<Service>) -> Option<StepId> {
        let build = service.build.as_ref()?;
        let image = service.image_name(&self.project.name);
        if let Some(known) = self.known.get(&image) {
            return *known;
        }
        // What a circle of contexts would ask for again is under way already.
        self.known.insert(image.clone(), None);
        let project = self.project;
        let needs = Build::services(build)
            .filter_map(|name| project.services.get(name))
            .filter_map(|other| self.service(other))
            .collect();
        let action = Action::Build {
            service: Arc::clone(service),
            image: image.clone(),
            pull_first: false,
            project: identity(project),
        };
        let step = self.plan.add(action, Cause::Requested("build"), needs);
        self.known.insert(image, Some(step));
        Some(step)
    }
}
