//! Names of images, as registries and the Docker tools read them (distribution reference grammar).
//!
//! Pure text: who is asked about an image, and what its whole name is. Asks nobody.

use std::fmt;

/// The registry of names that name none.
pub const HUB: &str = "docker.io";

/// The tag of names that have none.
const LATEST: &str = "latest";

/// An image's name with everything that is implied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The registry, e.g. `docker.io`, `localhost:5000`.
    pub registry: String,
    /// The repository in it, e.g. `library/busybox`.
    pub repository: String,
    /// The tag, where one is written.
    pub tag: Option<String>,
    /// `sha256:…`, where one is written.
    pub digest: Option<String>,
}

/// Why a text is not the name of an image, in the words of the Docker tools.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It does not follow the grammar.
    #[error("invalid reference format")]
    Format,
    /// A repository is written in lower case.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Case(String),
    /// It looks like the id of an image.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    Id(String),
}

impl Reference {
    /// Reads a name as it is written in a compose file.
    ///
    /// # Errors
    /// The text is not the name of an image.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(ReferenceError::Id(text.to_owned()));
        }
        let (registry, rest) = match text.split_once('/') {
            Some((first, rest)) if is_host(first) => (first, rest),
            _ => (HUB, text),
        };
        let registry = if registry == "index.docker.io" {
            HUB
        } else {
            registry
        };
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (rest, None),
        };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        let repository = if registry == HUB && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        if repository.chars().any(char::is_uppercase) {
            return Err(ReferenceError::Case(repository));
        }
        let well_formed = repository.len() <= 255
            && repository.split('/').all(is_component)
            && tag.is_none_or(is_tag)
            && digest.is_none_or(is_digest);
        if !well_formed {
            return Err(ReferenceError::Format);
        }
        Ok(Self {
            registry: registry.to_owned(),
            repository,
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }

    /// The name that the Docker tools pin: a digest makes the tag needless; without both, `latest`.
    #[must_use]
    pub fn settled(mut self) -> Self {
        if self.digest.is_some() {
            self.tag = None;
        } else if self.tag.is_none() {
            self.tag = Some(LATEST.to_owned());
        }
        self
    }

    /// The registry and the repository, without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Whether the first part of a name is a registry.
fn is_host(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.chars().any(char::is_uppercase)
}

/// Words of lower-case letters and digits, between them `.`, `_`, `__` or dashes.
fn is_component(part: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let separators = part.as_bytes().split(|byte| is_word(*byte));
    let separators_fit = separators
        .filter(|separator| !separator.is_empty())
        .all(|separator| {
            matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-')
        });
    separators_fit
        && part.bytes().next().is_some_and(is_word)
        && part.bytes().last().is_some_and(is_word)
}

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(is_word)
        && tag
            .bytes()
            .all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

fn is_digest(digest: &str) -> bool {
    let Some((algorithm, hex)) = digest.split_once(':') else {
        return false;
    };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    hex.len() == length
        && hex
            .bytes()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(text: &str) -> String {
        Reference::parse(text).unwrap().settled().to_string()
    }

    #[test]
    fn what_is_implied_is_filled_in() {
        let digest = format!("sha256:{}", "1".repeat(64));
        for (text, whole) in [
            ("busybox", "docker.io/library/busybox:latest".to_owned()),
            ("a/b_c--d:1", "docker.io/a/b_c--d:1".to_owned()),
            ("index.docker.io/a", "docker.io/library/a:latest".to_owned()),
            ("localhost:5000/a", "localhost:5000/a:latest".to_owned()),
            ("localhost/a:V.2-x", "localhost/a:V.2-x".to_owned()),
            (
                &format!("a:2@{digest}"),
                format!("docker.io/library/a@{digest}"),
            ),
            (
                &format!("r.example/a/b@{digest}"),
                format!("r.example/a/b@{digest}"),
            ),
        ] {
            assert_eq!(settled(text), whole, "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            "a/",
            "/a",
            "a:",
            "a:-x",
            "a..b",
            "a___b",
            "-a",
            "a b",
            "${x}",
            "a@sha256:1",
            "a@sha256:1@sha256:1",
        ] {
            let error = Reference::parse(text).unwrap_err();
            assert_eq!(error, ReferenceError::Format, "{text}");
        }
        let error = Reference::parse("a/Web").unwrap_err();
        assert_eq!(error, ReferenceError::Case("a/Web".to_owned()));
        let id = "0".repeat(64);
        assert_eq!(Reference::parse(&id), Err(ReferenceError::Id(id)));
    }
}
