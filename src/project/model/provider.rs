//! `services.*.provider`: a program that provides the service in place of an engine, and what it tells
//! the services that depend on it. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Project, Service, digest, escaped};

/// The name of a variable that no environment can have; it keeps the place of an empty environment.
pub(crate) const NO_VARIABLE: &str = "=";

/// A program that provides a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provider {
    /// The name of the program: a plugin of the Docker client, or a command on PATH.
    pub kind: String,
    /// What it is told, `--NAME=VALUE` for each.
    pub options: BTreeMap<String, Vec<String>>,
    /// The variables of the project, which it runs with.
    pub environment: BTreeMap<String, String>,
}

/// What a provider has told, for the services that depend on the one it provides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables {
    /// Named after the service: `URL` of `db` becomes `DB_URL`.
    pub prefixed: BTreeMap<String, String>,
    /// Named as they are.
    pub raw: BTreeMap<String, String>,
}

impl Variables {
    /// As dependents of `service` get them.
    pub fn of(&self, service: &str) -> BTreeMap<String, String> {
        let prefix = service.to_uppercase();
        let prefixed = self.prefixed.iter();
        let mut all: BTreeMap<String, String> = prefixed
            .map(|(name, value)| (format!("{prefix}_{name}"), value.clone()))
            .collect();
        all.extend(self.raw.clone());
        all
    }
}

impl Project {
    /// The project with what the provider of `name` told its dependents, and what it overrides there, as
    /// pairs of service and variable.
    #[must_use]
    pub fn with_provided(
        &self,
        name: &str,
        variables: &Variables,
    ) -> (Self, Vec<(String, String)>) {
        let told = variables.of(name);
        let mut project = self.clone();
        let mut overridden = Vec::new();
        for service in project.services.values_mut() {
            if told.is_empty() || !service.depends_on.contains_key(name) {
                continue;
            }
            let is_other = |(name, value): &(&String, &String)| {
                let own = service.environment.get(*name);
                own.is_some_and(|own| own != *value)
            };
            let others = variables.raw.iter().filter(is_other);
            overridden.extend(others.map(|(variable, _)| (service.name.clone(), variable.clone())));
            *service = Arc::new(service.with_variables(&told));
        }
        (project, overridden)
    }
}

impl Service {
    /// The service with these variables in its environment, and the hash that it has with them.
    #[must_use]
    pub fn with_variables(&self, added: &BTreeMap<String, String>) -> Self {
        let mut service = self.clone();
        service.environment.extend(added.clone());
        service.unset.retain(|name| !added.contains_key(name));
        let Some(form) = &self.provided_form else {
            return service;
        };
        let form = with_environment(form, added);
        if let Some(text) = &form {
            service.config_hash = digest(text);
            if service.shared_form.is_some() {
                service.shared_form = Some(text.clone());
            }
        }
        service.provided_form = form;
        service
    }
}

/// The text of a hash with more variables in it, in the order in which Docker Compose writes them.
fn with_environment(form: &str, added: &BTreeMap<String, String>) -> Option<String> {
    let mut form: Map<String, Value> = serde_json::from_str(form).ok()?;
    let environment = form.get_mut("environment")?.as_object_mut()?;
    let mut all: BTreeMap<String, Value> = std::mem::take(environment).into_iter().collect();
    all.remove(NO_VARIABLE);
    for (name, value) in added {
        all.insert(name.clone(), value.as_str().into());
    }
    environment.extend(all);
    Some(escaped(&Value::Object(form).to_string()))
}
