//! The commands of local services that `watch` runs: what builds one, and what is to be done after files have changed.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::process::{Child, Command};

use super::hands::Hands;
use crate::error::{Error, Result};
use crate::plan::placement::in_form;
use crate::project::model::{Hook, Service};
use crate::state::BackendKind;

/// How long a command that is ended gets after its signal.
const GRACE: Duration = Duration::from_millis(500);

/// How often it is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(5);

/// A command with all that it starts in its process group. Dropped before its end, the whole is ended.
struct Group(Child);

impl Group {
    /// The group's id, for as long as it cannot be another's: nobody has waited for its first process.
    fn id(&self) -> Option<Pid> {
        let id = self.0.id().and_then(|id| i32::try_from(id).ok());
        id.and_then(Pid::from_raw)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(group) = self.id() else { return };
        // Whatever is gone need not be signalled.
        let _ = kill_process_group(group, Signal::TERM);
        let until = Instant::now() + GRACE;
        // Its first process stays a zombie: nobody else gets the number before the last signal.
        let looks = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        while let Ok(None) = waitid(WaitId::Pid(group), looks) {
            if Instant::now() > until {
                break;
            }
            std::thread::sleep(LOOK);
        }
        let _ = kill_process_group(group, Signal::KILL);
    }
}

impl Hands<'_> {
    /// Runs a command of a process service as the service itself would be run.
    pub(super) async fn run_here(
        &self,
        service: &Service,
        argv: &[String],
        hook: Option<&Hook>,
        what: &str,
    ) -> Result<()> {
        let form = in_form(&Arc::new(service.clone()), BackendKind::Process);
        let Some((program, arguments)) = argv.split_first() else {
            return Ok(());
        };
        let mut directory: PathBuf = self.watch.project.directory.clone();
        for path in [
            form.working_dir.as_deref(),
            hook.and_then(|hook| hook.working_dir.as_deref()),
        ]
        .into_iter()
        .flatten()
        {
            directory = directory.join(Path::new(path));
        }
        let more = hook.iter().flat_map(|hook| &hook.environment);
        let more = more.filter_map(|entry| entry.split_once('='));
        self.tell(&format!("{}: {}", service.name, argv.join(" ")));
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(&directory)
            .env_clear()
            .envs(&self.context.env.variables)
            .envs(&form.environment)
            .envs(more)
            .stdin(Stdio::null())
            .process_group(0);
        if self.watch.quiet.builds {
            command.stdout(Stdio::null());
        } else {
            command.stdout(std::io::stderr());
        }
        let cannot = |error| {
            Error::failed(error)
                .detail(format!("running `{program}` in {}", directory.display()))
                .hint(format!("check that `{program}` is installed and on PATH"))
        };
        self.reins.check()?;
        let mut group = Group(command.spawn().map_err(cannot)?);
        let ended = tokio::select! {
            ended = group.0.wait() => ended.map_err(cannot)?,
            () = self.reins.pulled() => {
                self.tell(&format!(
                    "{}: interrupted: its {what} command was ended, and it was left as it was",
                    service.name
                ));
                return Err(Error::interrupted());
            }
        };
        if ended.success() {
            return Ok(());
        }
        Err(Error::failed(format!(
            "service `{}`: its {what} command ended with {ended}; it is left as it was",
            service.name
        ))
        .hint("save a file again to repeat it"))
    }
}
