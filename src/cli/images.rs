//! `wharf images`

use std::collections::BTreeSet;

use clap::builder::PossibleValue;
use serde_json::{Value, json};

use crate::backend::container::ImageFacts;
use crate::cli::context::Context;
use crate::cli::row::{Row, rows};
use crate::error::Result;
use crate::state::BackendKind;
use crate::ui::size::decimal;
use crate::ui::table::Table;
use crate::ui::template;
use crate::ui::time::docker_age;

/// List the images that the containers were made from
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Services to list [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// `table` or `json`
    #[arg(long, value_name = "FORMAT", default_value = "table", ignore_case = true, value_parser = [PossibleValue::new("table").alias(""), PossibleValue::new("json")])]
    format: String,
    /// Ids alone
    #[arg(short, long)]
    quiet: bool,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let named = context.name_or_project()?;
    let backends = context.backends()?;
    let (mut found, rest) = rows(&named, context, &backends, &args.services).await?;
    // Images are the engine's alone.
    rest.done()?;
    found.retain(|row| {
        row.backend == BackendKind::Container
            && (args.services.is_empty() || args.services.contains(&row.service))
    });
    let ids: BTreeSet<&str> = found.iter().map(|row| row.image().1).collect();
    if args.quiet {
        for id in ids {
            context.ui.data(id.trim_start_matches("sha256:"));
        }
        return Ok(());
    }
    let images = if ids.is_empty() {
        std::collections::BTreeMap::new()
    } else {
        backends.containers.images(&ids).await?
    };
    let known = found
        .iter()
        .map(|row| (row, images.get(row.image().1)))
        .collect::<Vec<_>>();
    if args.format.eq_ignore_ascii_case("json") {
        let all: Value = known
            .iter()
            .map(|(row, image)| object(row, *image))
            .collect();
        context.ui.data(template::json(&all));
        return Ok(());
    }
    let mut table = Table::new([
        "CONTAINER",
        "REPOSITORY",
        "TAG",
        "PLATFORM",
        "IMAGE ID",
        "SIZE",
        "CREATED",
    ])
    .wide();
    for (row, image) in known {
        let (repository, tag) = reference(row.image().0);
        let id = row.image().1.trim_start_matches("sha256:");
        let or_none = |text: String| {
            if text.is_empty() {
                "<none>".to_owned()
            } else {
                text
            }
        };
        table.row([
            row.name.clone(),
            or_none(repository),
            or_none(tag),
            image
                .map(|image| image.platform.clone())
                .unwrap_or_default(),
            id.get(..12).unwrap_or(id).to_owned(),
            decimal(image.map_or(0, |image| image.size)),
            created(image),
        ]);
    }
    context.ui.lines(table.lines());
    Ok(())
}

fn object(row: &Row, image: Option<&ImageFacts>) -> Value {
    let (repository, tag) = reference(row.image().0);
    let mut object = json!({
        "ID": row.image().1,
        "ContainerName": row.name,
        "Repository": repository,
        "Tag": tag,
    });
    if let (Some(image), Some(fields)) = (image, object.as_object_mut()) {
        fields.insert("Platform".to_owned(), json!(image.platform));
        fields.insert("Size".to_owned(), json!(image.size));
        fields.insert("LastTagTime".to_owned(), json!(image.tagged));
    }
    object
}

fn created(image: Option<&ImageFacts>) -> String {
    // Docker Compose counts from when the image got its name; without one, from when it was made.
    let time = image.and_then(|image| {
        [&image.tagged, &image.created]
            .into_iter()
            .filter_map(|text| text.parse::<jiff::Timestamp>().ok())
            .find(|time| time.as_second() > 0)
    });
    time.map_or_else(
        || "N/A".to_owned(),
        |time| {
            let age = jiff::Timestamp::now().duration_since(time).as_secs();
            format!("{} ago", docker_age(u64::try_from(age).unwrap_or(0)))
        },
    )
}

/// The repository and the tag of a reference as people write it: without Docker's own registry. Both are
/// empty for an id.
fn reference(text: &str) -> (String, String) {
    if text.starts_with("sha256:") {
        return (String::new(), String::new());
    }
    let (name, digest) = text
        .split_once('@')
        .map_or((text, false), |(name, _)| (name, true));
    let after_slash = name.rfind('/').map_or(0, |at| at + 1);
    let colon = name
        .get(after_slash..)
        .and_then(|last| last.find(':'))
        .map(|at| at + after_slash);
    let (repository, tag) = match colon {
        Some(at) => (
            name.get(..at).unwrap_or(name),
            name.get(at + 1..).unwrap_or_default(),
        ),
        None => (name, if digest { "" } else { "latest" }),
    };
    let repository = repository
        .strip_prefix("docker.io/")
        .map_or(repository, |rest| {
            rest.strip_prefix("library/").unwrap_or(rest)
        });
    (repository.to_owned(), tag.to_owned())
}

#[cfg(test)]
mod tests {
    use super::reference;

    #[test]
    fn references_are_taken_apart() {
        let digest = format!("busy@sha256:{}", "0".repeat(64));
        for (text, repository, tag) in [
            ("busy", "busy", "latest"),
            ("docker.io/library/busy:1", "busy", "1"),
            ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b", "latest"),
            ("127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b", "c"),
            (digest.as_str(), "busy", ""),
            ("sha256:00", "", ""),
        ] {
            assert_eq!(
                reference(text),
                (repository.to_owned(), tag.to_owned()),
                "{text}"
            );
        }
    }
}
