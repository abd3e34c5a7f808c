//! Amounts of bytes in Docker's words.

/// In units of 1000 with three significant digits, as for images and traffic: `1.99MB`, `0B`.
pub fn decimal(bytes: u64) -> String {
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"], 3)
}

/// In units of 1024 with four significant digits, as for memory: `504KiB`, `23.54GiB`.
pub fn binary(bytes: u64) -> String {
    scaled(
        bytes,
        1024.0,
        &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"],
        4,
    )
}

#[expect(
    clippy::cast_precision_loss,
    reason = "three or four digits of it are shown"
)]
fn scaled(bytes: u64, base: f64, units: &[&str], digits: usize) -> String {
    let mut size = bytes as f64;
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    while size >= base {
        let Some(next) = units.next() else { break };
        size /= base;
        unit = next;
    }
    let whole = format!("{size:.0}").len();
    let mut text = format!("{size:.*}", digits.saturating_sub(whole));
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    text + unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_like_dockers() {
        assert_eq!(decimal(0), "0B");
        assert_eq!(decimal(1_985_472), "1.99MB");
        assert_eq!(decimal(1_230), "1.23kB");
        assert_eq!(decimal(12_300_000), "12.3MB");
        assert_eq!(binary(504 * 1024), "504KiB");
        assert_eq!(binary(25_275_000_000), "23.54GiB");
        assert_eq!(binary(1_000), "1000B");
    }
}
