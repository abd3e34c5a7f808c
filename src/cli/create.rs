//! `wharf create`: what `up` does before it starts anything.

use clap::ValueEnum;

use crate::cli::context::Context;
use crate::cli::up;
use crate::error::Result;

/// Create the instances of services without starting them
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Services, with what they depend on [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Build images first, also those that exist
    #[arg(long)]
    build: bool,
    /// Never build
    #[arg(long, conflicts_with = "build")]
    no_build: bool,
    /// When to pull images
    #[arg(long, value_enum, value_name = "WHEN")]
    pull: Option<Pull>,
    /// Make every instance anew
    #[arg(long)]
    force_recreate: bool,
    /// Never make an existing instance anew
    #[arg(long, conflicts_with = "force_recreate")]
    no_recreate: bool,
    /// Remove instances of services that are no longer in the compose file
    #[arg(long)]
    remove_orphans: bool,
    /// Number of replicas of a service
    #[arg(long, value_name = "SERVICE=N")]
    scale: Vec<String>,
    /// Do not show how images are pulled
    #[arg(long)]
    quiet_pull: bool,
    /// Answer yes to questions: volumes whose configuration changed are made anew, without their data
    #[arg(short, long)]
    yes: bool,
}

/// `--pull`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Pull {
    /// Also those that exist
    Always,
    /// Those that do not exist
    Missing,
    /// None
    Never,
    /// Build instead where there is something to build
    Build,
    /// As each service says
    Policy,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let mut words = vec!["--no-start".to_owned()];
    for (wanted, word) in [
        (args.build || args.pull == Some(Pull::Build), "--build"),
        (args.no_build, "--no-build"),
        (args.force_recreate, "--force-recreate"),
        (args.no_recreate, "--no-recreate"),
        (args.remove_orphans, "--remove-orphans"),
        (args.quiet_pull, "--quiet-pull"),
        (args.yes, "--yes"),
    ] {
        words.extend(wanted.then(|| word.to_owned()));
    }
    let pull = match args.pull {
        None | Some(Pull::Build) => None,
        Some(Pull::Always) => Some("always"),
        Some(Pull::Missing) => Some("missing"),
        Some(Pull::Never) => Some("never"),
        Some(Pull::Policy) => Some("policy"),
    };
    words.extend(pull.map(|when| format!("--pull={when}")));
    words.extend(args.scale.iter().map(|entry| format!("--scale={entry}")));
    words.push("--".to_owned());
    words.extend(args.services.iter().cloned());
    Box::pin(up::run(context, &up::Args::of_words(&words)?)).await
}
