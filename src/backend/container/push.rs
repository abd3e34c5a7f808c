//! Pushing an image: one request for each name, its progress as lines. And the requests of `pull` and
//! `build`, which are made without a plan.

use std::sync::Arc;

use hyper::{Method, Request};

use super::observe::encoded;
use super::pull::{followed, reference};
use super::{Containers, build, pull, registry, wire};
use crate::backend::BackendError;
use crate::event::Events;
use crate::plan::step::ProjectIdentity;
use crate::project::model::Service;
use crate::project::reference::Reference;

impl Containers {
    /// Pushes an image under the name it has.
    pub async fn push(
        &self,
        subject: &str,
        image: &str,
        events: &Events,
    ) -> Result<(), BackendError> {
        let engine = self.engine().await?;
        let registry = Reference::parse(image).map(|image| image.registry);
        let registry = registry.unwrap_or_default();
        let done = async {
            let identity = engine.credentials.for_push(image).await;
            engine.credentials.tell(events);
            let (name, tag) = reference(image);
            let path: Vec<String> = name.split('/').map(encoded).collect();
            let request = Request::builder()
                .method(Method::POST)
                .uri(format!(
                    "/images/{}/push?tag={}",
                    path.join("/"),
                    encoded(tag)
                ))
                .header(wire::REGISTRY_AUTH, identity);
            followed(engine, request, subject, events).await
        };
        let action = format!("cannot push image {image}");
        done.await
            .map_err(|error| registry::refusal(engine, action, &registry, error))
    }

    /// Pulls a service's image.
    pub async fn pull(
        &self,
        service: &Service,
        image: &str,
        events: &Events,
    ) -> Result<(), BackendError> {
        let engine = self.engine().await?;
        let platform = service.platform.as_deref();
        pull::image(engine, &service.name, image, platform, events).await
    }

    /// Builds a service's image.
    pub async fn build(
        &self,
        service: &Arc<Service>,
        image: &str,
        project: &ProjectIdentity,
        events: &Events,
    ) -> Result<(), BackendError> {
        let site = build::Site {
            service,
            image,
            project,
            events,
        };
        build::image(self.engine().await?, site).await
    }
}
