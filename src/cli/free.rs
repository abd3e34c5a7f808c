//! `wharf free`: releases ports under the policy of `up`: a question on a terminal, a flag without one, and
//! never what is protected.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::backend::freeing::Freeing;
use crate::backend::router::Backends;
use crate::cli::context::Context;
use crate::cli::who::{self, Ports, Seen, look, released};
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::port::holder::Holder;
use crate::port::owner::Depth;
use crate::port::release::how_released;
use crate::ui::progress::Progress;
use crate::ui::question;
use crate::ui::report;

/// Release ports: stop who has them, safely
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A port, `8000-8010`, or `5353/udp`
    #[arg(value_name = "PORT", required = true)]
    ports: Vec<Ports>,
    /// UDP ports where no protocol is given
    #[arg(long)]
    udp: bool,
    /// Do not ask; what is protected is not stopped all the same
    #[arg(short, long)]
    force: bool,
    /// Signal to begin with [default: SIGTERM, or the container's own]
    #[arg(short, long, value_name = "SIGNAL", value_parser = signal)]
    signal: Option<i32>,
    /// Seconds that a process gets to end before it is killed
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10)]
    timeout: u64,
    /// `table` or `json` (one object a line, as the ports are afterwards)
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

/// Who gets them is suspended, or goes on.
const ENDS_NOBODY: &[Signal] = &[
    Signal::SIGCONT,
    Signal::SIGSTOP,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGCHLD,
    Signal::SIGURG,
    Signal::SIGWINCH,
];

/// The number of a signal given as `SIGTERM`, `term` or `15`.
fn signal(word: &str) -> Result<i32, String> {
    let upper = word.to_ascii_uppercase();
    let known = match upper.parse::<i32>() {
        Ok(number) => Signal::try_from(number).ok(),
        Err(_) if upper.starts_with("SIG") => upper.parse().ok(),
        Err(_) => format!("SIG{upper}").parse().ok(),
    };
    known
        .ok_or_else(|| format!("`{word}` is not a signal"))
        .and_then(|signal| {
            if ENDS_NOBODY.contains(&signal) {
                return Err(format!("{signal} does not end a process"));
            }
            Ok(signal as i32)
        })
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let claims = who::claims(&args.ports, args.udp);
    let backends = context.backends()?;
    let mut failed = false;
    let mut after = Vec::new();
    // One after the other: a process that has several of the ports is gone after the first.
    for claim in &claims {
        let one = std::slice::from_ref(claim);
        let Some(seen) = look(context, Depth::Bound, one).await?.pop() else {
            continue;
        };
        let result = if context.global.dry_run {
            rehearse(context, args, &seen)
        } else {
            free(context, args, &backends, &seen).await
        };
        if let Err(error) = result {
            if error.kind == Kind::Interrupted {
                return Err(error);
            }
            report::error(&error);
            failed = true;
        }
        if args.format == "json" {
            let now = if context.global.dry_run || seen.is_free() {
                Some(seen)
            } else {
                look(context, Depth::Bound, one).await?.pop()
            };
            after.extend(now);
        }
    }
    for seen in &after {
        context
            .ui
            .data(serde_json::to_string(&seen.report()).map_err(Error::failed)?);
    }
    if failed {
        Err(Error::service(1))
    } else {
        Ok(())
    }
}

/// `--dry-run`: what a real run would do, as data.
fn rehearse(context: &Context, args: &Args, seen: &Seen) -> Result<()> {
    may_be_freed(seen)?;
    let say = |line: String| {
        if args.format != "json" {
            context.ui.data(line);
        }
    };
    if seen.holders.is_empty() {
        say(format!("port {} is free", seen.claim));
    }
    for (holder, consequences) in seen.each() {
        say(format!(
            "port {}: would stop {}",
            seen.claim,
            holder.describe()
        ));
        for line in consequences {
            say(format!("  {line}"));
        }
        say(format!("  {}", released(&seen.claim, holder)));
    }
    if seen.holders.is_empty() || args.force {
        Ok(())
    } else {
        Err(undecided(seen))
    }
}

async fn free(context: &Context, args: &Args, backends: &Backends, seen: &Seen) -> Result<()> {
    let claim = &seen.claim;
    let say = |line: String| {
        if args.format != "json" {
            context.ui.data(line);
        }
    };
    if seen.is_free() {
        say(format!("port {claim} is free"));
        return Ok(());
    }
    may_be_freed(seen)?;
    let answer = if args.force {
        "--force"
    } else if seen.holders.iter().any(Holder::needs_flag) {
        // A unit is started by its manager for its own reasons, and more than it may end with a namespace.
        return Err(undecided(seen));
    } else if !context.ui.can_ask() {
        return Err(undecided(seen));
    } else if context
        .ui
        .ask_to_stop(claim, &seen.holders, &seen.consequences())
    {
        "your answer"
    } else {
        return Err(Error::failed(format!("port {claim} was left alone")));
    };
    let freeing = Freeing {
        project: None,
        claim: claim.clone(),
        holders: seen.holders.clone(),
        grace: Duration::from_secs(args.timeout),
        signal: args.signal,
        answer: answer.to_owned(),
        left_free: true,
    };
    let (events, mut receiver) = Events::channel();
    let progress = Progress::new(context.ui);
    let mut freed = std::pin::pin!(backends.free(&freeing, &events));
    let result = loop {
        tokio::select! {
            biased;
            Some(event) = receiver.recv() => progress.show(&event),
            result = &mut freed => break result,
        }
    };
    while let Ok(event) = receiver.try_recv() {
        progress.show(&event);
    }
    result?;
    say(format!("port {claim} is free"));
    Ok(())
}

/// Fails with the reason if a holder may not be stopped, or there is nobody to stop: all or nothing.
fn may_be_freed(seen: &Seen) -> Result<()> {
    let claim = &seen.claim;
    if seen.in_use {
        return Err(Error::failed(format!(
            "port {claim} cannot be had: an outgoing connection has it as its own end, and connections are never cut"
        )));
    }
    let obstacle = |holder: &Holder| Some((holder.clone(), holder.obstacle(true)?));
    let Some((holder, reason)) = seen.holders.iter().find_map(obstacle) else {
        return Ok(());
    };
    let mut error = described(seen).detail(format!("wharf will not stop it: {reason}"));
    if holder.protected.is_none() {
        error = error.hint(how_released(&holder));
    }
    Err(error)
}

/// Nobody has said yet that the holder may be stopped.
fn undecided(seen: &Seen) -> Error {
    let mut error = described(seen);
    error.details.extend(seen.consequences());
    error.hint(format!(
        "wharf free {}{} --force",
        seen.claim.port,
        match seen.claim.protocol {
            crate::port::claim::Protocol::Tcp => "",
            crate::port::claim::Protocol::Udp => "/udp",
        }
    ))
}

fn described(seen: &Seen) -> Error {
    let mut error = Error::failed(format!("port {} is taken", seen.claim));
    error.details.extend(question::plain(&seen.holders));
    error
}

#[cfg(test)]
mod tests {
    use super::signal;

    #[test]
    fn a_release_begins_with_a_signal_that_ends_a_process() {
        for (word, number) in [("SIGTERM", 15), ("int", 2), ("9", 9), ("USR1", 10)] {
            assert_eq!(signal(word), Ok(number), "{word}");
        }
        for word in ["CONT", "sigstop", "20", "WINCH"] {
            assert!(signal(word).unwrap_err().contains("does not end"), "{word}");
        }
        assert!(signal("BOGUS").unwrap_err().contains("not a signal"));
    }
}
