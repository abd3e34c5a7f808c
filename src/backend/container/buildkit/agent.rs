//! An ssh agent of one build, for keys that are files: `ssh-agent` and `ssh-add` of this machine, so that
//! no key is read by wharf itself.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

/// How long the agent may take to listen.
const START: Duration = Duration::from_secs(5);

/// Between two looks whether it listens.
const LOOK: Duration = Duration::from_millis(10);

/// A running agent; dropping it ends it and removes its socket.
#[derive(Debug)]
pub(super) struct Agent {
    _program: Child,
    directory: PathBuf,
}

impl Drop for Agent {
    fn drop(&mut self) {
        // What is left of it is an empty directory for this user alone.
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

impl Agent {
    /// Starts an agent that knows these keys; an error is a message.
    pub(super) async fn with_key(key: &Path, name: &str) -> Result<Self, String> {
        let directory = std::env::temp_dir().join(format!("wharf-{name}"));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .map_err(|error| format!("{}: {error}", directory.display()))?;
        let socket = directory.join("agent.sock");
        let program = Command::new("ssh-agent")
            .arg("-D")
            .arg("-a")
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let program = match program {
            Ok(program) => program,
            Err(error) => {
                drop(std::fs::remove_dir_all(&directory));
                return Err(format!("cannot run `ssh-agent`: {error}"));
            }
        };
        let agent = Self {
            _program: program,
            directory,
        };
        let listens = async {
            while !socket.exists() {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(START, listens)
            .await
            .map_err(|_| "`ssh-agent` does not listen".to_owned())?;
        let added = Command::new("ssh-add")
            .arg("-q")
            .arg("--")
            .arg(key)
            .env("SSH_AUTH_SOCK", &socket)
            // Nobody could see the question for a passphrase.
            .env("SSH_ASKPASS_REQUIRE", "never")
            .stdin(Stdio::null())
            .process_group(0)
            .output()
            .await
            .map_err(|error: io::Error| format!("cannot run `ssh-add`: {error}"))?;
        if added.status.success() {
            return Ok(agent);
        }
        let why = String::from_utf8_lossy(&added.stderr);
        Err(format!(
            "{}: {} (a key with a passphrase is for your own agent: ssh-add {})",
            key.display(),
            why.trim(),
            key.display()
        ))
    }

    /// Where it listens.
    pub(super) fn socket(&self) -> PathBuf {
        self.directory.join("agent.sock")
    }
}
