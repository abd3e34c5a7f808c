//! Services that another program provides: brought up before anything else is planned, because what
//! their providers tell is part of what dependents are made from.

use std::sync::Arc;

use crate::backend::router::Backends;
use crate::cli::carry_out::{Quiet, carry_out_quietly};
use crate::cli::context::{Context, Named};
use crate::cli::settle::settle;
use crate::error::Result;
use crate::plan::down::Provided;
use crate::plan::placement::Placement;
use crate::plan::policy::Policy;
use crate::plan::step::{Action, Provision};
use crate::project::model::Project;

/// Has the providers bring their services up, each after what it depends on; the project with what they
/// told. With `--dry-run` nothing happens, and the plan has a step for each.
///
/// # Errors
/// A provider that fails, or what comes before it.
pub(super) async fn provide(
    context: &Context,
    backends: &Backends,
    mut project: Project,
    placement: &Placement,
    policy: &mut Policy,
    quiet: Quiet,
) -> Result<Project> {
    let is_provided = |project: &Project| {
        let mut services = project.services.values();
        services.any(|service| service.provider.is_some())
    };
    if context.global.dry_run || !is_provided(&project) {
        return Ok(project);
    }
    loop {
        let settled = settle(context, backends, &project, placement, policy).await?;
        let due = settled.plan.providing();
        if due.steps.is_empty() {
            return Ok(project);
        }
        let made = carry_out_quietly(context, backends, &due, quiet).await?;
        for step in &due.steps {
            if let Action::Provide { service, .. } = &step.action {
                let name = &service.name;
                let variables = made.told(step.id);
                let (told, overridden) = project.with_provided(name, &variables);
                project = told;
                for (service, variable) in overridden {
                    context.ui.warn(format!(
                        "the provider of `{name}` overrides {variable} of service `{service}`"
                    ));
                }
                if let Some(once) = &mut policy.once
                    && let Some(service) = project.services.get(&once.service.name)
                {
                    let told = variables.of(name);
                    if service.depends_on.contains_key(name) {
                        once.service = Arc::new(once.service.with_variables(&told));
                    }
                }
                policy.provided.insert(name.clone());
            } else if let Some((service, _)) = step.action.renews() {
                policy.renewed.insert(service.to_owned());
            }
        }
    }
}

/// The providers that take part in ending these services (none: all).
pub(super) async fn ending(
    context: &Context,
    backends: &Backends,
    named: &Named,
    services: &[String],
    what: Provision,
) -> Vec<Provided> {
    let Some(project) = context.declared(named) else {
        return Vec::new();
    };
    let mut providers = Vec::new();
    for service in project.services.values() {
        let is_named = services.is_empty() || services.contains(&service.name);
        if service.provider.is_none() || !is_named {
            continue;
        }
        // Not every provider knows the word.
        if what == Provision::Stop && !backends.providers.can_stop(service, &project.name).await {
            continue;
        }
        providers.push(Provided {
            service: Arc::clone(service),
            project: project.name.clone(),
            what,
        });
    }
    providers
}
