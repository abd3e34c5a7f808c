//! Platforms as `platform:` and images have them: `os/architecture/variant`, with the other names that
//! architectures go by. Pure.

/// Whether an image of one platform is what another asks for. What is not known fits.
pub fn fits(asked: &str, image: &str) -> bool {
    let (asked, image) = (parts(asked), parts(image));
    if asked.1.is_empty() || image.1.is_empty() {
        return true;
    }
    (asked.0.is_empty() || image.0.is_empty() || asked.0 == image.0)
        && (&asked.1, &asked.2) == (&image.1, &image.2)
}

/// Operating system, architecture and variant by their usual names. A single word is an architecture.
fn parts(platform: &str) -> (String, String, String) {
    let platform = platform.to_ascii_lowercase();
    let mut words = platform.split('/');
    let first = words.next().unwrap_or_default();
    let (os, architecture) = match words.next() {
        Some(architecture) => (first, architecture),
        None => ("", first),
    };
    let variant = words.next().unwrap_or_default();
    let (architecture, variant) = match (architecture, variant) {
        ("x86_64" | "x86-64" | "amd64", "v1" | "") => ("amd64", ""),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("i386" | "i486" | "i586" | "i686" | "386", _) => ("386", ""),
        ("aarch64" | "arm64", "8" | "v8" | "") => ("arm64", ""),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf" | "arm", "7" | "v7" | "") => ("arm", "v7"),
        ("armel", "" | "6" | "v6") | ("arm", "6") => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    };
    let os = match os {
        "macos" => "darwin",
        os => os,
    };
    (os.to_owned(), architecture.to_owned(), variant.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_go_by_several_names() {
        for (asked, image) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("arm64", "linux/arm64/v8"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm64", "/"),
        ] {
            assert!(fits(asked, image), "{asked} {image}");
        }
        for (asked, image) in [
            ("linux/arm64", "linux/amd64"),
            ("linux/arm/v6", "linux/arm/v7"),
            ("windows/amd64", "linux/amd64"),
        ] {
            assert!(!fits(asked, image), "{asked} {image}");
        }
    }
}
