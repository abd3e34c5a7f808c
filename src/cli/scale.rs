//! `wharf scale`: `up` for the named services, with these numbers of replicas.

use std::collections::BTreeMap;

use crate::cli::context::Context;
use crate::cli::up;
use crate::error::{Error, Result};

/// Set the numbers of replicas of services
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Services and their numbers of replicas
    #[arg(value_name = "SERVICE=N", required = true)]
    services: Vec<String>,
    /// Do not start what the services depend on
    #[arg(long)]
    no_deps: bool,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let mut replicas = BTreeMap::new();
    for entry in &args.services {
        let parsed = entry
            .split_once('=')
            .and_then(|(name, count)| Some((name, count.parse::<u32>().ok()?)));
        let (name, count) = parsed.ok_or_else(|| {
            Error::usage(format!("{entry}: not of the form SERVICE=N")).hint("wharf scale web=3")
        })?;
        replicas.insert(name, count);
    }
    let mut words = vec!["--detach".to_owned()];
    words.extend(args.no_deps.then(|| "--no-deps".to_owned()));
    for (name, count) in &replicas {
        words.push(format!("--scale={name}={count}"));
    }
    let flags = words.join(" ");
    let services: Vec<String> = replicas.keys().map(|name| (*name).to_owned()).collect();
    let command = format!("wharf up {} {flags}", services.join(" "));
    words.push("--".to_owned());
    words.extend(services);
    Box::pin(up::run(context, &up::Args::of_words(&words)?))
        .await
        .map_err(|error| error.answered_by(&command))
}
