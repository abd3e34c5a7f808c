//! WHAT WAS ASKED: the command line. One file per command: its arguments, its help text, one function.

mod again;
mod attach;
mod await_up;
mod build;
mod carry_out;
mod config;
mod context;
mod cp;
mod create;
mod doctor;
mod down;
mod effective;
mod events;
mod exec;
mod foreground;
mod forward;
mod free;
mod global;
mod grace;
mod graph;
mod hasten;
mod images;
mod interrupted;
mod invocation;
mod kill;
mod left_out;
mod logs;
mod ls;
mod menu;
mod moment;
mod next_port;
mod pause;
mod port;
mod ports;
mod provide;
mod provider;
mod ps;
mod pull;
mod push;
mod relay;
mod replica;
mod restart;
mod rm;
mod row;
mod run;
mod scale;
mod serve;
mod server;
mod session;
mod settle;
mod shown;
mod sight;
mod signals;
mod start;
mod stats;
mod stop;
mod supervise;
mod switches;
mod top;
mod up;
mod version;
mod volumes;
mod wait;
mod watch;
mod way;
mod who;

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::backend::process::child::wait_for_children;
use crate::error::{Error, Kind, Result};
use crate::project::{Env, shell};
use crate::ui::{Steps, Ui, lost, report};
use context::Context;
use global::Global;
use invocation::{Invocation, Protocol};

/// Runs a development stack from a compose file, as containers and local processes, and resolves port
/// conflicts on the way.
#[derive(Debug, Parser)]
#[command(name = "wharf", max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    /// Show the version
    #[arg(short = 'v', long, short_alias = 'V')]
    version: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

/// The arguments of a command are put together when it is the one that was called, or when help needs all.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
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
    Watch(watch::Args),
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

    Graph(graph::Args),
    Doctor(doctor::Args),
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
    #[command(hide = true)]
    Forward(forward::Args),
    #[command(hide = true)]
    Relay(relay::Args),
    #[command(hide = true)]
    Compose(provider::Args),

    #[command(hide = true)]
    Alpha(left_out::Args),
    #[command(hide = true)]
    Bridge(left_out::Args),
    #[command(hide = true)]
    Commit(left_out::Args),
    #[command(hide = true)]
    Export(left_out::Args),
    #[command(hide = true)]
    Publish(left_out::Args),
}

impl Command {
    /// Whether `--dry-run` is honoured: the command changes nothing, or all it does is a plan.
    fn honours_dry_run(&self) -> bool {
        matches!(
            self,
            Self::Up(_)
                | Self::Down(_)
                | Self::Start(_)
                | Self::Stop(_)
                | Self::Restart(_)
                | Self::Kill(_)
                | Self::Pause(_)
                | Self::Unpause(_)
                | Self::Rm(_)
                | Self::Create(_)
                | Self::Scale(_)
                | Self::Build(_)
                | Self::Pull(_)
                | Self::Push(_)
                | Self::Port(_)
                | Self::Graph(_)
                | Self::Doctor(_)
                | Self::Ports(_)
                | Self::Who(_)
                | Self::Free(_)
                | Self::NextPort(_)
                | Self::Ps(_)
                | Self::Logs(_)
                | Self::Ls(_)
                | Self::Images(_)
                | Self::Volumes(_)
                | Self::Top(_)
                | Self::Stats(_)
                | Self::Events(_)
                | Self::Config(_)
                | Self::Version(_)
        )
    }
}

/// Parses the command line, runs the command, reports its failure, and returns the exit code.
pub fn main() -> ExitCode {
    let mut env = match Env::from_process() {
        Ok(env) => env,
        Err(error) => {
            let error = without_directory(error);
            report::error(&error);
            return error.kind.into();
        }
    };
    let invocation = match Invocation::read(std::env::args_os().collect(), &mut env) {
        Ok(invocation) => invocation,
        Err(error) => {
            report::error(&error);
            return error.kind.into();
        }
    };
    match invocation.protocol {
        Some(Protocol::Metadata) => {
            Ui::default().data(invocation::metadata());
            return ExitCode::SUCCESS;
        }
        Some(Protocol::Nothing) => return ExitCode::SUCCESS,
        None => {}
    }
    let cli = match parse(&invocation) {
        Ok(cli) => cli,
        Err(error) => {
            // Help is printed to stdout and is no failure.
            let code = if error.use_stderr() {
                invocation.exit_code(Kind::Usage)
            } else {
                ExitCode::SUCCESS
            };
            drop(error.print());
            return code;
        }
    };
    if cli.command.is_none() {
        return show_help(&invocation);
    }
    // Where it is refused, exit codes of children may be lost, and nothing else.
    drop(wait_for_children());
    if invocation.by_client {
        invocation::end_with_the_client(&mut env);
    }
    let mut ui = Ui::default();
    let project = cli.global.project_words();
    match run(cli, env, &invocation, &mut ui).and_then(|()| output_was_written()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(mut error) => {
            let commands = error.answers.iter_mut();
            let commands = commands.filter_map(|answer| answer.command.as_mut());
            let texts = error.hints.iter_mut().chain(&mut error.details);
            for text in texts.chain(commands) {
                *text = invocation.in_its_words(&project, text);
            }
            match ui.steps {
                Steps::Lines => report::error(&error),
                Steps::Json => report::object(&error),
            }
            invocation.exit_code(error.kind)
        }
    }
}

/// Why there is no current directory, and where to go.
fn without_directory(error: io::Error) -> Error {
    let named = std::env::var_os("PWD").map(PathBuf::from);
    let named = named.filter(|path| path.is_absolute());
    let shown = named.as_ref().map_or_else(
        || "the current directory".to_owned(),
        |path| format!("the current directory {}", path.display()),
    );
    if error.kind() != io::ErrorKind::NotFound {
        return Error::failed(error).detail(format!("asking for {shown}"));
    }
    let gone = Error::failed(format!("{shown} has been removed"));
    let mut left = named.iter().flat_map(|path| path.ancestors());
    match left.find(|path| path.is_dir()) {
        Some(path) if named.as_deref() == Some(path) => gone
            .detail("another one has its name now")
            .hint(format!("cd {}", shell::word(path))),
        Some(path) => gone.hint(format!("cd {}", shell::word(path))),
        None => gone.hint("cd"),
    }
}

/// The command line in the words of the program that was called.
fn command_line(invocation: &Invocation) -> clap::Command {
    let command = Cli::command();
    if invocation.program == "wharf" {
        command
    } else {
        command.bin_name(invocation.program.clone())
    }
}

/// Without a command: a mistake, but not to those who know Docker Compose.
fn show_help(invocation: &Invocation) -> ExitCode {
    let mut command = command_line(invocation);
    command.build();
    let help = command.render_help();
    // A reader that went away is its own affair.
    if invocation.stands_in {
        drop(write!(anstream::stdout(), "{}", help.ansi()));
        return ExitCode::SUCCESS;
    }
    drop(write!(anstream::stderr(), "{}", help.ansi()));
    Kind::Usage.into()
}

fn parse(invocation: &Invocation) -> Result<Cli, clap::Error> {
    let program = std::iter::once(OsString::from(&invocation.program));
    let mut command = command_line(invocation);
    let given = if invocation.arguments.iter().any(switches::may_be) {
        let mut whole = command.clone();
        whole.build();
        Cow::Owned(switches::settled(&whole, &invocation.arguments))
    } else {
        Cow::Borrowed(&invocation.arguments)
    };
    let arguments = program.chain(given.iter().cloned());
    // Help lists all commands with what they are for, which is said where their arguments are.
    let helps = |word: &OsString| ["-h", "--help", "help"].iter().any(|help| word == help);
    if invocation.arguments.iter().any(helps) {
        command.build();
    }
    let matches = command.try_get_matches_from(arguments)?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    if cli.command.is_none() && cli.version {
        cli.command = Some(Command::Version(version::Args::default()));
    }
    Ok(cli)
}

/// `told` is how things are told, also the failure.
fn run(mut cli: Cli, mut env: Env, invocation: &Invocation, told: &mut Ui) -> Result<()> {
    let Some(command) = cli.command else {
        return Ok(());
    };
    // What a project's env file says is for those who work on the project.
    let is_service = matches!(
        command,
        Command::Supervise(_) | Command::Forward(_) | Command::Relay(_) | Command::Serve(_)
    );
    let mut ui = if is_service {
        Ui::default()
    } else {
        cli.global.settle(&mut env)?
    };
    if let Command::Build(args) = &command {
        ui = args.ui(ui);
    }
    *told = ui;
    if cli.global.dry_run && !command.honours_dry_run() {
        return Err(
            Error::usage("--dry-run: this command cannot say what it would do")
                .hint("leave --dry-run out"),
        );
    }
    let context = Context {
        env,
        ui,
        global: cli.global,
        stands_in: invocation.stands_in,
        program: invocation.program.clone(),
    };
    match command {
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
        Command::Logs(args) => wait_for(or_interrupted(logs::run(&context, &args))),
        Command::Watch(args) => wait_for(watch::command(&context, &args)),
        Command::Exec(args) => wait_for(exec::run(&context, &args)),
        Command::Run(args) => wait_for(run::run(&context, &args)),
        Command::Cp(args) => wait_for(cp::run(&context, &args)),
        Command::Attach(args) => wait_for(attach::run(&context, &args)),
        Command::Ls(args) => wait_for(ls::run(&context, &args)),
        Command::Images(args) => wait_for(images::run(&context, &args)),
        Command::Volumes(args) => wait_for(volumes::run(&context, &args)),
        Command::Top(args) => wait_for(top::run(&context, &args)),
        Command::Stats(args) => wait_for(or_interrupted(stats::run(&context, &args))),
        Command::Events(args) => wait_for(or_interrupted(events::run(&context, &args))),
        Command::Build(args) => wait_for(build::run(&context, &args)),
        Command::Pull(args) => wait_for(pull::run(&context, &args)),
        Command::Push(args) => wait_for(push::run(&context, &args)),
        Command::Config(args) => config::run(&context, &args),

        Command::Doctor(args) => wait_for(doctor::run(&context, &args)),
        Command::Graph(args) => wait_for(graph::run(&context, &args)),
        Command::Ports(args) => wait_for(ports::run(&context, &args)),
        Command::Who(args) => wait_for(who::run(&context, &args)),
        Command::Free(args) => wait_for(free::run(&context, &args)),
        Command::NextPort(args) => wait_for(next_port::run(&context, &args)),
        Command::Server(command) => wait_for(server::run(&context, &command)),
        Command::Serve(args) => wait_for(serve::run(&context, &args)),
        Command::Version(args) => version::run(&context, &args),
        Command::Supervise(args) => supervise::run(&context, &args),
        Command::Forward(args) => wait_for(forward::run(&context, &args)),
        Command::Relay(args) => relay::run(&context, &args),
        Command::Compose(args) => wait_for(provider::run(&context, &args)),

        Command::Alpha(_) => left_out::refuse(
            "alpha",
            "what it had is `scale` and `watch` now; the rest is in Docker Compose",
        ),
        Command::Bridge(_) => left_out::refuse("bridge", "Docker Compose has it"),
        Command::Commit(_) => left_out::refuse("commit", "use docker commit CONTAINER IMAGE"),
        Command::Export(_) => left_out::refuse("export", "use docker export CONTAINER"),
        Command::Publish(_) => left_out::refuse("publish", "Docker Compose has it"),
    }
}

/// A command whose output was lost has failed, unless its reader has seen what it wanted (`| head`).
fn output_was_written() -> Result<()> {
    match lost() {
        Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::failed("cannot write the output").detail(error.to_string()))
        }
        _ => Ok(()),
    }
}

/// A command that only shows something, until somebody has seen enough.
async fn or_interrupted<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    let mut signals = signals::Signals::new()?;
    tokio::select! {
        biased;
        outcome = command => outcome,
        () = signals.next() => Err(Error::interrupted()),
    }
}

/// Runs a command that waits for several things at once, on one thread.
fn wait_for<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    let unable = |error: io::Error| {
        let failed = Error::failed("cannot prepare to wait for what the command begins");
        failed.detail(error.to_string())
    };
    check_room().map_err(unable)?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(unable)?
        .block_on(command)
}

/// That there are descriptors for a runtime: for want of them, the part of it that waits for signals panics.
fn check_room() -> io::Result<()> {
    let (one, _other) = UnixStream::pair()?;
    let further = std::array::from_fn::<_, 5, _>(|_| one.try_clone());
    further
        .into_iter()
        .collect::<io::Result<Vec<_>>>()
        .map(drop)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }

    /// Every command's help, as a page of Markdown.
    fn reference() -> String {
        let mut page = String::from(
            "# Command reference\n\nThe help of every command, made from the command line itself by \
             `UPDATE_REFERENCE=1 cargo test --lib reference`.\n",
        );
        let mut waiting = vec![super::Cli::command().term_width(100)];
        waiting[0].build();
        while let Some(mut command) = waiting.pop() {
            let mut below: Vec<clap::Command> = command
                .get_subcommands()
                .filter(|below| !below.is_hide_set() && below.get_name() != "help")
                .cloned()
                .collect();
            below.sort_by(|a, b| b.get_name().cmp(a.get_name()));
            waiting.extend(below);
            let name = command.get_bin_name().unwrap_or("wharf").to_owned();
            command = command.mut_args(|argument| argument.hide_env_values(true));
            let help = command.render_long_help().to_string();
            let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
            let text = lines.join("\n");
            page += &["\n## ", &name, "\n\n```text\n", text.trim_end(), "\n```\n"].concat();
        }
        page
    }

    #[test]
    fn the_reference_is_what_the_command_line_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference.md");
        let page = reference();
        if std::env::var_os("UPDATE_REFERENCE").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == page,
            "docs/reference.md is out of date: UPDATE_REFERENCE=1 cargo test --lib reference"
        );
    }
}
