//! The proxies of the Docker configuration (`config.json`, `proxies`), which every build gets as arguments.
//!
//! Only reads; arguments that the user gives win.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::connect;
use crate::project::Env;

#[derive(Default, Deserialize)]
struct ConfigFile {
    #[serde(default)]
    proxies: BTreeMap<String, BTreeMap<String, String>>,
}

/// The keys of the file and the variables that they become.
const NAMES: [(&str, &str); 5] = [
    ("httpProxy", "HTTP_PROXY"),
    ("httpsProxy", "HTTPS_PROXY"),
    ("noProxy", "NO_PROXY"),
    ("ftpProxy", "FTP_PROXY"),
    ("allProxy", "ALL_PROXY"),
];

/// The variables for an engine: those of its address, else the default ones, in both spellings.
pub(super) fn variables(env: &Env, endpoint: &str) -> BTreeMap<String, String> {
    let file: ConfigFile = connect::directory(env)
        .and_then(|directory| std::fs::read(directory.join("config.json")).ok())
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    let proxies = file.proxies.get(endpoint);
    let Some(proxies) = proxies.or_else(|| file.proxies.get("default")) else {
        return BTreeMap::new();
    };
    let given = NAMES.into_iter().filter_map(|(key, name)| {
        let value = proxies.get(key).filter(|value| !value.is_empty())?;
        Some((name, value))
    });
    given
        .flat_map(|(name, value)| {
            [
                (name.to_owned(), value.clone()),
                (name.to_ascii_lowercase(), value.clone()),
            ]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_has_its_own_proxies_or_the_default_ones() {
        let home = tempfile::tempdir().unwrap();
        let config = r#"{"proxies": {
            "default": {"httpProxy": "http://p:1", "noProxy": "localhost"},
            "tcp://far:1": {"httpsProxy": "http://q:2"}}}"#;
        std::fs::write(home.path().join("config.json"), config).unwrap();
        let directory = home.path().display().to_string();
        let env = Env {
            variables: [("DOCKER_CONFIG".to_owned(), directory)].into(),
            current_dir: "/".into(),
        };
        let names = |endpoint: &str| -> Vec<String> {
            let variables = variables(&env, endpoint).into_iter();
            variables
                .map(|(name, value)| format!("{name}={value}"))
                .collect()
        };
        assert_eq!(
            names("unix:///x"),
            [
                "HTTP_PROXY=http://p:1",
                "NO_PROXY=localhost",
                "http_proxy=http://p:1",
                "no_proxy=localhost"
            ]
        );
        assert_eq!(
            names("tcp://far:1"),
            ["HTTPS_PROXY=http://q:2", "https_proxy=http://q:2"]
        );
        assert!(variables(&Env::default(), "unix:///x").is_empty());
    }
}
