//! Networks, volumes and images that must exist before containers are made.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::plan::step::{Action, Cause, ProjectIdentity, StepId};
use crate::plan::{Inputs, Plan, Problem};
use crate::project::model::{Build, MountKind, PullPolicy, Service};

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
        let mut needs = self.images(plan, inputs, project, service);
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

    /// The steps that bring the images of a service's containers, if some are due.
    pub(super) fn images(
        &mut self,
        plan: &mut Plan,
        inputs: &Inputs<'_>,
        project: &Arc<ProjectIdentity>,
        service: &Arc<Service>,
    ) -> Vec<StepId> {
        let mut steps: Vec<StepId> = self
            .image(plan, inputs, project, service)
            .into_iter()
            .collect();
        for mount in &service.volumes {
            if let MountKind::Image { source, .. } = &mount.kind {
                steps.extend(self.further_image(plan, inputs, service, source));
            }
        }
        for image in service
            .pre_start
            .iter()
            .filter_map(|hook| hook.image.as_ref())
        {
            let builder = inputs.project.services.values().find(|other| {
                other.build.is_some() && other.image_name(&inputs.project.name) == *image
            });
            steps.extend(match builder {
                Some(other) => self.image(plan, inputs, project, other),
                None => self.further_image(plan, inputs, service, image),
            });
        }
        steps
    }

    /// All networks and volumes of the project, used or not.
    pub(super) fn everything(
        &mut self,
        plan: &mut Plan,
        inputs: &Inputs<'_>,
        project: &Arc<ProjectIdentity>,
    ) {
        for key in inputs.project.networks.keys() {
            self.network(plan, inputs, project, key);
        }
        for key in inputs.project.volumes.keys() {
            self.volume(plan, inputs, project, key);
        }
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
        let due = if there && inputs.policy.images_done {
            Due::Nothing
        } else {
            due(inputs, service, &image, there)
        };
        let cause = if !there {
            Cause::Missing
        } else if matches!(due, Due::Build { .. }) && inputs.policy.build {
            Cause::Requested("--build")
        } else if inputs.policy.pull {
            Cause::Requested("--pull")
        } else {
            Cause::Requested("pull_policy")
        };
        let step = match due {
            Due::Nothing => None,
            Due::Build { pull_first } => {
                let needs = self.contexts(plan, inputs, project, service);
                let build = Action::Build {
                    service: Arc::clone(service),
                    image: image.clone(),
                    pull_first,
                    project: Arc::clone(project),
                };
                Some(plan.add(build, cause, needs))
            }
            Due::Pull => {
                let pull = Action::Pull {
                    service: Arc::clone(service),
                    image: image.clone(),
                };
                Some(plan.add(pull, cause, Vec::new()))
            }
            Due::Problem(problem) => {
                plan.problems.push(problem);
                None
            }
        };
        self.images.insert(image, step);
        step
    }

    /// The step that pulls an image whose files are mounted, if it is missing.
    fn further_image(
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

    /// The steps that make the images which the service's build starts from.
    fn contexts(
        &mut self,
        plan: &mut Plan,
        inputs: &Inputs<'_>,
        project: &Arc<ProjectIdentity>,
        service: &Service,
    ) -> Vec<StepId> {
        // What a circle of contexts would ask for again is under way already.
        self.images
            .insert(service.image_name(&inputs.project.name), None);
        let contexts = service.build.iter().flat_map(Build::services);
        let others: Vec<&Arc<Service>> = contexts
            .filter_map(|name| inputs.project.services.get(name))
            .collect();
        others
            .into_iter()
            .filter_map(|other| self.image(plan, inputs, project, other))
            .collect()
    }

    /// The step that loads the image of relays, if it is not there.
    pub(super) fn loaded(&mut self, image: &str, there: bool, plan: &mut Plan) -> Option<StepId> {
        once(&mut self.images, image, || {
            let load = Action::LoadRelay {
                image: image.to_owned(),
            };
            (!there).then(|| plan.add(load, Cause::Missing, Vec::new()))
        })
    }

    pub(super) fn network(
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
            is_ours: inputs.observed.network_hashes.contains_key(&network.name),
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
            is_ours: inputs.observed.volume_hashes.contains_key(&volume.name),
        };
        let create = || Action::CreateVolume {
            volume: Arc::clone(volume),
            project: Arc::clone(project),
        };
        once(&mut self.volumes, key, || wanted.step(plan, create))
    }
}

/// What an image needs.
enum Due {
    Nothing,
    Pull,
    Build { pull_first: bool },
    Problem(Problem),
}

/// What an image needs by the service's policy and the command's.
fn due(inputs: &Inputs<'_>, service: &Service, image: &str, there: bool) -> Due {
    let decisions = inputs.policy;
    let policy = decisions
        .pull_policy
        .as_ref()
        .or(service.pull_policy.as_ref())
        .unwrap_or(&PullPolicy::Missing);
    // Only what has a name of its own can be in a registry.
    let pulls = service.image.is_some()
        && match policy {
            _ if decisions.pull => true,
            PullPolicy::Always => true,
            PullPolicy::Never | PullPolicy::Build => false,
            PullPolicy::Missing => !there,
            PullPolicy::Every(_) => !there || inputs.observed.stale.contains(image),
        };
    let builds = service.build.is_some() && !decisions.no_build;
    if builds && (decisions.build || *policy == PullPolicy::Build) {
        return Due::Build { pull_first: false };
    }
    match (pulls, builds) {
        (true, true) => Due::Build { pull_first: true },
        (true, false) => Due::Pull,
        _ if there => Due::Nothing,
        (false, true) => Due::Build { pull_first: false },
        (false, false) if service.build.is_some() => Due::Problem(Problem {
            message: format!("image {image} does not exist and --no-build forbids to build it"),
            hint: Some(format!("wharf build {}", service.name)),
        }),
        (false, false) => {
            let who = match decisions.pull_policy {
                Some(_) => "--pull never",
                None if *policy == PullPolicy::Build => "`pull_policy: build`",
                None => "`pull_policy: never`",
            };
            let state = match (inputs.observed.misfits.get(image), &service.platform) {
                (Some(platform), Some(asked)) => format!("is here for {platform}, not {asked},"),
                _ => "does not exist".to_owned(),
            };
            Due::Problem(Problem {
                message: format!("image {image} {state} and {who} forbids to pull it"),
                hint: Some(match &service.platform {
                    Some(asked) => format!("docker pull --platform {asked} {image}"),
                    None => format!("docker pull {image}"),
                }),
            })
        }
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
    /// Whether the project made it.
    is_ours: bool,
}

impl Wanted<'_> {
    /// Somebody else's thing has the name. A volume is used all the same, as Docker Compose does.
    fn is_foreign(&self, plan: &mut Plan) {
        let Self { kind, name, .. } = self;
        let hint = format!("declare it with `external: true` and `name: {name}` to use it");
        let message = format!("{kind} {name} exists and was not made by this project");
        if self.kind == "volume" {
            plan.notes.push(format!("{message}; {hint}"));
        } else {
            plan.problems.push(Problem {
                message,
                hint: Some(hint),
            });
        }
    }

    /// The step that makes it, where it is missing and ours to make.
    fn step(&self, plan: &mut Plan, create: impl FnOnce() -> Action) -> Option<StepId> {
        let Self { kind, name, .. } = self;
        if self.exists && !self.external && !self.is_ours {
            self.is_foreign(plan);
            return None;
        }
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
