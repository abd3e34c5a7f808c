//! What the name of a variable says about its value.

/// Whether a variable says by what names a service is called, or whose requests it answers: `HOSTNAME`,
/// `VIRTUAL_HOST`, `SERVER_NAME`, `ALLOWED_HOSTS`, `CORS_ORIGINS`, `KAFKA_ADVERTISED_LISTENERS`. Others know it by
/// those, so they stay as they are.
pub(super) fn says_who_i_am(variable: &str) -> bool {
    const BEGINS: [&str; 7] = [
        "ALLOW",
        "TRUST",
        "PERMIT",
        "DENY",
        "VIRTUAL",
        "CORS",
        "ADVERTISE",
    ];
    let upper = variable.to_ascii_uppercase();
    let mut words = upper.split(['_', '.', '-']);
    upper == "HOSTNAME"
        || words.any(|word| BEGINS.iter().any(|begin| word.starts_with(begin)))
        || ["SERVER_NAME", "SERVER_NAMES", "ORIGIN", "ORIGINS"]
            .iter()
            .any(|end| is_last_word(&upper, end))
}

/// `DB_HOST`, `PGHOST`, `REDIS_HOSTNAME`, `MYSQL_SERVER` …
pub(super) fn is_host_variable(variable: &str) -> bool {
    let ends = ["HOST", "HOSTNAME", "SERVER", "ADDR", "ADDRESS", "ENDPOINT"];
    let upper = variable.to_ascii_uppercase();
    upper.ends_with("HOST") || ends.iter().any(|end| is_last_word(&upper, end))
}

/// `DB_HOSTS`, `MEMCACHED_SERVERS` … but not those that say whose requests are answered (`ACCEPTED_HOSTS`).
pub(super) fn is_hosts_variable(variable: &str) -> bool {
    let ends = [
        "HOSTS",
        "HOSTNAMES",
        "SERVERS",
        "ENDPOINTS",
        "BROKERS",
        "NODES",
    ];
    let guards = ["ACCEPT", "ORIGIN"];
    let upper = variable.to_ascii_uppercase();
    ends.iter().any(|end| is_last_word(&upper, end))
        && !guards.iter().any(|guard| upper.contains(guard))
}

/// `IMAGE`, `REDIS_VERSION`, `IMAGE_TAG2` …: what stands after a colon there may be anything.
pub(super) fn is_version_variable(variable: &str) -> bool {
    let upper = variable.to_ascii_uppercase();
    let mut words = upper.split(['_', '.', '-']);
    words.any(|word| {
        let word = word.trim_end_matches(|c: char| c.is_ascii_digit());
        let word = word.strip_suffix('S').unwrap_or(word);
        ["IMAGE", "TAG", "VERSION"].contains(&word)
    })
}

fn is_last_word(variable: &str, word: &str) -> bool {
    let rest = variable.strip_suffix(word);
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with(['_', '.', '-']))
}
