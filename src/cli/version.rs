//! `wharf version`

use crate::cli::context::Context;
use crate::error::Result;

/// Show the version
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The number alone
    #[arg(long)]
    short: bool,
    /// `pretty` or `json`
    #[arg(short = 'F', long, value_name = "FORMAT", default_value = "pretty", value_parser = ["pretty", "json"])]
    format: String,
}

#[expect(clippy::unnecessary_wraps, reason = "every command has this signature")]
pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    if args.format == "json" {
        context
            .ui
            .data(serde_json::json!({ "version": version }).to_string());
    } else if args.short {
        context.ui.data(version);
    } else {
        context.ui.data(format!("wharf version {version}"));
    }
    Ok(())
}
