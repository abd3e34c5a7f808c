//! Whether what an engine publishes is published here: by the namespaces of the process behind its socket.

use std::fs;
use std::path::PathBuf;

/// Where the ports that an engine publishes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// In our network namespace, as far as anybody can tell.
    Here,
    /// In one of its own, from which a process of this namespace forwards, as for an engine without root: where there
    /// is no socket here, there is no port.
    Forwarded,
    /// In another one, of which nothing is seen here.
    Elsewhere,
}

/// Where the engine publishes that `daemon` answers for.
pub(super) fn of(daemon: Option<u32>) -> Whereabouts {
    let is_ours = |kind: &str| -> Option<bool> {
        let link = |of: String| -> Option<PathBuf> { fs::read_link(of).ok() };
        // Whose namespaces are not shown to us may be anywhere.
        let other = link(format!("/proc/{}/ns/{kind}", daemon?))?;
        Some(link(format!("/proc/self/ns/{kind}"))? == other)
    };
    match (is_ours("net"), is_ours("user")) {
        (Some(false), Some(true)) => Whereabouts::Elsewhere,
        (Some(false), Some(false) | None) => Whereabouts::Forwarded,
        (Some(true) | None, _) => Whereabouts::Here,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    fn in_namespaces(words: &[&str]) -> Whereabouts {
        let mut child = Command::new("unshare")
            .args(words)
            .args(["sh", "-c", "echo up; read line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut said)
            .unwrap();
        let found = of(Some(child.id()));
        drop(child.stdin.take());
        child.wait().unwrap();
        found
    }

    #[test]
    fn an_engine_of_another_network_namespace_publishes_elsewhere() {
        assert_eq!(of(Some(std::process::id())), Whereabouts::Here);
        assert_eq!(of(None), Whereabouts::Here);
        if !rustix::process::geteuid().is_root() {
            println!("skipped: a network namespace needs root");
            return;
        }
        assert_eq!(in_namespaces(&["--net"]), Whereabouts::Elsewhere);
        assert_eq!(in_namespaces(&["--user", "--net"]), Whereabouts::Forwarded);
        assert_eq!(in_namespaces(&["--uts"]), Whereabouts::Here);
    }
}
