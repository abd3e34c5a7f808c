//! Under which name wharf was called, and what that makes of its arguments.
//!
//! A link named `docker-compose` in the plugin folder of the Docker client makes `docker compose` run wharf;
//! called by that name directly, it is the stand-alone tool. In both cases the client's own options may
//! stand in front, which mean what the variables of the same purpose mean. Nothing is run here.
//!
//! The protocol: github.com/docker/cli, `cli-plugins/metadata` and `cli-plugins/socket`.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory as _;
use serde_json::json;

use crate::cli::signals;
use crate::error::{Error, Kind, Result};
use crate::project::Env;

/// The version of Docker Compose whose command line and files these are.
pub(super) const COMPOSE_VERSION: &str = "2.40.3";

/// The variable with the address on which the client says that the plugin is to end.
const SOCKET: &str = "DOCKER_CLI_PLUGIN_SOCKET";

/// How wharf was called.
#[derive(Clone, Debug, Default)]
pub(super) struct Invocation {
    /// What users type to run it: `wharf`, `docker-compose`, `docker compose`.
    pub(super) program: String,
    /// Whether it stands in for Docker Compose.
    pub(super) stands_in: bool,
    /// Whether the Docker client runs it as its plugin.
    pub(super) by_client: bool,
    /// The arguments for wharf itself.
    pub(super) arguments: Vec<OsString>,
    /// What is asked for instead of a command.
    pub(super) protocol: Option<Protocol>,
}

/// What the Docker client asks a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Who are you?
    Metadata,
    /// What is to be said after a command of the client's? What could complete this?
    Nothing,
}

impl Invocation {
    /// The exit code of a failure. Docker Compose has one for everything, and scripts compare with it.
    pub(super) fn exit_code(&self, kind: Kind) -> ExitCode {
        match kind {
            Kind::Usage | Kind::Invalid | Kind::Engine | Kind::Question if self.stands_in => {
                Kind::Failed.into()
            }
            Kind::Failed
            | Kind::Usage
            | Kind::Invalid
            | Kind::Engine
            | Kind::Question
            | Kind::Bug
            | Kind::Interrupted
            | Kind::Service(_) => kind.into(),
        }
    }

    /// Reads the arguments; options of the Docker client become variables of `env`.
    ///
    /// # Errors
    /// An option of the client without its value, or one that cannot be honoured.
    pub(super) fn read(arguments: Vec<OsString>, env: &mut Env) -> Result<Self> {
        let mut arguments = arguments.into_iter();
        let called = arguments.next().unwrap_or_default();
        let called = Path::new(&called).file_name().unwrap_or_default();
        let called = called.to_string_lossy().into_owned();
        let mut rest: Vec<OsString> = arguments.collect();
        let Some(plugin) = called.strip_prefix("docker-") else {
            return Ok(Self {
                program: "wharf".to_owned(),
                arguments: rest,
                ..Self::default()
            });
        };
        options_of_the_client(&mut rest, env)?;
        let is = |at: usize, word: &str| rest.get(at).is_some_and(|argument| argument == word);
        let protocol = if is(0, "docker-cli-plugin-metadata") {
            Some(Protocol::Metadata)
        } else if is(0, "docker-cli-plugin-hooks")
            || is(0, "__complete")
            || is(0, "__completeNoDesc")
        {
            Some(Protocol::Nothing)
        } else {
            None
        };
        let mut by_client = is(0, plugin);
        if by_client {
            rest.remove(0);
        } else if is(0, "help") && is(1, plugin) {
            by_client = true;
            rest.drain(..2);
            rest.push("--help".into());
        }
        let stands_in = plugin == "compose";
        Ok(Self {
            program: if by_client {
                format!("docker {plugin}")
            } else {
                called
            },
            stands_in,
            by_client,
            arguments: rest,
            protocol,
        })
    }

    /// A text that names `wharf …` as something to type, with the name that was typed, and for the project that these
    /// words name.
    pub(super) fn in_its_words(&self, project: &[String], text: &str) -> String {
        in_words_of(&self.program, project, text)
    }
}

/// What is said of no project.
const WITHOUT_PROJECT: [&str; 7] = [
    "ls",
    "who",
    "free",
    "next-port",
    "server",
    "serve",
    "version",
];

/// A text that names `wharf …` as something to type, with the name of a program in its place, and the words that name a
/// project (`-f FILE`).
pub(super) fn in_words_of(program: &str, project: &[String], text: &str) -> String {
    const NAME: &str = "wharf ";
    if program == "wharf" && project.is_empty() {
        return text.to_owned();
    }
    let commands = super::Cli::command();
    let mut said = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(NAME) {
        said.push_str(before);
        let next = after.split(char::is_whitespace).next().unwrap_or_default();
        let next = next.trim_end_matches(['`', ',', ';']);
        let is_command = commands.find_subcommand(next).is_some();
        let is_typed = (said.is_empty() || said.ends_with('`'))
            || (said.ends_with(": ") && (is_command || next.starts_with('-')));
        said.push_str(if is_typed { program } else { "wharf" });
        let names_none = !is_command && !next.starts_with("--");
        if is_typed && !names_none && !WITHOUT_PROJECT.contains(&next) {
            for word in project {
                said.push(' ');
                said.push_str(word);
            }
        }
        said.push(' ');
        rest = after;
    }
    said.push_str(rest);
    said
}

/// What a plugin tells about itself: one JSON object.
pub(super) fn metadata() -> String {
    json!({
        "SchemaVersion": "0.1.0",
        "Vendor": "wharf",
        "Version": concat!("v", env!("CARGO_PKG_VERSION")),
        "ShortDescription": "Run a development stack from a compose file",
    })
    .to_string()
}

/// Takes the options of the Docker client from the front.
fn options_of_the_client(arguments: &mut Vec<OsString>, env: &mut Env) -> Result<()> {
    while let Some(first) = arguments.first().and_then(|first| first.to_str()) {
        let (name, given) = match first.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (first.to_owned(), None),
        };
        match name.as_str() {
            "-D" | "--debug" | "--tls" | "--tlsverify" => {
                if given.as_deref() != Some("false") {
                    switch(&name, env);
                }
                arguments.remove(0);
            }
            "--config" | "-c" | "--context" | "-H" | "--host" | "-l" | "--log-level"
            | "--tlscacert" | "--tlscert" | "--tlskey" => {
                let following = arguments.get(1).and_then(|value| value.to_str());
                let Some(value) = given.clone().or_else(|| following.map(str::to_owned)) else {
                    return Err(Error::usage(format!("{name} needs a value"))
                        .hint("docker --help tells what it takes"));
                };
                option(&name, value, env)?;
                arguments.drain(..if given.is_some() { 1 } else { 2 });
            }
            _ => return Ok(()),
        }
    }
    Ok(())
}

fn switch(name: &str, env: &mut Env) {
    let variable = match name {
        "--tls" => "DOCKER_TLS",
        "--tlsverify" => "DOCKER_TLS_VERIFY",
        _ => return,
    };
    env.variables.insert(variable.to_owned(), "1".to_owned());
}

fn option(name: &str, value: String, env: &mut Env) -> Result<()> {
    let (variable, value) = match name {
        "--config" => ("DOCKER_CONFIG", value),
        "-c" | "--context" => {
            // That one is what the variable says.
            if value != "default" {
                env.variables.remove("DOCKER_HOST");
            }
            ("DOCKER_CONTEXT", value)
        }
        "-H" | "--host" => {
            env.variables.remove("DOCKER_CONTEXT");
            ("DOCKER_HOST", value)
        }
        "--tlscacert" | "--tlscert" | "--tlskey" => {
            let usual = match name {
                "--tlscacert" => "ca.pem",
                "--tlscert" => "cert.pem",
                _ => "key.pem",
            };
            let path = env.current_dir.join(&value);
            if path.file_name().is_none_or(|file| file != usual) {
                return Err(Error::usage(format!("{name} {value}: wharf looks for {usual}"))
                    .hint("put ca.pem, cert.pem and key.pem in one folder and name it by DOCKER_CERT_PATH"));
            }
            let folder = path.parent().unwrap_or(&path).display().to_string();
            ("DOCKER_CERT_PATH", folder)
        }
        _ => return Ok(()),
    };
    env.variables.insert(variable.to_owned(), value);
    Ok(())
}

/// Ends this process as SIGTERM does when the Docker client that started it wants it to, or is gone. Only for
/// the plugin itself: what it starts inherits the variable, too, and is to go on.
pub(super) fn end_with_the_client(env: &mut Env) {
    let Some(address) = env.variables.remove(SOCKET).filter(|text| !text.is_empty()) else {
        return;
    };
    // A client that cannot be reached tells nothing; the terminal still does.
    let Ok(mut stream) = connect(&address) else {
        return;
    };
    let wait = move || {
        let mut buffer = [0; 64];
        while matches!(stream.read(&mut buffer), Ok(count) if count > 0) {}
        signals::end_for_the_client();
    };
    drop(
        std::thread::Builder::new()
            .name("docker-client".to_owned())
            .spawn(wait),
    );
}

#[cfg(target_os = "linux")]
fn connect(address: &str) -> std::io::Result<UnixStream> {
    use std::os::linux::net::SocketAddrExt;
    match address.strip_prefix('@') {
        Some(name) => {
            let name = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            UnixStream::connect_addr(&name)
        }
        None => UnixStream::connect(address),
    }
}

#[cfg(not(target_os = "linux"))]
fn connect(address: &str) -> std::io::Result<UnixStream> {
    UnixStream::connect(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> (Invocation, Env) {
        let mut env = Env::default();
        let arguments = arguments.iter().map(OsString::from).collect();
        let invocation = Invocation::read(arguments, &mut env).unwrap();
        (invocation, env)
    }

    #[test]
    fn the_name_decides() {
        let (own, _) = read(&["/usr/bin/wharf", "compose", "up"]);
        assert_eq!((own.program.as_str(), own.stands_in), ("wharf", false));
        assert_eq!(own.arguments, ["compose", "up"]);
        let (alone, _) = read(&["./docker-compose", "-f", "x", "up"]);
        assert_eq!(alone.program, "docker-compose");
        assert_eq!(alone.arguments, ["-f", "x", "up"]);
        let (plugin, _) = read(&["/p/docker-compose", "compose", "-p", "x", "up"]);
        assert_eq!(
            (plugin.program.as_str(), plugin.stands_in),
            ("docker compose", true)
        );
        assert_eq!(plugin.arguments, ["-p", "x", "up"]);
        let (help, _) = read(&["/p/docker-compose", "help", "compose", "up"]);
        assert_eq!(help.arguments, ["up", "--help"]);
        let (asked, _) = read(&["/p/docker-wharf", "docker-cli-plugin-metadata"]);
        assert_eq!(asked.protocol, Some(Protocol::Metadata));
    }

    #[test]
    fn options_of_the_client_are_variables() {
        let (plugin, env) = read(&[
            "docker-compose",
            "-D",
            "--host=tcp://h:1",
            "--config",
            "/c",
            "--tlsverify",
            "--tlscacert=/t/ca.pem",
            "compose",
            "ps",
        ]);
        assert_eq!(plugin.arguments, ["ps"]);
        for (name, value) in [
            ("DOCKER_HOST", "tcp://h:1"),
            ("DOCKER_CONFIG", "/c"),
            ("DOCKER_TLS_VERIFY", "1"),
            ("DOCKER_CERT_PATH", "/t"),
        ] {
            assert_eq!(env.get(name), Some(value), "{name}");
        }
        let mut env = Env::default();
        let arguments = ["docker-compose", "--host"].map(OsString::from).to_vec();
        assert!(Invocation::read(arguments, &mut env).is_err());
    }

    #[test]
    fn hints_name_the_program_that_was_typed() {
        let (plugin, _) = read(&["docker-compose", "compose", "up"]);
        assert_eq!(
            plugin.in_its_words(&[], "wharf up -d web"),
            "docker compose up -d web"
        );
        assert_eq!(
            plugin.in_its_words(&[], "see `wharf ps`"),
            "see `docker compose ps`"
        );
        assert_eq!(
            plugin.in_its_words(&[], "nsenter wharf -p p ps   # runs wharf there"),
            "nsenter wharf -p p ps   # runs wharf there"
        );
        let (own, _) = read(&["wharf"]);
        assert_eq!(own.in_its_words(&[], "wharf up"), "wharf up");
        let project = ["-f", "dev.yaml"].map(str::to_owned);
        for (text, typed) in [
            ("wharf up -d", "wharf -f dev.yaml up -d"),
            (
                "`wharf ps`, `wharf down`",
                "`wharf -f dev.yaml ps`, `wharf -f dev.yaml down`",
            ),
            (
                "must be built: wharf build a",
                "must be built: wharf -f dev.yaml build a",
            ),
            (
                "wharf --profile '*' down",
                "wharf -f dev.yaml --profile '*' down",
            ),
            // What names its project itself, what is of none, and what is no command.
            ("wharf -p other stop", "wharf -p other stop"),
            ("wharf who 80", "wharf who 80"),
            (
                "another wharf is at work: wharf waits",
                "another wharf is at work: wharf waits",
            ),
        ] {
            assert_eq!(own.in_its_words(&project, text), typed);
        }
    }
}
