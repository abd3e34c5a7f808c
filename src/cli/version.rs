//! `wharf version`

use crate::cli::context::Context;
use crate::cli::invocation::COMPOSE_VERSION;
use crate::error::Result;

/// Show the version
#[derive(Debug, Default, clap::Args)]
pub(super) struct Args {
    /// The number alone
    #[arg(long)]
    short: bool,
    /// `pretty` or `json`
    // Docker Compose takes any other word as `pretty`, and so do scripts written for it.
    #[arg(short = 'f', long, value_name = "FORMAT", default_value = "pretty")]
    format: String,
}

#[expect(clippy::unnecessary_wraps, reason = "every command has this signature")]
pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    // Scripts ask `docker compose version` what they may use.
    let (name, version) = if context.stands_in {
        ("Docker Compose", COMPOSE_VERSION)
    } else {
        ("wharf", env!("CARGO_PKG_VERSION"))
    };
    if args.short {
        context.ui.data(version);
    } else if args.format.eq_ignore_ascii_case("json") {
        let text = serde_json::json!({ "version": version }).to_string();
        context.ui.data(text);
    } else {
        context.ui.data(format!("{name} version {version}"));
    }
    Ok(())
}
