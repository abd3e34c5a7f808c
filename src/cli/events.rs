//! `wharf events`

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _, stream};
use serde_json::json;

use crate::backend::happening::{Happening, Span};
use crate::backend::router::Backends;
use crate::cli::context::{Context, Named};
use crate::cli::moment::moment_of;
use crate::error::{Error, Result};
use crate::state::BackendKind;
use crate::ui::template;

/// Show what happens to the instances, as it happens
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Services to show [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// What happened since this time too (RFC 3339, Unix seconds, or an age such as 10m)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Only until this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
}

/// What happens to a project, as it happens.
pub(super) type Happenings<'a> = Pin<Box<dyn Stream<Item = Result<Happening>> + 'a>>;

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let span = Span {
        since: moment_of("--since", args.since.as_deref())?,
        until: moment_of("--until", args.until.as_deref())?,
    };
    let named = context.name_or_project()?;
    let backends = context.backends()?;
    let mut happenings = happenings(&named, context, &backends, span).await?;
    loop {
        tokio::select! {
            happening = happenings.next() => match happening.transpose()? {
                Some(happening) => show(context, args, &happening),
                None => return Ok(()),
            },
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.map_err(Error::failed)?;
                return Err(Error::interrupted());
            }
        }
        if crate::ui::lost().is_some() {
            return Ok(());
        }
    }
}

/// What happens to the instances of a project, in containers and as processes. Nothing is missed from the
/// moment that this returns.
pub(super) async fn happenings<'a>(
    named: &Named,
    context: &Context,
    backends: &'a Backends,
    span: Span,
) -> Result<Happenings<'a>> {
    let may = named.project().is_some_and(|project| {
        let mut services = project.services.values();
        services.any(|service| service.has_process_form())
    });
    let processes = backends
        .processes
        .happenings(named.name(), span.since, may)
        .await?;
    let mut all: Vec<Happenings<'a>> = Vec::new();
    if named
        .in_engine(context.ui, backends, processes.is_some())
        .await?
    {
        let containers = backends.containers.happenings(named.name(), span).await?;
        all.push(Box::pin(containers.map(|each| each.map_err(Error::from))));
    }
    if let Some(mut processes) = processes {
        let mut past = Vec::new();
        while let Some(each) = processes.past() {
            past.push(Ok(each));
        }
        let coming = stream::unfold(processes, |mut processes| async move {
            Some((processes.next().await.map_err(Error::from), processes))
        });
        let each = stream::iter(past).chain(coming);
        let until = span.until;
        let in_time = move |each: &Result<Happening>| {
            let is_late = each
                .as_ref()
                .is_ok_and(|each| until.is_some_and(|until| each.time > until));
            std::future::ready(!is_late)
        };
        all.push(Box::pin(
            each.take_while(in_time)
                .take_until(Box::pin(deadline(until))),
        ));
    }
    Ok(Box::pin(stream::select_all(all)))
}

/// Ends at this time; never without one.
async fn deadline(until: Option<i64>) {
    let Some(until) = until else {
        return std::future::pending().await;
    };
    let now = jiff::Timestamp::now().as_nanosecond();
    let left = u64::try_from(i128::from(until) - now).unwrap_or(0);
    // What has happened already is told first.
    tokio::task::yield_now().await;
    tokio::time::sleep(std::time::Duration::from_nanos(left)).await;
}

fn show(context: &Context, args: &Args, happening: &Happening) {
    let asked = args.services.is_empty() || args.services.contains(&happening.service);
    if happening.one_off || !asked {
        return;
    }
    let kind = match happening.backend {
        BackendKind::Container => "container",
        BackendKind::Process => "process",
    };
    let time = jiff::Timestamp::from_nanosecond(i128::from(happening.time))
        .unwrap_or_default()
        .to_zoned(jiff::tz::TimeZone::system());
    if args.json {
        let zone = if time.offset().seconds() == 0 {
            "Z"
        } else {
            "%:z"
        };
        let object = json!({
            "action": happening.action,
            "attributes": happening.attributes,
            "id": happening.id,
            "service": happening.service,
            "time": time.strftime(&format!("%Y-%m-%dT%H:%M:%S%.f{zone}")).to_string(),
            "type": kind,
        });
        context.ui.data(template::json(&object));
        return;
    }
    let attributes: Vec<String> = happening
        .attributes
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    context.ui.data(format!(
        "{} {kind} {} {} ({})\n",
        time.strftime("%Y-%m-%d %H:%M:%S%.6f"),
        happening.action,
        happening.id,
        attributes.join(", ")
    ));
}
