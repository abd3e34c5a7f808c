//! Networks, volumes and images that must exist before containers are made.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::plan::step::{Action, Cause, ProjectIdentity, StepId};
use crate::plan::{Inputs, Plan, Problem};
use crate::project::model::{MountKind, PullPolicy, Service};

/// The steps that make what containers share; filled on demand, each at most once.
#[derive(Debug, Default)]
pub(super) struct Shared {
    networks: BTreeMap<String, Option<StepId>>,
    volumes: BTreeMap<String, Option<StepId>>,
    images: BTreeMap<String, Option<StepId>>,
}

impl Shared {
    /// Steps that must precede the creation of a container of `service`.
    pub(super) fn for_container(
        &mut self,
        plan: &mut Plan,
        inputs: &Inputs<'_>,
        project: &Arc<ProjectIdentity>,
        service: &Arc<Service>,
    ) -> Vec<StepId> {
        let mut needs = Vec::new();
        needs.extend(self.image(plan, inputs, project, service));
        for key in service.networks.keys() {
            needs.extend(self.network(plan, inputs, project, key));
        }
        for mount in &service.volumes {
            if let MountKind::Volume {
                source: Some(key), ..
            } = &mount.kind
            {
                needs.extend(self.volume(plan, inputs, project, key));
            }
        }
        needs
    }

    /// The step that builds or pulls the service's image, if one is due.
    pub(super) fn image(
        &mut self,
        plan: &mut Plan,
        inputs: &Inputs<'_>,
        project: &Arc<ProjectIdentity>,
        service: &Arc<Service>,
    ) -> Option<StepId> {
        let image = service.image_name(&inputs.project.name);
        if let Some(known) = self.images.get(&image) {
            return *known;
        }
        let there = inputs.observed.images.contains_key(&image);
        let policy = service.pull_policy.as_ref();
        let pull_always = inputs.policy.pull || policy == Some(&PullPolicy::Always);
        let build_always = inputs.policy.build || policy == Some(&PullPolicy::Build);
        let mut step = None;
        if service.build.is_some() {
            if (build_always || !there) && !inputs.policy.no_build {
                let cause = if there {
                    Cause::Requested("--build")
                } else {
                    Cause::Missing
                };
                let build = Action::Build {
                    service: Arc::clone(service),
                    image: image.clone(),
                    project: Arc::clone(project),
                };
                step = Some(plan.add(build, cause, Vec::new()));
            } else if !there {
                plan.problems.push(Problem {
                    message: format!(
                        "image {image} does not exist and --no-build forbids to build it"
                    ),
                    hint: Some(format!("wharf build {}", service.name)),
                });
            }
        } else if (!there || pull_always) && policy != Some(&PullPolicy::Never) {
            let cause = if there {
                Cause::Requested("--pull")
            } else {
                Cause::Missing
            };
            let pull = Action::Pull {
                service: Arc::clone(service),
                image: image.clone(),
            };
            step = Some(plan.add(pull, cause, Vec::new()));
        } else if !there {
            plan.problems.push(Problem {
                message: format!(
                    "image {image} does not exist and `pull_policy: never` forbids to pull it"
                ),
                hint: Some(format!("docker pull {image}")),
            });
        }
        self.images.insert(image, step);
        step
    }

    fn network(
        &mut self,
        plan: &mut Plan,
        inputs: &Inputs<'_>,
        project: &Arc<ProjectIdentity>,
        key: &str,
    ) -> Option<StepId> {
        if let Some(known) = self.networks.get(key) {
            return *known;
        }
        let network = inputs.project.networks.get(key)?;
        let there = inputs.observed.networks.contains(&network.name);
        let step = if there {
            None
        } else if network.external {
            plan.problems.push(Problem {
                message: format!(
                    "network {} is declared external and does not exist",
                    network.name
                ),
                hint: Some(format!("docker network create {}", network.name)),
            });
            None
        } else {
            let create = Action::CreateNetwork {
                network: Arc::clone(network),
                project: Arc::clone(project),
            };
            Some(plan.add(create, Cause::Missing, Vec::new()))
        };
        self.networks.insert(key.to_owned(), step);
        step
    }

    fn volume(
        &mut self,
        plan: &mut Plan,
        inputs: &Inputs<'_>,
        project: &Arc<ProjectIdentity>,
        key: &str,
    ) -> Option<StepId> {
        if let Some(known) = self.volumes.get(key) {
            return *known;
        }
        let volume = inputs.project.volumes.get(key)?;
        let there = inputs.observed.volumes.contains(&volume.name);
        let step = if there {
            None
        } else if volume.external {
            plan.problems.push(Problem {
                message: format!(
                    "volume {} is declared external and does not exist",
                    volume.name
                ),
                hint: Some(format!("docker volume create {}", volume.name)),
            });
            None
        } else {
            let create = Action::CreateVolume {
                volume: Arc::clone(volume),
                project: Arc::clone(project),
            };
            Some(plan.add(create, Cause::Missing, Vec::new()))
        };
        self.volumes.insert(key.to_owned(), step);
        step
    }
}
