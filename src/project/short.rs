//! The short forms of `ports` and `volumes` (compose specification, 05-services).
//!
//! Text in, fields out; places and meaning are `canonical`'s business.

use std::net::IpAddr;

/// One mapping of a short `ports` entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) host_ip: String,
    /// A port, a range, or empty.
    pub(crate) published: String,
    pub(crate) target: u16,
    pub(crate) protocol: String,
}

/// What is wrong with a short form, and how it is written right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    pub(crate) message: String,
    pub(crate) hint: Option<&'static str>,
}

fn malformed(message: String) -> Malformed {
    Malformed {
        message,
        hint: None,
    }
}

/// `[[address:]host:]container[/protocol]`, both ports may be ranges.
pub(crate) fn port(text: &str) -> Result<Vec<Port>, Malformed> {
    let parts: Vec<&str> = text.split(':').collect();
    let (address, host, container) = match parts.as_slice() {
        [container] => (String::new(), "", *container),
        [host, container] => (String::new(), *host, *container),
        [address @ .., host, container] => (address.join(":"), *host, *container),
        [] => (String::new(), "", ""),
    };
    let (container, protocol) = match container.split_once('/') {
        Some((port, protocol)) => (port, protocol.split('/').next().unwrap_or_default()),
        None => (container, ""),
    };
    let protocol = if protocol.is_empty() {
        "tcp".to_owned()
    } else {
        protocol.to_lowercase()
    };
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(Malformed {
            message: format!("`{protocol}` is not a protocol"),
            hint: Some("the protocols are tcp, udp and sctp"),
        });
    }
    let host_ip = match address.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .ok_or_else(|| malformed(format!("`{address}` is not an IP address")))?
            .to_owned(),
        None => address,
    };
    if !host_ip.is_empty() && !is_address(&host_ip) {
        return Err(Malformed {
            message: format!("`{host_ip}` is not an IP address"),
            hint: Some("a port is published on an address, not on a host name"),
        });
    }
    if container.is_empty() {
        return Err(malformed(format!("`{text}` names no container port")));
    }
    let (first, last) = range(container)?;
    if host.is_empty() {
        return Ok(mappings(&host_ip, &protocol, first, last, |_| {
            String::new()
        }));
    }
    let (host_first, host_last) = range(host)?;
    if first == last && host_first != host_last {
        let published = format!("{host_first}-{host_last}");
        return Ok(mappings(&host_ip, &protocol, first, last, |_| {
            published.clone()
        }));
    }
    if last - first != host_last - host_first {
        return Err(Malformed {
            message: format!("`{host}` and `{container}` are ranges of different lengths"),
            hint: Some("give both ranges the same length, or one container port"),
        });
    }
    Ok(mappings(&host_ip, &protocol, first, last, |offset| {
        (host_first + offset).to_string()
    }))
}

fn mappings(
    host_ip: &str,
    protocol: &str,
    first: u16,
    last: u16,
    published: impl Fn(u16) -> String,
) -> Vec<Port> {
    let mut ports: Vec<Port> = (first..=last)
        .map(|target| Port {
            host_ip: host_ip.to_owned(),
            published: published(target - first),
            target,
            protocol: protocol.to_owned(),
        })
        .collect();
    // Compose orders the ports of one range as text.
    ports.sort_by_cached_key(|port| port.target.to_string());
    ports
}

fn is_address(text: &str) -> bool {
    let text = text.split('%').next().unwrap_or_default();
    text.parse::<IpAddr>().is_ok()
}

fn range(text: &str) -> Result<(u16, u16), Malformed> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    if last < first {
        return Err(malformed(format!("the range `{text}` runs backwards")));
    }
    Ok((first, last))
}

fn number(text: &str) -> Result<u16, Malformed> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let value = digits.then(|| text.parse().ok()).flatten();
    value.ok_or_else(|| Malformed {
        message: if digits {
            format!("{text} is not a port: ports end at 65535")
        } else {
            format!("`{text}` is not a port")
        },
        hint: None,
    })
}

/// A short `volumes` entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Volume {
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) read_only: bool,
    pub(crate) nocopy: bool,
    pub(crate) propagation: Option<String>,
    pub(crate) selinux: Option<String>,
    /// Nothing but a target of one or two characters: compose adds no options to it.
    pub(crate) bare: bool,
}

impl Volume {
    /// Whether the source is a path of the host.
    pub(crate) fn is_bind(&self) -> bool {
        is_path(&self.source)
    }
}

fn is_path(source: &str) -> bool {
    if source.starts_with(['.', '/', '~']) || source.starts_with("\\\\") {
        return true;
    }
    let mut chars = source.chars();
    matches!((chars.next(), chars.next()), (Some(drive), Some(':')) if drive.is_alphabetic())
}

/// `[source:]target[:options]`.
pub(crate) fn volume(text: &str) -> Result<Volume, Malformed> {
    let mut volume = Volume::default();
    if text.is_empty() {
        return Err(malformed("an empty text is not a mount".to_owned()));
    }
    if text.len() <= 2 {
        text.clone_into(&mut volume.target);
        volume.bare = true;
        return Ok(volume);
    }
    let sections = sections(text);
    let count = sections.len();
    for (index, section) in sections.into_iter().enumerate() {
        let last = index + 1 == count;
        if section.is_empty() {
            return Err(malformed(format!(
                "`{text}` has nothing between two colons"
            )));
        }
        match index {
            0 if last => volume.target = section,
            0 => volume.source = section,
            1 => volume.target = section,
            _ if !last => {
                return Err(malformed(format!("`{text}` has too many colons")));
            }
            _ => {
                for option in section.split(',') {
                    match option {
                        "ro" => volume.read_only = true,
                        "rw" => volume.read_only = false,
                        "nocopy" => volume.nocopy = true,
                        "z" | "Z" => volume.selinux = Some(option.to_owned()),
                        "shared" | "slave" | "private" | "rshared" | "rslave" | "rprivate" => {
                            volume.propagation = Some(option.to_owned());
                        }
                        // The engine knows more options; compose drops what it does not know.
                        _ => {}
                    }
                }
            }
        }
    }
    Ok(volume)
}

/// Splits at colons, but not after the letter of a Windows drive nor within `${…}`.
fn sections(text: &str) -> Vec<String> {
    let mut sections = vec![String::new()];
    let mut braces = 0usize;
    let mut before = '\0';
    for c in text.chars() {
        let section = sections.last_mut();
        let Some(section) = section else { break };
        if before == '$' && c == '{' {
            braces += 1;
        } else if braces > 0 && c == '}' {
            braces -= 1;
        }
        let mut chars = section.chars();
        let drive = matches!((chars.next(), chars.next()), (Some(d), None) if d.is_alphabetic());
        if c == ':' && braces == 0 && !drive {
            sections.push(String::new());
        } else {
            section.push(c);
        }
        before = c;
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<Vec<String>, String> {
        port(text)
            .map(|ports| {
                ports
                    .into_iter()
                    .map(|p| format!("{}|{}|{}|{}", p.host_ip, p.published, p.target, p.protocol))
                    .collect()
            })
            .map_err(|wrong| wrong.message)
    }

    #[test]
    fn ports_in_every_form() {
        for (text, expected) in [
            ("80", vec!["||80|tcp"]),
            ("8080:80/UDP", vec!["|8080|80|udp"]),
            ("127.0.0.1:8080:80", vec!["127.0.0.1|8080|80|tcp"]),
            ("127.0.0.1::80", vec!["127.0.0.1||80|tcp"]),
            ("[::1]:8080:80", vec!["::1|8080|80|tcp"]),
            ("::1:8080:80", vec!["::1|8080|80|tcp"]),
            ("9000-9001:80-81", vec!["|9000|80|tcp", "|9001|81|tcp"]),
            ("9000-9005:80", vec!["|9000-9005|80|tcp"]),
            ("9-10", vec!["||10|tcp", "||9|tcp"]),
        ] {
            let expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
            assert_eq!(shown(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn wrong_ports_say_why() {
        for (text, message) in [
            ("abc", "`abc` is not a port"),
            ("70000", "70000 is not a port: ports end at 65535"),
            ("80/http", "`http` is not a protocol"),
            ("localhost:80:80", "`localhost` is not an IP address"),
            ("80:", "`80:` names no container port"),
            ("1-2:5-9", "`1-2` and `5-9` are ranges of different lengths"),
            ("9-8", "the range `9-8` runs backwards"),
            ("+80", "`+80` is not a port"),
        ] {
            assert_eq!(shown(text), Err(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn volumes_in_every_form() {
        let read = |text: &str| {
            let v = volume(text).unwrap();
            (v.source.clone(), v.target.clone(), v.read_only, v.is_bind())
        };
        assert_eq!(read("/data"), (String::new(), "/data".into(), false, false));
        assert_eq!(
            read("db:/data:ro"),
            ("db".into(), "/data".into(), true, false)
        );
        assert_eq!(
            read("./x:/y:rw,z"),
            ("./x".into(), "/y".into(), false, true)
        );
        assert_eq!(read("c:\\x:/y"), ("c:\\x".into(), "/y".into(), false, true));
        assert!(volume("aa::bb").is_err());
        assert!(volume("aa:bb:ro:dd").is_err());
    }
}
