//! WHAT WAS ASKED: the command line. One file per command: its arguments, its help text, one function.

mod attach;
mod await_up;
mod build;
mod carry_out;
mod config;
mod context;
mod cp;
mod create;
mod down;
mod events;
mod exec;
mod foreground;
mod free;
mod images;
mod kill;
mod logs;
mod ls;
mod moment;
mod next_port;
mod pause;
mod port;
mod ports;
mod ps;
mod pull;
mod push;
mod restart;
mod rm;
mod row;
mod run;
mod scale;
mod serve;
mod server;
mod session;
mod settle;
mod start;
mod stats;
mod stop;
mod supervise;
mod top;
mod up;
mod version;
mod volumes;
mod wait;
mod watched;
mod who;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::{Error, Kind, Result};
use crate::project::Env;
use crate::ui::{Ui, lost, report};
use context::{Context, Global};

/// Runs a development stack from a compose file, as containers and local processes, and resolves port
/// conflicts on the way.
#[derive(Debug, Parser)]
#[command(name = "wharf", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Args),
    Down(down::Args),
    Start(start::Args),
    Stop(stop::Args),
    Restart(restart::Args),
    Kill(kill::Args),
    Pause(pause::PauseArgs),
    Unpause(pause::UnpauseArgs),
    Rm(rm::Args),
    Create(create::Args),
    Scale(scale::Args),
    Wait(wait::Args),
    Port(port::Args),
    Ps(ps::Args),
    Logs(logs::Args),
    Exec(exec::Args),
    Run(run::Args),
    Attach(attach::Args),
    Cp(cp::Args),
    Ls(ls::Args),
    Images(images::Args),
    Volumes(volumes::Args),
    Top(top::Args),
    Stats(stats::Args),
    Events(events::Args),
    Build(build::Args),
    Pull(pull::Args),
    Push(push::Args),
    #[command(visible_alias = "convert")]
    Config(config::ConfigArgs),

    Ports(ports::Args),
    Who(who::Args),
    Free(free::Args),
    NextPort(next_port::Args),
    #[command(subcommand)]
    Server(server::Command),
    Serve(serve::Args),
    Version(version::Args),
    #[command(hide = true)]
    Supervise(supervise::Args),
}

/// Parses the command line, runs the command, reports its failure, and returns the exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are printed to stdout and are no failure.
            let code = if error.use_stderr() {
                Kind::Usage.into()
            } else {
                ExitCode::SUCCESS
            };
            drop(error.print());
            return code;
        }
    };
    match run(cli).and_then(|()| output_was_written()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::error(&error);
            error.kind.into()
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let env = Env::from_process()
        .map_err(|error| Error::failed(error).hint("cd to a directory that exists"))?;
    cli.global.ansi.apply();
    let context = Context {
        env,
        ui: Ui { quiet: false },
        global: cli.global,
    };
    match cli.command {
        Command::Up(args) => wait_for(up::run(&context, &args)),
        Command::Down(args) => wait_for(down::run(&context, &args)),
        Command::Start(args) => wait_for(start::run(&context, &args)),
        Command::Stop(args) => wait_for(stop::run(&context, &args)),
        Command::Restart(args) => wait_for(restart::run(&context, &args)),
        Command::Kill(args) => wait_for(kill::run(&context, &args)),
        Command::Pause(args) => wait_for(pause::pause(&context, &args)),
        Command::Unpause(args) => wait_for(pause::unpause(&context, &args)),
        Command::Rm(args) => wait_for(rm::run(&context, &args)),
        Command::Create(args) => wait_for(create::run(&context, &args)),
        Command::Scale(args) => wait_for(scale::run(&context, &args)),
        Command::Wait(args) => wait_for(wait::run(&context, &args)),
        Command::Port(args) => wait_for(port::run(&context, &args)),
        Command::Ps(args) => wait_for(ps::run(&context, &args)),
        Command::Logs(args) => wait_for(logs::run(&context, &args)),
        Command::Exec(args) => wait_for(exec::run(&context, &args)),
        Command::Run(args) => wait_for(run::run(&context, &args)),
        Command::Cp(args) => wait_for(cp::run(&context, &args)),
        Command::Attach(args) => wait_for(attach::run(&context, &args)),
        Command::Ls(args) => wait_for(ls::run(&context, &args)),
        Command::Images(args) => wait_for(images::run(&context, &args)),
        Command::Volumes(args) => wait_for(volumes::run(&context, &args)),
        Command::Top(args) => wait_for(top::run(&context, &args)),
        Command::Stats(args) => wait_for(stats::run(&context, &args)),
        Command::Events(args) => wait_for(events::run(&context, &args)),
        Command::Build(args) => wait_for(build::run(&context, &args)),
        Command::Pull(args) => wait_for(pull::run(&context, &args)),
        Command::Push(args) => wait_for(push::run(&context, &args)),
        Command::Config(args) => config::run(&context, &args),

        Command::Ports(args) => wait_for(ports::run(&context, &args)),
        Command::Who(args) => wait_for(who::run(&context, &args)),
        Command::Free(args) => wait_for(free::run(&context, &args)),
        Command::NextPort(args) => wait_for(next_port::run(&context, &args)),
        Command::Server(command) => wait_for(server::run(&context, &command)),
        Command::Serve(args) => wait_for(serve::run(&context, &args)),
        Command::Version(args) => version::run(&context, &args),
        Command::Supervise(args) => supervise::run(&context, &args),
    }
}

/// A command whose output was lost has failed, unless its reader has seen what it wanted (`| head`).
fn output_was_written() -> Result<()> {
    match lost() {
        Some(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::failed("cannot write the output").detail(error.to_string()))
        }
        _ => Ok(()),
    }
}

/// Runs a command that waits for several things at once, on one thread.
fn wait_for<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::failed)?
        .block_on(command)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
