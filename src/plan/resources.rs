//! Networks, volumes and images that must exist before containers are made.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::plan::step::{Action, Cause, ProjectIdentity, StepId};
use crate::plan::{Inputs, Plan, Problem};
use crate::project::model::{MountKind, PullPolicy, Service};

/// The steps that make what containers share; filled on demand, each at most once.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) networks: BTreeMap<String, Option<StepId>>,
    pub(super) volumes: BTreeMap<String, Option<StepId>>,
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
            match &mount.kind {
                MountKind::Volume {
                    source: Some(key), ..
                } => needs.extend(self.volume(plan, inputs, project, key)),
                MountKind::Image { source, .. } => {
                    needs.extend(self.mounted_image(plan, inputs, service, source));
                }
                MountKind::Volume { .. } | MountKind::Bind { .. } | MountKind::Tmpfs { .. } => {}
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

    /// The step that pulls an image whose files are mounted, if it is missing.
    fn mounted_image(
        &mut self,
        plan: &mut Plan,
        inputs: &Inputs<'_>,
        service: &Arc<Service>,
        image: &str,
    ) -> Option<StepId> {
        let there = inputs.observed.images.contains_key(image);
        once(&mut self.images, image, || {
            let pull = Action::Pull {
                service: Arc::clone(service),
                image: image.to_owned(),
            };
            (!there).then(|| plan.add(pull, Cause::Missing, Vec::new()))
        })
    }

    fn network(
        &mut self,
        plan: &mut Plan,
        inputs: &Inputs<'_>,
        project: &Arc<ProjectIdentity>,
        key: &str,
    ) -> Option<StepId> {
        let network = inputs.project.networks.get(key)?;
        let wanted = Wanted {
            kind: "network",
            name: &network.name,
            external: network.external,
            exists: inputs.observed.networks.contains(&network.name),
        };
        let create = || Action::CreateNetwork {
            network: Arc::clone(network),
            project: Arc::clone(project),
        };
        once(&mut self.networks, key, || wanted.step(plan, create))
    }

    fn volume(
        &mut self,
        plan: &mut Plan,
        inputs: &Inputs<'_>,
        project: &Arc<ProjectIdentity>,
        key: &str,
    ) -> Option<StepId> {
        let volume = inputs.project.volumes.get(key)?;
        let wanted = Wanted {
            kind: "volume",
            name: &volume.name,
            external: volume.external,
            exists: inputs.observed.volumes.contains(&volume.name),
        };
        let create = || Action::CreateVolume {
            volume: Arc::clone(volume),
            project: Arc::clone(project),
        };
        once(&mut self.volumes, key, || wanted.step(plan, create))
    }
}

/// What is known about a key, found out at the first question.
fn once(
    known: &mut BTreeMap<String, Option<StepId>>,
    key: &str,
    find_out: impl FnOnce() -> Option<StepId>,
) -> Option<StepId> {
    *known.entry(key.to_owned()).or_insert_with(find_out)
}

/// A network or volume that a container needs.
struct Wanted<'a> {
    kind: &'static str,
    name: &'a str,
    external: bool,
    exists: bool,
}

impl Wanted<'_> {
    /// The step that makes it, where it is missing and ours to make.
    fn step(&self, plan: &mut Plan, create: impl FnOnce() -> Action) -> Option<StepId> {
        let Self { kind, name, .. } = self;
        match (self.exists, self.external) {
            (true, _) => None,
            (false, false) => Some(plan.add(create(), Cause::Missing, Vec::new())),
            (false, true) => {
                plan.problems.push(Problem {
                    message: format!("{kind} {name} is declared external and does not exist"),
                    hint: Some(format!("docker {kind} create {name}")),
                });
                None
            }
        }
    }
}
