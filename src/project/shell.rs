//! Paths as words of a shell, for hints that can be pasted. Pure.

use std::borrow::Cow;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// A path as a shell takes it, whatever bytes it has.
pub fn word(path: &Path) -> Cow<'_, str> {
    match path.to_str() {
        Some(text) if !text.chars().any(char::is_control) => shell_words::quote(text),
        _ => escaped(path.as_os_str().as_bytes()).into(),
    }
}

/// In the quotes that know escapes (`$'…'`): three octal digits are one byte.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::from("$'");
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\'' | '\\' => text.extend(['\\', letter]),
                '\n' => text.push_str("\\n"),
                letter if letter.is_control() => {
                    let mut buffer = [0; 4];
                    let bytes = letter.encode_utf8(&mut buffer).bytes();
                    text.extend(bytes.map(|byte| format!("\\{byte:03o}")));
                }
                letter => text.push(letter),
            }
        }
        let invalid = chunk.invalid().iter();
        text.extend(invalid.map(|byte| format!("\\{byte:03o}")));
    }
    text.push('\'');
    text
}

/// A path whose name is not UTF-8: the part of it that is not, and what that could be called instead.
pub(crate) fn renamed(path: &Path) -> Option<(&Path, std::path::PathBuf)> {
    let mut above: Vec<&Path> = path.ancestors().collect();
    above.reverse();
    let wrong = above.into_iter().find(|part| part.to_str().is_none())?;
    // Most such names are Latin-1, whose letters have the same numbers in Unicode.
    let latin = |byte: &u8| match *byte {
        0x80..0xa0 => '_',
        byte => char::from(byte),
    };
    let name = wrong.file_name().unwrap_or_default().as_bytes();
    let name: String = name.iter().map(latin).collect();
    Some((wrong, wrong.with_file_name(name)))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    fn path(bytes: &[u8]) -> &Path {
        Path::new(OsStr::from_bytes(bytes))
    }

    #[test]
    fn any_path_is_one_word() {
        for (bytes, expected) in [
            (&b"/srv/app"[..], "/srv/app"),
            (b"/srv/my app", "'/srv/my app'"),
            (b"/srv/$HOME", "'/srv/$HOME'"),
            (b"/srv/it's", "'/srv/it'\\''s'"),
            (b"/srv/a\nb", "$'/srv/a\\nb'"),
            (b"/srv/a\x1b[1m'\\", "$'/srv/a\\033[1m\\'\\\\'"),
            (b"/srv/caf\xe9", "$'/srv/caf\\351'"),
            ("/srv/café".as_bytes(), "/srv/café"),
        ] {
            let expected = match expected {
                "/srv/café" => shell_words::quote(expected),
                _ => expected.into(),
            };
            assert_eq!(word(path(bytes)), expected);
        }
    }

    #[test]
    fn another_name_is_that_of_latin_1() {
        let (wrong, better) = renamed(path(b"/srv/caf\xe9/x\x80/y")).unwrap();
        assert_eq!(wrong, path(b"/srv/caf\xe9"));
        assert_eq!(better, Path::new("/srv/café"));
        assert_eq!(renamed(Path::new("/srv/café")), None);
    }
}
