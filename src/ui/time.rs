//! Durations and ages in words.

use std::time::Duration;

/// A short duration: `12 ms`, `1.2 s`, `3 min 20 s`.
pub fn took(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis < 1_000 {
        format!("{millis} ms")
    } else if millis < 60_000 {
        format!("{}.{} s", millis / 1_000, millis % 1_000 / 100)
    } else {
        age(duration.as_secs())
    }
}

/// How long something has lived, two units at most: `5 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`.
pub fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let pair = |big: u64, unit: &str, small: u64, sub: &str| {
        if small == 0 {
            format!("{big} {unit}")
        } else {
            format!("{big} {unit} {small} {sub}")
        }
    };
    if days > 0 {
        pair(days, "d", hours % 24, "h")
    } else if hours > 0 {
        pair(hours, "h", minutes % 60, "min")
    } else if minutes > 0 {
        pair(minutes, "min", seconds % 60, "s")
    } else {
        format!("{seconds} s")
    }
}

/// An age in Docker's words, as `ps` prints it: `5 seconds`, `About a minute`, `2 hours`.
pub fn docker_age(seconds: u64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1_800) / 3_600);
    let days = hours / 24;
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours <= 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if days < 14 => format!("{days} days"),
        _ if days < 60 => format!("{} weeks", days / 7),
        _ if days < 730 => format!("{} months", days / 30),
        _ => format!("{} years", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_use_two_units_at_most() {
        assert_eq!(age(5), "5 s");
        assert_eq!(age(200), "3 min 20 s");
        assert_eq!(age(7_500), "2 h 5 min");
        assert_eq!(age(86_400), "1 d");
    }

    #[test]
    fn durations_grow_coarser() {
        assert_eq!(took(Duration::from_millis(12)), "12 ms");
        assert_eq!(took(Duration::from_millis(1_250)), "1.2 s");
        assert_eq!(took(Duration::from_secs(200)), "3 min 20 s");
    }

    #[test]
    fn docker_ages_read_like_the_engines() {
        assert_eq!(docker_age(3), "3 seconds");
        assert_eq!(docker_age(61), "About a minute");
        assert_eq!(docker_age(7_200), "2 hours");
    }
}
