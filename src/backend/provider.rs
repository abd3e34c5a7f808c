//! Services that another program provides (`provider:`): finds the program, runs `PROGRAM compose … up`,
//! `stop` or `down`, and reads what it says, a JSON object a line (docker/compose, docs/extension.md).

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::backend::BackendError;
use crate::event::{Event, Events};
use crate::plan::step::Provision;
use crate::project::Env;
use crate::project::model::{Provider, Service, Variables};

/// Where the Docker client looks for plugins besides the user's folder.
const PLUGINS: [&str; 4] = [
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
];

/// How many lines of standard error go into an error.
const KEPT: usize = 20;

/// How long after the program's end its output is read: something that it started may keep it open.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Runs providers.
#[derive(Debug)]
pub struct Providers {
    env: Env,
}

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    message: String,
}

/// What a provider says of its options; one that says nothing gets all.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    description: String,
    up: Parameters,
    down: Parameters,
    stop: Option<Parameters>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Parameters {
    parameters: Option<Vec<Parameter>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Parameter {
    name: String,
    required: bool,
}

impl Metadata {
    fn is_empty(&self) -> bool {
        self.description.is_empty()
            && self.up.parameters.is_none()
            && self.down.parameters.is_none()
    }

    fn of(&self, what: Provision) -> &[Parameter] {
        let parameters = match what {
            Provision::Up => Some(&self.up),
            Provision::Down => Some(&self.down),
            Provision::Stop => self.stop.as_ref(),
        };
        parameters
            .and_then(|parameters| parameters.parameters.as_deref())
            .unwrap_or_default()
    }
}

/// One call of one provider.
struct Call<'a> {
    service: &'a Service,
    provider: &'a Provider,
    project: &'a str,
    what: Provision,
}

impl Call<'_> {
    fn failed(&self, message: impl Into<String>, last_lines: Vec<String>) -> BackendError {
        BackendError::Provider {
            service: self.service.name.clone(),
            kind: self.provider.kind.clone(),
            action: self.what.verb(),
            message: message.into(),
            last_lines,
        }
    }
}

impl Providers {
    /// Nothing is looked for yet.
    pub fn new(env: &Env) -> Self {
        Self { env: env.clone() }
    }

    /// Has a service's provider do something; what it tells the services that depend on it.
    ///
    /// # Errors
    /// There is no such program, or it failed, or it said something that is no message.
    pub async fn perform(
        &self,
        service: &Service,
        project: &str,
        what: Provision,
        events: &Events,
    ) -> Result<Variables, BackendError> {
        let Some(provider) = &service.provider else {
            return Ok(Variables::default());
        };
        let call = Call {
            service,
            provider,
            project,
            what,
        };
        let program = self.find(&call)?;
        let metadata = self.metadata(&program, &call).await;
        let parameters = metadata.of(what);
        let mut arguments = vec![
            "compose".to_owned(),
            format!("--project-name={project}"),
            what.word().to_owned(),
        ];
        if !metadata.is_empty() {
            let missing = parameters.iter().find(|parameter| {
                parameter.required && !provider.options.contains_key(&parameter.name)
            });
            if let Some(missing) = missing {
                let message = format!("its option `{}` is required", missing.name);
                return Err(call.failed(message, Vec::new()));
            }
        }
        for (name, values) in &provider.options {
            let is_known = |parameter: &Parameter| parameter.name == *name;
            if metadata.is_empty() || parameters.iter().any(is_known) {
                arguments.extend(values.iter().map(|value| format!("--{name}={value}")));
            }
        }
        arguments.push(service.name.clone());
        let child = self
            .command(&program, &call)
            .args(&arguments)
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| call.failed(error.to_string(), Vec::new()))?;
        heard(child, &call, events).await
    }

    /// Whether a service's provider says that it can stop it.
    pub async fn can_stop(&self, service: &Service, project: &str) -> bool {
        let Some(provider) = &service.provider else {
            return false;
        };
        let call = Call {
            service,
            provider,
            project,
            what: Provision::Stop,
        };
        match self.find(&call) {
            Ok(program) => self.metadata(&program, &call).await.stop.is_some(),
            Err(_) => false,
        }
    }

    /// The program: a plugin of the Docker client, else a command on PATH.
    fn find(&self, call: &Call<'_>) -> Result<PathBuf, BackendError> {
        let kind = &call.provider.kind;
        let plugin = format!("docker-{kind}");
        let plugins = self.plugin_folders().into_iter();
        let plugins = plugins.map(|folder| folder.join(&plugin));
        let path = self.env.get("PATH").unwrap_or_default();
        let commands = std::env::split_paths(path).map(|folder| folder.join(kind));
        // It would call itself for ever.
        let found = (kind != "compose")
            .then(|| plugins.chain(commands).find(|path| is_program(path)))
            .flatten();
        found.ok_or_else(|| BackendError::NoProvider {
            service: call.service.name.clone(),
            kind: kind.clone(),
        })
    }

    fn plugin_folders(&self) -> Vec<PathBuf> {
        let configuration = self
            .env
            .get("DOCKER_CONFIG")
            .map(|path| self.env.current_dir.join(path))
            .or_else(|| {
                let home = self.env.get("HOME")?;
                Some(Path::new(home).join(".docker"))
            });
        let further: Vec<PathBuf> = configuration
            .as_ref()
            .and_then(|folder| std::fs::read(folder.join("config.json")).ok())
            .and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok())
            .and_then(|config| {
                let folders = config.get("cliPluginsExtraDirs")?.as_array()?.iter();
                Some(
                    folders
                        .filter_map(|folder| Some(folder.as_str()?.into()))
                        .collect(),
                )
            })
            .unwrap_or_default();
        let own = configuration.map(|folder| folder.join("cli-plugins"));
        further
            .into_iter()
            .chain(own)
            .chain(PLUGINS.map(PathBuf::from))
            .collect()
    }

    fn command(&self, program: &Path, call: &Call<'_>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .envs(&self.env.variables)
            .envs(&call.provider.environment)
            .env("COMPOSE_PROJECT_NAME", call.project)
            .current_dir(&self.env.current_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// What it says of itself; it need not say anything.
    async fn metadata(&self, program: &Path, call: &Call<'_>) -> Metadata {
        let asked = self
            .command(program, call)
            .args(["compose", "metadata"])
            .stderr(Stdio::null())
            .output()
            .await;
        asked
            .ok()
            .filter(|output| output.status.success())
            .and_then(|output| serde_json::from_slice(&output.stdout).ok())
            .unwrap_or_default()
    }
}

/// Reads what a provider says until it ends.
async fn heard(
    mut child: Child,
    call: &Call<'_>,
    events: &Events,
) -> Result<Variables, BackendError> {
    let mut variables = Variables::default();
    let words = child
        .stderr
        .take()
        .map(|stream| tokio::spawn(last_words(stream)));
    let told = match child.stdout.take() {
        Some(stream) => listen(&mut child, stream, call, events, &mut variables).await,
        None => Ok(()),
    };
    if told.is_err() {
        // It may be waiting for something that never comes.
        drop(child.start_kill());
    }
    let status = child.wait().await;
    let last_lines = match words {
        Some(words) => tokio::time::timeout(LAST_WORDS, words)
            .await
            .ok()
            .and_then(Result::ok)
            .unwrap_or_default(),
        None => Vec::new(),
    };
    told.map_err(|message| call.failed(message, last_lines.clone()))?;
    match status {
        Ok(status) if status.success() => Ok(variables),
        Ok(status) => Err(call.failed(status.to_string(), last_lines)),
        Err(error) => Err(call.failed(error.to_string(), last_lines)),
    }
}

async fn listen(
    child: &mut Child,
    stream: tokio::process::ChildStdout,
    call: &Call<'_>,
    events: &Events,
    variables: &mut Variables,
) -> Result<(), String> {
    let mut lines = BufReader::new(stream).lines();
    let mut ended = false;
    loop {
        let line = if ended {
            match tokio::time::timeout(LAST_WORDS, lines.next_line()).await {
                Ok(line) => line,
                Err(_) => return Ok(()),
            }
        } else {
            tokio::select! {
                biased;
                line = lines.next_line() => line,
                _ = child.wait() => {
                    ended = true;
                    continue;
                }
            }
        };
        match line.map_err(|error| error.to_string())? {
            None => return Ok(()),
            Some(line) if line.trim().is_empty() => {}
            Some(line) => hear(&line, call, events, variables)?,
        }
    }
}

/// One line of a provider.
fn hear(
    line: &str,
    call: &Call<'_>,
    events: &Events,
    variables: &mut Variables,
) -> Result<(), String> {
    let Ok(message) = serde_json::from_str::<Message>(line) else {
        return Err(format!("it said something that is no message: {line}"));
    };
    let text = message.message;
    match message.kind.as_str() {
        "info" => events.send(Event::Progress {
            subject: call.service.name.clone(),
            line: text.lines().next().unwrap_or_default().to_owned(),
        }),
        "debug" => {}
        "error" => return Err(text.trim_end().to_owned()),
        kind @ ("setenv" | "rawsetenv") => {
            let Some((name, value)) = text.split_once('=') else {
                return Err(format!(
                    "it set `{text}`, which is not of the form NAME=VALUE"
                ));
            };
            let own = if kind == "setenv" {
                &mut variables.prefixed
            } else {
                &mut variables.raw
            };
            own.insert(name.to_owned(), value.to_owned());
        }
        other => return Err(format!("it sent a message of the unknown type `{other}`")),
    }
    Ok(())
}

async fn last_words(mut stream: tokio::process::ChildStderr) -> Vec<String> {
    let mut kept = std::collections::VecDeque::new();
    let mut chunk = vec![0; 4096];
    let mut line = Vec::new();
    let mut keep = |line: &mut Vec<u8>| {
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(String::from_utf8_lossy(line).into_owned());
        line.clear();
    };
    while let Ok(count @ 1..) = stream.read(&mut chunk).await {
        for byte in chunk.iter().take(count) {
            if *byte == b'\n' {
                keep(&mut line);
            } else {
                line.push(*byte);
            }
        }
    }
    if !line.is_empty() {
        keep(&mut line);
    }
    kept.into()
}

fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}
