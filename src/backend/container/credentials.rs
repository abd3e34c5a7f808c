//! Who we are at a registry: from the Docker configuration and its credential helpers to the header
//! that goes with a pull or a build.
//!
//! The order is the Docker CLI's: `DOCKER_AUTH_CONFIG`, `credHelpers` of the registry, `credsStore`,
//! `auths`. What cannot be found out means an anonymous request, and a warning that says why there are no
//! credentials: a registry's refusal alone would send people to `docker login`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::connect;
use crate::event::{Event, Events};
use crate::project::Env;

/// The key of Docker Hub in every configuration.
const HUB: &str = "https://index.docker.io/v1/";

/// A helper that asks somebody for a password would hang a pull.
const HELPER: Duration = Duration::from_secs(15);

/// The user name by which a helper says that the secret is an identity token.
const TOKEN: &str = "<token>";

/// What a helper says of a server that it does not know (`docker-credential-helpers`, `errors.go`).
const UNKNOWN: &str = "credentials not found in native keychain";

/// How many lines of a failed helper are repeated.
const LINES: usize = 3;

/// What the configuration says.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Credentials {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
    #[serde(rename = "credHelpers", default)]
    helpers: BTreeMap<String, String>,
    /// `DOCKER_AUTH_CONFIG`.
    #[serde(skip)]
    given: BTreeMap<String, Entry>,
    /// Where helpers are looked for.
    #[serde(skip)]
    path: Option<String>,
    #[serde(skip)]
    complaints: Mutex<Complaints>,
}

/// Why there are no credentials, once each.
#[derive(Debug, Default)]
struct Complaints {
    told: BTreeSet<String>,
    open: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
}

/// What the engine is told (`AuthConfig` of the Engine API).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Identity {
    #[serde(skip_serializing_if = "String::is_empty")]
    username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    password: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    identitytoken: String,
    serveraddress: String,
}

#[derive(Deserialize)]
struct Told {
    #[serde(rename = "Username", default)]
    username: String,
    #[serde(rename = "Secret", default)]
    secret: String,
}

impl Credentials {
    /// Reads the configuration; without one there are no credentials.
    pub(super) fn load(env: &Env) -> Self {
        let mut credentials = Self::default();
        if let Some(file) = connect::directory(env).map(|directory| directory.join("config.json")) {
            let read = match std::fs::read(&file) {
                Ok(text) => serde_json::from_slice(&text).map_err(|error| error.to_string()),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
                Err(error) => Err(error.to_string()),
            };
            match read {
                Ok(found) => credentials = found,
                Err(why) => {
                    let file = file.display();
                    credentials.complain(format!(
                        "cannot read {file} ({why}), so registries are asked without credentials: \
                         mend it, or mv {file} {file}.damaged"
                    ));
                }
            }
        }
        if let Some(text) = env.get("DOCKER_AUTH_CONFIG") {
            match serde_json::from_str::<Self>(text) {
                Ok(given) => credentials.given = given.auths,
                Err(why) => credentials.complain(format!(
                    "cannot read DOCKER_AUTH_CONFIG ({why}), so its credentials are not used"
                )),
            }
        }
        credentials.path = env.get("PATH").map(str::to_owned);
        credentials
    }

    fn complain(&self, why: String) {
        let mut complaints = self.complaints();
        if complaints.told.insert(why.clone()) {
            complaints.open.push(why);
        }
    }

    fn complaints(&self) -> MutexGuard<'_, Complaints> {
        self.complaints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Says why there were no credentials, where that has not been said yet.
    pub(super) fn tell(&self, events: &Events) {
        for why in std::mem::take(&mut self.complaints().open) {
            events.send(Event::Warning(why));
        }
    }

    /// The helper programs that are named, with the registries they are for; `*`: all others.
    pub(super) fn programs(&self) -> BTreeMap<String, Vec<String>> {
        let all = self.store.iter().map(|store| (store, "*"));
        let own = self
            .helpers
            .iter()
            .map(|(server, name)| (name, server.as_str()));
        let mut programs: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, server) in all.chain(own) {
            let program = format!("docker-credential-{name}");
            programs.entry(program).or_default().push(server.to_owned());
        }
        programs
    }

    /// The value of `X-Registry-Auth` for an image, if there are credentials for its registry.
    pub(super) async fn for_image(&self, image: &str) -> Option<String> {
        let identity = self.of(registry(image)).await?;
        header(&identity)
    }

    /// The same for a push, which must say so if there are none.
    pub(super) async fn for_push(&self, image: &str) -> String {
        let known = self.for_image(image).await;
        known.unwrap_or_else(|| BASE64_URL_SAFE.encode("{}"))
    }

    /// User name and password for a registry's host, as `BuildKit` asks for them; a token has no user
    /// name, and an unknown host neither.
    pub(super) async fn pair(&self, host: &str) -> (String, String) {
        let server = match host {
            "docker.io" | "index.docker.io" | "registry-1.docker.io" => HUB,
            other => other,
        };
        let identity = self.of(server).await.unwrap_or_default();
        if identity.identitytoken.is_empty() {
            (identity.username, identity.password)
        } else {
            (String::new(), identity.identitytoken)
        }
    }

    /// The value of `X-Registry-Config`: all that is configured, because only the builder knows which
    /// images it will pull.
    pub(super) async fn for_build(&self) -> Option<String> {
        let all = self.all().await;
        if all.is_empty() { None } else { header(&all) }
    }

    /// Every identity that is configured, by server.
    async fn all(&self) -> BTreeMap<String, Identity> {
        let servers: BTreeSet<&String> = self
            .given
            .keys()
            .chain(self.auths.keys())
            .chain(self.helpers.keys())
            .collect();
        let mut all = BTreeMap::new();
        for server in servers {
            if let Some(identity) = self.of(server).await {
                all.insert(server.clone(), identity);
            }
        }
        all
    }

    /// All that is configured, as the text of a configuration file without helpers.
    pub(super) async fn as_configuration(&self) -> String {
        let mut auths = serde_json::Map::new();
        for (server, identity) in self.all().await {
            let pair = format!("{}:{}", identity.username, identity.password);
            let mut entry = serde_json::json!({ "auth": BASE64_STANDARD.encode(pair) });
            if !identity.identitytoken.is_empty() {
                entry = serde_json::json!({ "identitytoken": identity.identitytoken });
            }
            auths.insert(server, entry);
        }
        serde_json::json!({ "auths": auths }).to_string()
    }

    async fn of(&self, server: &str) -> Option<Identity> {
        if let Some(identity) = listed(&self.given, server) {
            return Some(identity);
        }
        let helper = self.helpers.get(server).or(self.store.as_ref());
        if let Some(helper) = helper {
            return self.ask(helper, server).await;
        }
        listed(&self.auths, server)
    }

    /// The protocol of credential helpers: the server on stdin, JSON on stdout, a failure for a server
    /// that is not known.
    async fn ask(&self, helper: &str, server: &str) -> Option<Identity> {
        let mut command = Command::new(format!("docker-credential-{helper}"));
        command
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(path) = &self.path {
            command.env("PATH", path);
        }
        let program = format!("docker-credential-{helper}");
        let without = "so it is asked without credentials";
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                let why = if error.kind() == std::io::ErrorKind::NotFound {
                    "is not on PATH".to_owned()
                } else {
                    format!("cannot be run ({error})")
                };
                self.complain(format!(
                    "{program}, which the Docker configuration names for {server}, {why}, {without}: \
                     install it, or take it out of credsStore and credHelpers"
                ));
                return None;
            }
        };
        let mut stdin = child.stdin.take()?;
        let answered = async {
            // A helper that does not read its input answers all the same.
            drop(stdin.write_all(server.as_bytes()).await);
            drop(stdin);
            child.wait_with_output().await
        };
        let Ok(output) = tokio::time::timeout(HELPER, answered).await else {
            let seconds = HELPER.as_secs();
            self.complain(format!(
                "{program} has not answered for {server} in {seconds} s, {without}"
            ));
            return None;
        };
        let by_hand = format!("echo {server} | {program} get");
        let output = match output {
            Ok(output) => output,
            Err(error) => {
                self.complain(format!(
                    "cannot read what {program} answers for {server} ({error}), {without}: {by_hand}"
                ));
                return None;
            }
        };
        if !output.status.success() {
            // The words for a server that it does not know are the protocol's.
            if !String::from_utf8_lossy(&output.stdout).contains(UNKNOWN) {
                let why = failure(&output);
                self.complain(format!(
                    "{program} failed for {server} ({why}), {without}: {by_hand}"
                ));
            }
            return None;
        }
        let told: Told = match serde_json::from_slice(&output.stdout) {
            Ok(told) => told,
            Err(error) => {
                // What it answered may be a secret.
                self.complain(format!(
                    "the answer of {program} for {server} is not what the protocol asks for ({error}), {without}: \
                     {by_hand}"
                ));
                return None;
            }
        };
        let serveraddress = server.to_owned();
        Some(if told.username == TOKEN {
            Identity {
                identitytoken: told.secret,
                serveraddress,
                ..Identity::default()
            }
        } else {
            Identity {
                username: told.username,
                password: told.secret,
                serveraddress,
                ..Identity::default()
            }
        })
    }
}

/// How a helper ended, and what it said: on either stream, in one line.
fn failure(output: &Output) -> String {
    let said: Vec<String> = [&output.stderr, &output.stdout]
        .iter()
        .flat_map(|stream| {
            let text = String::from_utf8_lossy(stream);
            let lines = text.lines().map(|line| in_one_line(line.trim()));
            lines.filter(|line| !line.is_empty()).collect::<Vec<_>>()
        })
        .take(LINES)
        .collect();
    match said.as_slice() {
        [] => output.status.to_string(),
        said => format!("{}: {}", output.status, said.join("; ")),
    }
}

/// Control characters are not for the terminal.
fn in_one_line(line: &str) -> String {
    line.chars().filter(|char| !char.is_control()).collect()
}

fn header(value: &impl Serialize) -> Option<String> {
    // The engine reads the alphabet for URLs only.
    let text = serde_json::to_string(value).ok()?;
    Some(BASE64_URL_SAFE.encode(text))
}

/// The entry for a server, whether its key is written with scheme and path or without.
fn listed(entries: &BTreeMap<String, Entry>, server: &str) -> Option<Identity> {
    let entry = entries.get(server).or_else(|| {
        let found = entries.iter().find(|(key, _)| host(key) == host(server));
        found.map(|(_, entry)| entry)
    })?;
    let mut identity = Identity {
        username: entry.username.clone(),
        password: entry.password.clone(),
        identitytoken: entry.identitytoken.clone(),
        serveraddress: server.to_owned(),
    };
    if !entry.auth.is_empty() {
        let pair = BASE64_STANDARD.decode(&entry.auth).ok()?;
        let pair = String::from_utf8(pair).ok()?;
        let (user, password) = pair.split_once(':')?;
        user.clone_into(&mut identity.username);
        password
            .trim_matches('\0')
            .clone_into(&mut identity.password);
    }
    let known = !identity.username.is_empty() || !identity.identitytoken.is_empty();
    known.then_some(identity)
}

fn host(server: &str) -> &str {
    let rest = server
        .strip_prefix("https://")
        .or_else(|| server.strip_prefix("http://"))
        .unwrap_or(server);
    rest.split('/').next().unwrap_or(rest)
}

/// The registry that a reference names: its first part, if that looks like a host.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some(("docker.io" | "index.docker.io", _)) => HUB,
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => HUB,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    fn home(config: &str) -> (tempfile::TempDir, Env) {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("config.json"), config).unwrap();
        let path = home.path().display().to_string();
        let variables = [
            ("DOCKER_CONFIG", path.clone()),
            ("PATH", format!("{path}:/usr/bin:/bin")),
        ];
        let env = Env {
            variables: variables.map(|(key, value)| (key.to_owned(), value)).into(),
            current_dir: "/".into(),
        };
        (home, env)
    }

    /// A helper that knows one server.
    fn helper(directory: &Path, name: &str, server: &str, user: &str, secret: &str) {
        let script = format!(
            "#!/bin/sh\nread server\n[ \"$1 $server\" = 'get {server}' ] || exit 1\n\
             echo '{{\"Username\":\"{user}\",\"Secret\":\"{secret}\"}}'\n"
        );
        program(directory, name, &script);
    }

    fn program(directory: &Path, name: &str, script: &str) {
        let path = directory.join(format!("docker-credential-{name}"));
        // Written by another process: a child that is forked here while the file is open for writing
        // would make it busy.
        let draft = directory.join(format!("{name}.draft"));
        std::fs::write(&draft, script).unwrap();
        std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o755)).unwrap();
        let copied = std::process::Command::new("cp")
            .arg("-p")
            .args([&draft, &path])
            .status();
        assert!(copied.unwrap().success());
    }

    async fn told(env: &Env, image: &str) -> Option<serde_json::Value> {
        let header = Credentials::load(env).for_image(image).await?;
        let text = BASE64_URL_SAFE.decode(header).unwrap();
        Some(serde_json::from_slice(&text).unwrap())
    }

    #[test]
    fn references_name_their_registry() {
        for (image, server) in [
            ("busybox", HUB),
            ("library/busybox:1", HUB),
            ("docker.io/library/busybox", HUB),
            ("localhost/a", "localhost"),
            ("localhost:5000/a/b", "localhost:5000"),
            ("registry.example/a", "registry.example"),
        ] {
            assert_eq!(registry(image), server);
        }
    }

    #[tokio::test]
    async fn written_credentials_are_found_by_host() {
        let config = r#"{"auths": {
            "https://registry.example/v2/": {"auth": "bWU6cGE6c3M="},
            "https://index.docker.io/v1/": {"identitytoken": "t"},
            "empty.example": {}}}"#;
        let (_home, env) = home(config);
        let found = told(&env, "registry.example/a:1").await.unwrap();
        assert_eq!(found["username"], "me");
        assert_eq!(found["password"], "pa:ss");
        assert_eq!(found["serveraddress"], "registry.example");
        let found = told(&env, "busybox").await.unwrap();
        assert_eq!(found["identitytoken"], "t");
        assert_eq!(told(&env, "empty.example/a").await, None);
        assert_eq!(told(&env, "other.example/a").await, None);
    }

    #[tokio::test]
    async fn helpers_come_before_what_is_written() {
        let config = r#"{"auths": {"one.example": {"auth": "bWU6cGFzcw=="}},
            "credsStore": "all", "credHelpers": {"two.example": "special", "three.example": "gone"}}"#;
        let (home, env) = home(config);
        helper(home.path(), "all", "one.example", "stored", "s3cret");
        helper(home.path(), "special", "two.example", TOKEN, "tok");
        let found = told(&env, "one.example/a").await.unwrap();
        assert_eq!(found["username"], "stored");
        let found = told(&env, "two.example/a").await.unwrap();
        assert_eq!(found["identitytoken"], "tok");
        assert_eq!(found.get("username"), None);
        assert_eq!(told(&env, "three.example/a").await, None);
        assert_eq!(told(&env, "four.example/a").await, None);

        let header = Credentials::load(&env).for_build().await.unwrap();
        let all: serde_json::Value =
            serde_json::from_slice(&BASE64_URL_SAFE.decode(header).unwrap()).unwrap();
        let servers: Vec<&String> = all.as_object().unwrap().keys().collect();
        assert_eq!(servers, ["one.example", "two.example"]);
    }

    #[tokio::test]
    async fn the_environment_comes_first() {
        let (_home, mut env) = home(r#"{"auths": {"one.example": {"auth": "bWU6cGFzcw=="}}}"#);
        let given = r#"{"auths": {"one.example": {"auth": "eW91OnBhc3M="}}}"#;
        env.variables
            .insert("DOCKER_AUTH_CONFIG".to_owned(), given.to_owned());
        let found = told(&env, "one.example/a").await.unwrap();
        assert_eq!(found["username"], "you");
    }

    #[tokio::test]
    async fn no_configuration_means_nobody() {
        let env = Env::default();
        assert_eq!(told(&env, "busybox").await, None);
        assert_eq!(Credentials::load(&env).for_build().await, None);
    }

    #[tokio::test]
    async fn a_helper_that_fails_is_named_with_its_words() {
        let (home, env) = home(r#"{"credsStore": "broken"}"#);
        let script = "#!/bin/sh\nread server\n[ $server = odd.example ] && echo nothing && exit 0\n\
                      [ $server = new.example ] && echo credentials not found in native keychain && exit 1\n\
                      echo 'vault is locked' >&2\nexit 3\n";
        program(home.path(), "broken", script);
        let mut said = Vec::new();
        for image in ["one.example/a", "odd.example/a", "new.example/a"] {
            let credentials = Credentials::load(&env);
            let (events, mut receiver) = Events::channel();
            assert_eq!(credentials.for_image(image).await, None);
            credentials.tell(&events);
            said.push(match receiver.try_recv() {
                Ok(Event::Warning(why)) => why,
                _ => String::new(),
            });
        }
        for part in [
            "docker-credential-broken",
            "one.example",
            "exit status: 3",
            "vault is locked",
        ] {
            assert!(said[0].contains(part), "{}", said[0]);
        }
        assert!(said[1].contains("odd.example"), "{}", said[1]);
        assert_eq!(said[2], "", "one that it does not know is no failure");
    }

    #[tokio::test]
    async fn why_there_are_none_is_said_once() {
        let (_home, env) = home(r#"{"credsStore": "not-installed"}"#);
        let credentials = Credentials::load(&env);
        let (events, mut receiver) = Events::channel();
        for _ in 0..2 {
            assert_eq!(credentials.for_image("localhost:5000/a").await, None);
            credentials.tell(&events);
        }
        let Ok(Event::Warning(why)) = receiver.try_recv() else {
            panic!("nothing was said");
        };
        assert!(why.contains("docker-credential-not-installed"), "{why}");
        assert!(receiver.try_recv().is_err());
        let (home, env) = home("{broken");
        Credentials::load(&env).tell(&events);
        let Ok(Event::Warning(why)) = receiver.try_recv() else {
            panic!("nothing was said");
        };
        let path = home.path().display().to_string();
        assert!(why.contains(&path), "{why}");
    }
}
