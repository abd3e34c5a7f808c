//! What happens to the containers of a project, by the engine's event stream.

use std::fmt::Write as _;

use bollard::errors::Error;
use futures_util::{Stream, StreamExt, TryStreamExt};
use hyper::{Method, Request};
use serde_json::Value;

use super::observe::encoded;
use super::{Containers, labels, wire};
use crate::backend::BackendError;
use crate::backend::happening::{Happening, Span};
use crate::naming::ROLE;
use crate::state::BackendKind;

const SECOND: i64 = 1_000_000_000;

impl Containers {
    /// What happens to the containers of a project. Nothing is missed from the moment that this returns;
    /// ends at `until`.
    pub async fn happenings(
        &self,
        project: &str,
        span: Span,
    ) -> Result<impl Stream<Item = Result<Happening, BackendError>> + use<>, BackendError> {
        self.happenings_of(project, span, &[]).await
    }

    /// The same for these actions alone, or for all where none is given.
    ///
    /// # Errors
    /// The engine does not answer, or refuses.
    pub async fn happenings_of(
        &self,
        project: &str,
        span: Span,
        actions: &[&str],
    ) -> Result<impl Stream<Item = Result<Happening, BackendError>> + use<>, BackendError> {
        let engine = self.engine().await?;
        let label = format!("{}={project}", labels::PROJECT);
        let mut filters = serde_json::json!({ "type": ["container"], "label": [label] });
        if !actions.is_empty() {
            filters["event"] = actions.into();
        }
        let mut path = format!("/events?filters={}", encoded(&filters.to_string()));
        for (name, time) in [("since", span.since), ("until", span.until)] {
            if let Some(time) = time {
                let (seconds, rest) = (time.div_euclid(SECOND), time.rem_euclid(SECOND));
                // Writing to a string cannot fail.
                let _: std::fmt::Result = write!(path, "&{name}={seconds}.{rest:09}");
            }
        }
        let refused = {
            let endpoint = engine.info.endpoint.clone();
            move |error: Error| super::fault::refused(&endpoint, "tell its events", error)
        };
        let request = Request::builder()
            .method(Method::GET)
            .uri(path)
            .body(bollard::body_full(Vec::new().into()))
            .map_err(|error| refused(error.into()))?;
        let response = engine.wire.checked(request).await.map_err(&refused)?;
        Ok(wire::json_lines(response.into_body())
            .map_err(refused)
            .filter_map(|event| async move { event.map(|event| happening(&event)).transpose() }))
    }
}

fn happening(event: &Value) -> Option<Happening> {
    let actor = &event["Actor"];
    let all = actor["Attributes"].as_object()?;
    let attribute = |name: &str| all.get(name).and_then(Value::as_str).unwrap_or_default();
    // Relays come and go with the services that they stand for.
    if all.contains_key(ROLE) {
        return None;
    }
    let time = event["timeNano"]
        .as_i64()
        .or_else(|| Some(event["time"].as_i64()?.saturating_mul(SECOND)))?;
    Some(Happening {
        time,
        backend: BackendKind::Container,
        id: actor["ID"].as_str()?.to_owned(),
        name: attribute("name").to_owned(),
        service: attribute(labels::SERVICE).to_owned(),
        one_off: attribute(labels::ONE_OFF) == "True",
        action: event["Action"].as_str()?.to_owned(),
        // The labels by which Docker Compose and wharf find their things say nothing new.
        attributes: all
            .iter()
            .filter(|(name, _)| !name.starts_with(labels::OWN) && !name.starts_with("wharf."))
            .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect(),
    })
}
