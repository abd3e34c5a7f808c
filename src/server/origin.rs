//! Which web pages may connect (RFC 6455 §10.2, RFC 6454).
//!
//! A browser lets any page open a WebSocket to any address, loopback included, and only tells the server
//! where the page came from. Clients that are no browsers send no `Origin` and are not judged here.

use std::net::IpAddr;

use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri};

use super::ServerError;

/// The origins that may connect.
pub(super) struct Origins {
    any: bool,
    null: bool,
    listed: Vec<Origin>,
    /// The names under which this machine is addressed, lower case.
    own_names: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl Origin {
    /// RFC 6454 §6.1: scheme, host and port, nothing else.
    fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let authority = uri.authority()?;
        let bare = uri.query().is_none() && matches!(uri.path(), "" | "/");
        if !bare || text.ends_with('/') || authority.as_str().contains('@') {
            return None;
        }
        let usual = match scheme.as_str() {
            "http" | "ws" => Some(80),
            "https" | "wss" => Some(443),
            _ => None,
        };
        Some(Self {
            host: host(authority),
            port: authority.port_u16().or(usual),
            scheme,
        })
    }

    fn is_web(&self) -> bool {
        matches!(self.scheme.as_str(), "http" | "https")
    }
}

/// Lower case, without the brackets of IPv6 and the dot of a full name.
fn host(authority: &Authority) -> String {
    authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches([']', '.'])
        .to_ascii_lowercase()
}

/// RFC 6761 §6.3 for the name.
fn is_loopback(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

impl Origins {
    /// # Errors
    /// An entry that is no origin.
    pub(super) fn new(allowed: &[String]) -> Result<Self, ServerError> {
        let mut origins = Self {
            any: false,
            null: false,
            listed: Vec::new(),
            own_names: own_names(),
        };
        for entry in allowed {
            match entry.as_str() {
                "*" => origins.any = true,
                "null" => origins.null = true,
                text => {
                    let origin = Origin::parse(text).ok_or_else(|| ServerError::Origin {
                        entry: text.to_owned(),
                    })?;
                    origins.listed.push(origin);
                }
            }
        }
        Ok(origins)
    }

    /// Whether the request may become a WebSocket.
    pub(super) fn admit(&self, headers: &HeaderMap) -> bool {
        let mut given = headers.get_all(ORIGIN).iter();
        let (origin, None) = (given.next(), given.next()) else {
            return false;
        };
        let Some(origin) = origin else {
            return true;
        };
        if self.any {
            return true;
        }
        let Ok(text) = origin.to_str() else {
            return false;
        };
        // Sandboxed frames and local files; any page can make itself one of them.
        if text == "null" {
            return self.null;
        }
        let Some(origin) = Origin::parse(text) else {
            return false;
        };
        self.listed.contains(&origin)
            || (origin.is_web() && (is_loopback(&origin.host) || self.is_here(&origin, headers)))
    }

    /// Whether the page came from the host that it connects to. A name counts only if it is this
    /// machine's: whoever owns another name can point it at this address (DNS rebinding), and then page
    /// and `Host` agree.
    fn is_here(&self, origin: &Origin, headers: &HeaderMap) -> bool {
        let target = headers
            .get(HOST)
            .and_then(|value| Authority::try_from(value.as_bytes()).ok());
        target.is_some_and(|target| {
            let target = host(&target);
            target == origin.host
                && (target.parse::<IpAddr>().is_ok() || self.own_names.contains(&target))
        })
    }
}

fn own_names() -> Vec<String> {
    let Some(name) = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .map(|name| name.to_ascii_lowercase())
        .filter(|name| !name.is_empty())
    else {
        return Vec::new();
    };
    // RFC 6762 §3: the name under which mDNS announces it.
    vec![format!("{name}.local"), name]
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn admits(allowed: &[&str], origin: &str, target: &str) -> bool {
        let allowed: Vec<String> = allowed.iter().map(|entry| (*entry).to_owned()).collect();
        let mut origins = Origins::new(&allowed).unwrap();
        origins.own_names = vec!["devbox".to_owned()];
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
        headers.insert(HOST, HeaderValue::from_str(target).unwrap());
        origins.admit(&headers)
    }

    #[test]
    fn pages_of_this_machine_may_connect() {
        for origin in [
            "http://localhost:3000",
            "http://LOCALHOST",
            "https://app.localhost",
            "http://127.0.0.1:5173",
            "http://127.8.9.10",
            "http://[::1]:3000",
        ] {
            assert!(admits(&[], origin, "127.0.0.1:8003"), "{origin}");
        }
        assert!(admits(&[], "http://192.168.1.5:3000", "192.168.1.5:8003"));
        assert!(admits(&[], "http://devbox:3000", "DevBox:8003"));
    }

    #[test]
    fn other_pages_may_not() {
        for origin in [
            "https://evil.example",
            "http://localhost.evil.example",
            "http://evillocalhost",
            "http://127.0.0.1.evil.example",
            "http://localhost@evil.example",
            "http://localhost/path",
            "chrome-extension://localhost",
            "null",
            "nonsense",
            "",
        ] {
            assert!(!admits(&[], origin, "127.0.0.1:8003"), "{origin}");
        }
        assert!(!admits(&[], "http://192.168.1.6", "192.168.1.5:8003"));
    }

    #[test]
    fn a_foreign_name_that_points_here_is_refused() {
        assert!(!admits(
            &[],
            "http://rebound.example:8003",
            "rebound.example:8003"
        ));
    }

    #[test]
    fn the_list_is_exact() {
        let allowed = ["https://app.example", "null"];
        assert!(admits(&allowed, "https://app.example", "x:1"));
        assert!(admits(&allowed, "https://App.Example:443", "x:1"));
        assert!(admits(&allowed, "null", "x:1"));
        assert!(!admits(&allowed, "http://app.example", "x:1"));
        assert!(!admits(&allowed, "https://app.example:8443", "x:1"));
        assert!(admits(&["*"], "https://anything.example", "x:1"));
    }

    #[test]
    fn an_entry_must_be_an_origin() {
        for entry in ["app.example", "https://app.example/", "", "http://a/b"] {
            let refused = Origins::new(&[entry.to_owned()]);
            assert!(
                matches!(refused, Err(ServerError::Origin { .. })),
                "{entry}"
            );
        }
    }

    #[test]
    fn no_origin_is_no_browser_and_two_are_none() {
        let origins = Origins::new(&[]).unwrap();
        let mut headers = HeaderMap::new();
        assert!(origins.admit(&headers));
        headers.append(ORIGIN, HeaderValue::from_static("http://localhost"));
        assert!(origins.admit(&headers));
        headers.append(ORIGIN, HeaderValue::from_static("http://localhost"));
        assert!(!origins.admit(&headers));
    }
}
