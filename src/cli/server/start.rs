//! `wharf server start`

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::backend::Backend as _;
use crate::backend::router::Backends;
use crate::cli::carry_out::{carry_out, say_what_it_is};
use crate::cli::context::Context;
use crate::cli::foreground::{self, Foreground, Scene, Shown};
use crate::cli::server::model::{self, Wanted};
use crate::cli::settle::{self, Settled};
use crate::cli::up::OnConflict;
use crate::error::{Error, Result};
use crate::plan::placement::{Wishes, place};
use crate::plan::policy::{Choice, Policy, Recreate};
use crate::plan::step::Action;
use crate::plan::{Plan, Question, ports};
use crate::port::owner::Depth;
use crate::port::release;
use crate::project::model::Conflict;
use crate::state::Instance;

/// How many ports to look at for a free one.
const OFFERS: usize = 1;

/// Start a server: the embedded WebSocket server, or any command
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Port to listen on; a command is told by the variable PORT
    #[arg(long, default_value_t = 8003)]
    port: u16,
    /// Address to listen on; a command must know it by itself
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    host: IpAddr,
    /// Return when the server is ready and leave it running
    #[arg(short, long)]
    background: bool,
    /// Stop whoever holds the port, an earlier server too
    #[arg(long, conflicts_with = "on_conflict")]
    force: bool,
    /// What to do when the port is held [default: ask on a terminal, else fail]
    #[arg(long, value_enum, value_name = "WHAT")]
    on_conflict: Option<OnConflict>,
    /// Print the plan with its causes before carrying it out
    #[arg(long)]
    debug: bool,
    /// Request path of the WebSocket [default: /ws for the embedded server, / for a command]
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Seconds the server may take to answer
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    ready_timeout: u64,
    /// Command to run in place of the embedded server
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    if args.port == 0 {
        return Err(Error::usage("--port 0: a server needs a particular port").hint("--port 8003"));
    }
    let wanted = Wanted {
        host: args.host,
        command: args.command.clone(),
        directory: PathBuf::from(&context.env.current_dir),
        path: args.path.clone(),
        timeout: Duration::from_secs(args.ready_timeout),
    };
    let backends = context.backends()?;
    let alone = context.lock(&backends, model::PROJECT).await?;
    let (port, settled) = settle_port(context, &backends, &wanted, args).await?;
    if args.debug {
        for step in &settled.plan.steps {
            context.ui.status(step.to_string());
        }
    }
    if args.background {
        carry_out(context, &backends, &settled.plan).await?;
        if !wanted.is_embedded() {
            let address = std::net::SocketAddr::new(ports::reachable(&[wanted.host]), port);
            say_what_it_is(context, &wanted.handshake(), address).await;
        }
        return Ok(());
    }
    let foreground = Foreground {
        handshake: (!wanted.is_embedded()).then(|| wanted.handshake()),
        ..Foreground::default()
    };
    let plan = &settled.plan;
    let scene = Scene {
        context,
        backends: &backends,
        plan,
        project: model::PROJECT,
        kept: &[],
        shown: &Shown::default(),
    };
    foreground::run(scene, &foreground, &mut Some(alone), None).await
}

/// Plans with the port asked for; if that moves, plans again for the port it moves to, so that a server
/// is always named by the port it has.
async fn settle_port(
    context: &Context,
    backends: &Backends,
    wanted: &Wanted,
    args: &Args,
) -> Result<(u16, Settled)> {
    let on_conflict = if args.force {
        Some(Conflict::Replace)
    } else {
        args.on_conflict.map(Conflict::from)
    };
    let mut port = args.port;
    loop {
        let earlier = earlier(backends, port).await?;
        if let Some(earlier) = &earlier
            && let Choice::Move =
                about_earlier(context, backends, wanted, port, earlier, on_conflict).await?
        {
            port = next_port(wanted, port)?;
            context.ui.note(format!(
                "port {} is taken by an earlier server; trying {port}",
                args.port
            ));
            continue;
        }
        let project = wanted.project(port);
        let placement = place(&project, &Wishes::default())?;
        let mut policy = Policy {
            on_conflict,
            recreate: Recreate::Always("server start"),
            ..Policy::default()
        };
        let mut settled =
            settle::settle(context, backends, &project, &placement, &mut policy).await?;
        settled.plan.notes.clear();
        match moved(&settled.plan) {
            Some(to) => {
                context
                    .ui
                    .note(format!("port {port} is taken; using {to} instead"));
                port = to;
            }
            None => return Ok((port, settled)),
        }
    }
}

fn moved(plan: &Plan) -> Option<u16> {
    plan.steps.iter().find_map(|step| {
        if let Action::MovePort { to, .. } = step.action {
            Some(to)
        } else {
            None
        }
    })
}

/// The running server of wharf's that has a port.
async fn earlier(backends: &Backends, port: u16) -> Result<Option<Instance>> {
    let instances = backends.processes.observe(model::PROJECT).await?;
    Ok(instances
        .into_iter()
        .find(|instance| instance.status.is_alive() && model::port_of(instance) == Some(port)))
}

/// What to do about an earlier server: the same question as about any holder.
async fn about_earlier(
    context: &Context,
    backends: &Backends,
    wanted: &Wanted,
    port: u16,
    earlier: &Instance,
    rule: Option<Conflict>,
) -> Result<Choice> {
    let next = next_port(wanted, port).ok();
    match (rule, next) {
        (Some(Conflict::Replace), _) => return Ok(Choice::Replace),
        (Some(Conflict::Move), Some(_)) => return Ok(Choice::Move),
        _ => {}
    }
    let claim = model::claim(wanted.host, port);
    let held = backends
        .held(Depth::Everybody, std::slice::from_ref(&claim))
        .await?;
    let holders = held
        .into_iter()
        .flat_map(|held| held.holders)
        .collect::<Vec<_>>();
    if holders.is_empty() {
        // It runs and does not listen (any more): nobody would miss it.
        context.ui.note(format!(
            "{} runs without listening; it is replaced",
            earlier.name
        ));
        return Ok(Choice::Replace);
    }
    let mut choices = vec![Choice::Replace];
    choices.extend(next.map(|_| Choice::Move));
    choices.push(Choice::Abort);
    let settled = (rule == Some(Conflict::Fail)).then(|| "--on-conflict fail".to_owned());
    settle::answer(
        context,
        &Question {
            claim,
            holders,
            choices,
            obstacle: None,
            next,
            settled,
            own: false,
        },
    )
}

fn next_port(wanted: &Wanted, port: u16) -> Result<u16> {
    let claim = model::claim(wanted.host, port);
    let from = port.saturating_add(1);
    release::next_free(
        from,
        &claim.addresses,
        claim.protocol,
        OFFERS,
        &BTreeSet::new(),
    )
    .and_then(|ports| ports.first().copied())
    .ok_or_else(|| Error::failed(format!("no free port above {port}")))
}
