//! Building an image: with `BuildKit` where the engine has it, else with the classic builder, which is here:
//! context up, output lines down.
//!
//! The classic request is made by hand because bollard's options cannot say all of it (several tags, several
//! hosts, a `/dev/shm` above 2 GiB).

use std::collections::{BTreeMap, VecDeque};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use bollard::errors::Error;
use futures_util::TryStreamExt;
use hyper::{Method, Request};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::connect::hex;
use super::context::{self, Context};
use super::ignore::Ignore;
use super::observe::encoded;
use super::{Engine, buildkit, labels, wire};
use crate::backend::BackendError;
use crate::event::{Event, Events};
use crate::plan::step::ProjectIdentity;
use crate::project::Env;
use crate::project::model::{Build, BuildContext, Service};

/// How long the engine may be silent: it reads the whole context before it says anything.
const UPLOAD: Duration = Duration::from_hours(1);

/// How many lines of output go into an error.
const KEPT: usize = 20;

/// What is built for whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site<'a> {
    /// The service.
    pub service: &'a Service,
    /// Its image.
    pub image: &'a str,
    /// The project, for labels.
    pub project: &'a ProjectIdentity,
    /// Who is told.
    pub events: &'a Events,
}

/// Builds a service's image and gives it `image` and the build's own tags.
pub(super) async fn image(engine: &Engine, site: Site<'_>) -> Result<(), BackendError> {
    let Some(build) = &site.service.build else {
        return Err(BackendError::Unsupported(format!(
            "{}: there is nothing to build",
            site.service.name
        )));
    };
    let mut build = build.clone();
    for (name, value) in &engine.proxies {
        build
            .args
            .entry(name.clone())
            .or_insert_with(|| Some(value.clone()));
    }
    let build = &build;
    if let Choice::Unreadable(word) = &engine.builder {
        return Err(BackendError::Unsupported(format!(
            "DOCKER_BUILDKIT is `{word}`, and should be 1 or 0"
        )));
    }
    if engine.builder != Choice::Classic {
        if let Some(builder) = buildkit::reach(engine).await? {
            return builder.build(engine, &site, build).await;
        }
        if engine.builder == Choice::BuildKit {
            return Err(BackendError::Unsupported(format!(
                "DOCKER_BUILDKIT asks for BuildKit, and the engine at {} has none",
                engine.info.endpoint
            )));
        }
    }
    classic(engine, site, build).await
}

/// Which builder `DOCKER_BUILDKIT` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Choice {
    /// The better one that there is.
    #[default]
    Best,
    /// The classic one.
    Classic,
    /// `BuildKit` and no other.
    BuildKit,
    /// It is neither yes nor no.
    Unreadable(String),
}

impl Choice {
    /// Reads the variable as the Docker CLI does.
    pub(super) fn of(env: &Env) -> Self {
        match env.get("DOCKER_BUILDKIT") {
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Self::BuildKit,
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Self::Classic,
            Some(other) => Self::Unreadable(other.to_owned()),
            None => Self::Best,
        }
    }
}

async fn classic(engine: &Engine, site: Site<'_>, build: &Build) -> Result<(), BackendError> {
    let Site {
        service,
        image,
        project,
        events,
    } = site;
    let mut output = Output::new(image, &service.name, events);
    if let Some(what) = beyond_classic(build) {
        return Err(output.failure(&format!(
            "the classic builder has no `build.{what}`: leave DOCKER_BUILDKIT=0 out, or use an engine \
             with BuildKit"
        )));
    }
    let (source, dockerfile) = match &build.context {
        BuildContext::Directory(root) => {
            let (context, dockerfile) = files(root, build).map_err(|why| output.failure(&why))?;
            (Some(context), dockerfile)
        }
        BuildContext::Remote(_) => (None, build.dockerfile.clone().unwrap_or_else(default_name)),
    };
    let mut labels = labels::of_image(project, service);
    labels.insert(labels::BUILDER.to_owned(), "classic".to_owned());
    let platform = service.platform.as_deref().or(engine.platform.as_deref());
    let query = query(build, image, &dockerfile, &labels, platform);
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(format!("/build?{query}"))
        .header("Content-Type", "application/x-tar");
    let identities = engine.credentials.for_build().await;
    engine.credentials.tell(events);
    if let Some(identities) = identities {
        request = request.header("X-Registry-Config", identities);
    }
    let (request, walk) = match source {
        Some(context) => {
            let (stream, walk) = context::stream(context);
            (request.body(bollard::body_try_stream(stream)), Some(walk))
        }
        None => (request.body(bollard::body_full(Vec::new().into())), None),
    };
    let done = async {
        let request = request.map_err(|err| Error::HttpClientError { err })?;
        let response = tokio::time::timeout(UPLOAD, engine.wire.checked(request))
            .await
            .map_err(|_| Error::RequestTimeoutError)??;
        let mut lines = std::pin::pin!(wire::json_lines(response.into_body()));
        while let Some(value) = lines.try_next().await? {
            output.take(&value)?;
        }
        Ok(())
    };
    let done = done.await;
    if let Some(walk) = walk
        && let Ok(Err(source)) = walk.await
        && source.kind() != std::io::ErrorKind::BrokenPipe
    {
        return Err(BackendError::State {
            action: format!("cannot send the build context of {image}"),
            source,
        });
    }
    match done {
        Ok(()) => Ok(()),
        Err(Error::DockerStreamError { error }) => Err(output.failure(&error)),
        // A Dockerfile that cannot be parsed is refused before any output.
        Err(Error::DockerResponseServerError {
            status_code: 400..=499,
            message,
        }) => Err(output.failure(&message)),
        Err(error) => Err(engine.refused(format!("build image {image}"), error)),
    }
}

/// The first attribute that only `BuildKit` has.
fn beyond_classic(build: &Build) -> Option<&'static str> {
    let given = [
        ("platforms", build.platforms.len() > 1),
        ("privileged", build.privileged),
        ("additional_contexts", !build.additional_contexts.is_empty()),
        ("ssh", !build.ssh.is_empty()),
        ("secrets", !build.secrets.is_empty()),
        ("cache_to", !build.cache_to.is_empty()),
        ("no_cache_filter", !build.no_cache_filter.is_empty()),
        ("entitlements", !build.entitlements.is_empty()),
        ("provenance", wanted(build.provenance.as_deref())),
        ("sbom", wanted(build.sbom.as_deref())),
        ("check", build.check),
    ];
    given
        .into_iter()
        .find_map(|(what, given)| given.then_some(what))
}

fn wanted(attestation: Option<&str>) -> bool {
    attestation.is_some_and(|value| value != "false")
}

fn default_name() -> String {
    "Dockerfile".to_owned()
}

/// The context of a local build, and the Dockerfile's path in it.
fn files(root: &Path, build: &Build) -> Result<(Context, String), String> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
    };
    let mut extra = Vec::new();
    let mut own_ignore = None;
    let dockerfile = if let Some(text) = &build.dockerfile_inline {
        stowed(text.as_bytes().to_vec(), &mut extra)
    } else {
        let path = tidied(&root.join(build.dockerfile.as_deref().unwrap_or("Dockerfile")));
        // `X.dockerignore` beside the Dockerfile X takes the place of the context's own.
        let mut beside = path.clone().into_os_string();
        beside.push(".dockerignore");
        own_ignore = Some(PathBuf::from(beside)).filter(|path| path.is_file());
        match path.strip_prefix(tidied(root)) {
            Ok(inside) => {
                if !path.is_file() {
                    return Err(format!("there is no {}", path.display()));
                }
                inside.to_string_lossy().into_owned()
            }
            Err(_) => stowed(read(&path)?, &mut extra),
        }
    };
    let file = own_ignore.unwrap_or_else(|| root.join(".dockerignore"));
    let mut ignore = if file.is_file() {
        let text = read(&file)?;
        Ignore::parse(&String::from_utf8_lossy(&text))
            .map_err(|error| format!("{}: {error}", file.display()))?
    } else {
        Ignore::default()
    };
    // The builder needs both; it takes them out of the build's view again by the same patterns.
    for needed in [dockerfile.as_str(), ".dockerignore"] {
        if ignore.excludes(needed) {
            ignore.always_send(needed);
        }
    }
    let context = Context {
        root: root.to_owned(),
        ignore,
        extra,
    };
    Ok((context, dockerfile))
}

/// Puts a Dockerfile that is not in the context into the stream, under a name of its own.
fn stowed(text: Vec<u8>, extra: &mut Vec<(String, Vec<u8>)>) -> String {
    let digest = hex(&Sha256::digest(&text));
    let name = format!(".dockerfile.{}", digest.get(..20).unwrap_or(&digest));
    extra.push((name.clone(), text));
    name
}

/// Resolves `.` and `..` by their text.
pub(super) fn tidied(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(tidy.pop()),
            part @ (Component::Prefix(_) | Component::RootDir | Component::Normal(_)) => {
                tidy.push(part);
            }
        }
    }
    tidy
}

fn query(
    build: &Build,
    image: &str,
    dockerfile: &str,
    labels: &BTreeMap<String, String>,
    platform: Option<&str>,
) -> String {
    // A variable that the builder's environment does not set is as if it were not given.
    let args: BTreeMap<&String, &String> = build
        .args
        .iter()
        .filter_map(|(key, value)| Some((key, value.as_ref()?)))
        .collect();
    let mut pairs = vec![
        ("version", "1".to_owned()),
        ("t", image.to_owned()),
        ("dockerfile", dockerfile.to_owned()),
        ("rm", "1".to_owned()),
        ("forcerm", "1".to_owned()),
        ("buildargs", serde_json::json!(args).to_string()),
        ("labels", serde_json::json!(labels).to_string()),
    ];
    pairs.extend(build.tags.iter().map(|tag| ("t", tag.clone())));
    pairs.extend(
        build
            .extra_hosts
            .iter()
            // The classic builder knows only the older form.
            .map(|host| ("extrahosts", host.replacen('=', ":", 1))),
    );
    if !build.cache_from.is_empty() {
        let images = serde_json::json!(build.cache_from).to_string();
        pairs.push(("cachefrom", images));
    }
    if !build.ulimits.is_empty() {
        let limits: Vec<Value> = build
            .ulimits
            .iter()
            .map(|(name, limit)| {
                serde_json::json!({"Name": name, "Soft": limit.soft, "Hard": limit.hard})
            })
            .collect();
        pairs.push(("ulimits", Value::Array(limits).to_string()));
    }
    if build.no_cache {
        pairs.push(("nocache", "1".to_owned()));
    }
    if build.pull {
        pairs.push(("pull", "1".to_owned()));
    }
    if let BuildContext::Remote(url) = &build.context {
        pairs.push(("remote", url.clone()));
    }
    let platform = platform.or(build.platforms.first().map(String::as_str));
    let optional = [
        ("target", build.target.clone()),
        ("networkmode", build.network.clone()),
        ("shmsize", build.shm_size.map(|bytes| bytes.to_string())),
        ("memory", build.memory.map(|bytes| bytes.to_string())),
        ("isolation", build.isolation.clone()),
        ("platform", platform.map(str::to_owned)),
    ];
    pairs.extend(
        optional
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?))),
    );
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(key, value)| format!("{key}={}", encoded(&value)))
        .collect();
    pairs.join("&")
}

/// The builder's output: told line by line, and its end kept for an error.
#[derive(Debug)]
pub(super) struct Output<'a> {
    image: &'a str,
    subject: &'a str,
    events: &'a Events,
    /// What has come of a line that is not complete yet.
    partial: String,
    /// The instruction under way.
    step: Option<String>,
    last: VecDeque<String>,
}

impl<'a> Output<'a> {
    pub(super) fn new(image: &'a str, subject: &'a str, events: &'a Events) -> Self {
        Self {
            image,
            subject,
            events,
            partial: String::new(),
            step: None,
            last: VecDeque::new(),
        }
    }

    /// Takes one message of the engine.
    fn take(&mut self, message: &Value) -> Result<(), Error> {
        let error = message["errorDetail"]["message"]
            .as_str()
            .or(message["error"].as_str());
        if let Some(error) = error {
            return Err(Error::DockerStreamError {
                error: error.to_owned(),
            });
        }
        if let Some(text) = message["stream"].as_str() {
            self.partial.push_str(text);
            while let Some(end) = self.partial.find('\n') {
                let line: String = self.partial.drain(..=end).collect();
                self.line(line.trim_end());
            }
        } else if let Some(status) = message["status"].as_str()
            && message["progress"].as_str().is_none_or(str::is_empty)
        {
            // The pull of a base image; bars are left out.
            match message["id"].as_str() {
                Some(id) => self.line(&format!("{id}: {status}")),
                None => self.line(status),
            }
        }
        Ok(())
    }

    /// The instruction that failed.
    pub(super) fn failed_at(&mut self, instruction: &str) {
        self.step = Some(instruction.to_owned());
    }

    /// Tells one line.
    pub(super) fn line(&mut self, line: &str) {
        if line.is_empty() {
            return;
        }
        if let Some(step) = instruction(line) {
            self.step = Some(step.to_owned());
        }
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(line.to_owned());
        self.events.send(Event::Progress {
            subject: self.subject.to_owned(),
            line: line.to_owned(),
        });
    }

    /// The build failed with this message.
    pub(super) fn failure(&self, message: &str) -> BackendError {
        BackendError::Build {
            image: self.image.to_owned(),
            step: self.step.clone(),
            message: message.trim().to_owned(),
            last_lines: self.last.iter().cloned().collect(),
        }
    }
}

/// The instruction in `Step 2/5 : RUN make`.
fn instruction(line: &str) -> Option<&str> {
    let (count, instruction) = line.strip_prefix("Step ")?.split_once(" : ")?;
    let (done, all) = count.split_once('/')?;
    (done.parse::<u32>().is_ok() && all.parse::<u32>().is_ok()).then_some(instruction)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(root: &Path) -> Build {
        Build {
            context: BuildContext::Directory(root.to_owned()),
            ..Build::default()
        }
    }

    #[test]
    fn output_becomes_lines_and_the_failing_step() {
        let (events, mut received) = Events::channel();
        let mut output = Output::new("p-web", "web", &events);
        for message in [
            r#"{"stream":"Step 1/2 : FROM scratch\n"}"#,
            r#"{"stream":"\n"}"#,
            r#"{"stream":"Step 2/2 : RUN "}"#,
            r#"{"stream":"false\n"}"#,
        ] {
            output
                .take(&serde_json::from_str(message).unwrap())
                .unwrap();
        }
        let failed =
            r#"{"errorDetail":{"code":1,"message":"non-zero code: 1"},"error":"non-zero code: 1"}"#;
        let error = output
            .take(&serde_json::from_str(failed).unwrap())
            .unwrap_err();
        let Error::DockerStreamError { error } = error else {
            panic!("{error}");
        };
        let BackendError::Build {
            step, last_lines, ..
        } = output.failure(&error)
        else {
            panic!("not a build error");
        };
        assert_eq!(step.as_deref(), Some("RUN false"));
        assert_eq!(
            last_lines,
            ["Step 1/2 : FROM scratch", "Step 2/2 : RUN false"]
        );
        let mut lines = Vec::new();
        while let Ok(Event::Progress { line, .. }) = received.try_recv() {
            lines.push(line);
        }
        assert_eq!(lines, last_lines);
    }

    #[test]
    fn the_dockerfile_is_found_or_taken_along() {
        let root = tempfile::tempdir().unwrap();
        let context = root.path().join("context");
        std::fs::create_dir_all(context.join("docker")).unwrap();
        std::fs::write(context.join("docker/web"), "FROM a").unwrap();
        std::fs::write(root.path().join("outside"), "FROM b").unwrap();
        std::fs::write(context.join(".dockerignore"), "**").unwrap();

        let mut inside = build(&context);
        inside.dockerfile = Some("./docker/web".to_owned());
        let (sent, name) = files(&context, &inside).unwrap();
        assert_eq!(name, "docker/web");
        assert!(!sent.ignore.excludes("docker/web"));
        assert!(sent.ignore.excludes("docker/other"));

        let mut outside = build(&context);
        outside.dockerfile = Some("../outside".to_owned());
        let (sent, name) = files(&context, &outside).unwrap();
        assert_eq!(sent.extra, [(name, b"FROM b".to_vec())]);

        let mut inline = build(&context);
        inline.dockerfile_inline = Some("FROM c".to_owned());
        let (sent, name) = files(&context, &inline).unwrap();
        assert_eq!(sent.extra, [(name, b"FROM c".to_vec())]);

        let why = files(&context, &build(&context)).unwrap_err();
        assert!(why.contains("context/Dockerfile"), "{why}");
    }

    #[test]
    fn a_dockerfile_s_own_ignore_file_wins() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("Dockerfile"), "FROM a").unwrap();
        std::fs::write(root.path().join(".dockerignore"), "a").unwrap();
        std::fs::write(root.path().join("Dockerfile.dockerignore"), "b").unwrap();
        let (sent, _) = files(root.path(), &build(root.path())).unwrap();
        assert!(!sent.ignore.excludes("a"));
        assert!(sent.ignore.excludes("b"));
    }

    #[test]
    fn every_option_is_in_the_query() {
        let mut build = build(Path::new("/x"));
        build.tags = vec!["second:1".to_owned()];
        build.args = BTreeMap::from([
            ("A".to_owned(), Some("1 2".to_owned())),
            ("UNSET".to_owned(), None),
        ]);
        build.extra_hosts = vec!["a=10.0.0.1".to_owned(), "b:10.0.0.2".to_owned()];
        build.shm_size = Some(4 << 30);
        let query = query(&build, "p-web", "Dockerfile", &BTreeMap::new(), None);
        for part in [
            "t=p-web",
            "t=second%3A1",
            "buildargs=%7B%22A%22%3A%221%202%22%7D",
            "extrahosts=a%3A10.0.0.1&extrahosts=b%3A10.0.0.2",
            "shmsize=4294967296",
        ] {
            assert!(query.contains(part), "{part} in {query}");
        }
        assert!(!query.contains("UNSET"));
    }
}
