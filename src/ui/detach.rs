//! The keys that leave a program to itself: found in what is typed, and never sent on.

/// The keys where nobody chose others: ctrl-p, ctrl-q.
const USUAL: [u8; 2] = [0x10, 0x11];

/// A sequence of keys, and how much of it was typed.
#[derive(Clone, Debug)]
pub struct DetachKeys {
    keys: Vec<u8>,
    seen: usize,
}

impl DetachKeys {
    /// Reads the words of the Docker CLI: single characters and `ctrl-X`, separated by commas; `None`:
    /// the usual ones.
    ///
    /// # Errors
    /// The word that names no key.
    pub fn parse(text: Option<&str>) -> Result<Self, String> {
        let keys = match text.filter(|text| !text.is_empty()) {
            None => USUAL.to_vec(),
            Some(text) => text
                .split(',')
                .map(|word| key(word).ok_or_else(|| word.to_owned()))
                .collect::<Result<_, _>>()?,
        };
        Ok(Self { keys, seen: 0 })
    }

    /// What of the typed bytes goes on to the program, and whether the sequence was completed. Bytes that
    /// may yet become the sequence wait for the next call.
    pub fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut onward = Vec::with_capacity(typed.len() + self.seen);
        for byte in typed {
            while self.seen > 0 && self.keys.get(self.seen) != Some(byte) {
                // What was held back is ordinary input, but its tail may be the sequence's beginning.
                let held = self.keys.get(..self.seen).unwrap_or_default();
                let shorter = (0..self.seen)
                    .rev()
                    .find(|length| held.ends_with(self.keys.get(..*length).unwrap_or_default()))
                    .unwrap_or(0);
                onward.extend_from_slice(held.get(..self.seen - shorter).unwrap_or_default());
                self.seen = shorter;
            }
            if self.keys.get(self.seen) == Some(byte) {
                self.seen += 1;
                if self.seen == self.keys.len() {
                    return (onward, true);
                }
            } else {
                onward.push(*byte);
            }
        }
        (onward, false)
    }

    /// What was held back when the input ended.
    pub fn rest(&self) -> &[u8] {
        self.keys.get(..self.seen).unwrap_or_default()
    }
}

/// The byte that a key sends.
fn key(word: &str) -> Option<u8> {
    if word == "DEL" {
        return Some(0x7f);
    }
    let control = word.strip_prefix("ctrl-").unwrap_or_default();
    match (control.as_bytes(), word.as_bytes()) {
        ([letter @ b'a'..=b'z'], _) => Some(letter - b'a' + 1),
        ([sign @ (b'@' | b'['..=b'_')], _) => Some(sign - b'@'),
        (_, [byte]) => Some(*byte),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_as_the_docker_cli_names_them() {
        let bytes = |text| DetachKeys::parse(Some(text)).map(|keys| keys.keys);
        assert_eq!(bytes("ctrl-a,x"), Ok(vec![1, b'x']));
        assert_eq!(
            bytes("ctrl-@,ctrl-[,ctrl-\\,ctrl-_"),
            Ok(vec![0, 27, 28, 31])
        );
        assert_eq!(bytes("DEL"), Ok(vec![127]));
        assert_eq!(bytes("ctrl-A"), Err("ctrl-A".to_owned()));
        assert_eq!(bytes("a,,b"), Err(String::new()));
        assert_eq!(DetachKeys::parse(None).unwrap().keys, USUAL);
    }

    #[test]
    fn the_sequence_is_found_across_reads_and_kept_from_the_program() {
        let mut keys = DetachKeys::parse(None).unwrap();
        assert_eq!(keys.filter(b"ls\x10"), (b"ls".to_vec(), false));
        assert_eq!(keys.rest(), b"\x10");
        assert_eq!(keys.filter(b"\x11more"), (Vec::new(), true));
    }

    #[test]
    fn what_only_begins_like_it_goes_on() {
        let mut keys = DetachKeys::parse(None).unwrap();
        assert_eq!(keys.filter(b"\x10a"), (b"\x10a".to_vec(), false));
        assert_eq!(keys.filter(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(keys.filter(b"\x11"), (Vec::new(), true));
        let mut keys = DetachKeys::parse(Some("a,a,b")).unwrap();
        assert_eq!(keys.filter(b"aaab"), (b"a".to_vec(), true));
    }
}
