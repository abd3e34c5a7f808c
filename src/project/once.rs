//! What the command line of `run` says about a service, in the short forms of a compose file: ports,
//! mounts, files of variables.

use std::collections::BTreeMap;
use std::path::Path;

use super::model::{Mount, MountKind, Port};
use super::{dotenv, short};
use crate::port::claim::Protocol;

/// `--publish`: one mapping, or several for a range.
///
/// # Errors
/// What is wrong with it.
pub fn ports(text: &str) -> Result<Vec<Port>, String> {
    let found = short::port(text).map_err(|wrong| wrong.message)?;
    found.iter().map(port).collect()
}

fn port(short: &short::Port) -> Result<Port, String> {
    let number = |text: &str| {
        text.parse::<u16>()
            .map_err(|_| format!("`{text}` is not a port"))
    };
    let published = match short.published.split_once('-') {
        Some((first, last)) => Some((number(first)?, number(last)?)),
        None if short.published.is_empty() => None,
        None => {
            let port = number(&short.published)?;
            // Port 0 asks the engine to choose.
            (port != 0).then_some((port, port))
        }
    };
    let host_ip = if short.host_ip.is_empty() {
        None
    } else {
        let ip = short.host_ip.parse();
        Some(ip.map_err(|_| format!("`{}` is not an IP address", short.host_ip))?)
    };
    let protocol = match short.protocol.as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        other => {
            return Err(format!(
                "`{other}` cannot be published here: tcp and udp can"
            ));
        }
    };
    Ok(Port {
        target: short.target,
        published,
        host_ip,
        protocol,
        app_protocol: None,
        mode: None,
        name: None,
    })
}

/// `--volume`: paths start from `directory`, `~` is `home`.
///
/// # Errors
/// What is wrong with it.
pub fn mount(text: &str, directory: &Path, home: Option<&str>) -> Result<Mount, String> {
    let short = short::volume(text).map_err(|wrong| wrong.message)?;
    let kind = if short.is_bind() {
        let in_home = short.source.strip_prefix('~').zip(home);
        let source = match in_home {
            Some((rest, home)) => Path::new(home).join(rest.trim_start_matches('/')),
            None => directory.join(&short.source),
        };
        MountKind::Bind {
            source: super::canonical::clean(&source.to_string_lossy()).into(),
            create_host_path: true,
            propagation: short.propagation,
            selinux: short.selinux,
            recursive: None,
        }
    } else {
        MountKind::Volume {
            source: (!short.source.is_empty()).then_some(short.source),
            nocopy: short.nocopy,
            subpath: None,
            labels: BTreeMap::new(),
        }
    };
    Ok(Mount {
        kind,
        target: super::canonical::clean(&short.target),
        read_only: short.read_only,
        consistency: None,
    })
}

/// `--env-from-file`: the variables that a text sets.
///
/// # Errors
/// What is wrong with it.
pub fn variables(
    text: &str,
    set: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, String> {
    dotenv::parse(text, &|name| set.get(name).cloned())
        .map(|found| found.values)
        .map_err(|mistake| mistake.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_settled_or_left_to_the_engine() {
        let shown = |text| {
            ports(text).map(|ports| {
                ports
                    .iter()
                    .map(|port| (port.published, port.target))
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(shown("8080:80"), Ok(vec![(Some((8080, 8080)), 80)]));
        assert_eq!(shown("80"), Ok(vec![(None, 80)]));
        assert_eq!(shown("0:80"), Ok(vec![(None, 80)]));
        assert_eq!(shown("9000-9002:80"), Ok(vec![(Some((9000, 9002)), 80)]));
        assert!(shown("80/sctp").is_err());
        assert!(shown("x:80").is_err());
    }

    #[test]
    fn mounts_start_from_the_current_directory() {
        let source = |text| {
            let mount = mount(text, Path::new("/here"), Some("/home/me")).unwrap();
            match mount.kind {
                MountKind::Bind { source, .. } => source.display().to_string(),
                MountKind::Volume { source, .. } => format!("volume {source:?}"),
                MountKind::Image { source, .. } => format!("image {source}"),
                MountKind::Tmpfs { .. } => "tmpfs".to_owned(),
            }
        };
        assert_eq!(source("./a:/b"), "/here/a");
        assert_eq!(source("../a/:/b"), "/a");
        assert_eq!(source("~/a:/b"), "/home/me/a");
        assert_eq!(source("data:/b"), "volume Some(\"data\")");
        assert_eq!(source("/b"), "volume None");
    }
}
