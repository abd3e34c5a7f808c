//! The format of `log.index`: which bytes of which stream arrived when. Written by the supervisor, read by
//! every command.
//!
//! A sequence of 16-byte records, little-endian: arrival time in nanoseconds since the Unix epoch (i64),
//! then the length of the stream's log after the arrival (u64), whose highest bit says which stream: 0 for
//! stdout, 1 for stderr. An incomplete record at the end was never written and is ignored. So is one of nothing but
//! zeros: a machine that goes down leaves them in place of what had not reached its disk.

use crate::event::Stream;

/// Bytes of one record.
pub const SIZE: usize = 16;

const STDERR: u64 = 1 << 63;

/// One arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Which stream.
    pub stream: Stream,
    /// Nanoseconds since the Unix epoch.
    pub time: i64,
    /// The length of the stream's log after it.
    pub end: u64,
}

impl Arrival {
    /// Whether it was never written: no arrival is of the year 1970.
    pub fn is_blank(self) -> bool {
        self.time == 0 && self.end == 0 && self.stream == Stream::Stdout
    }

    /// As written.
    pub fn encode(self) -> [u8; SIZE] {
        let mark = match self.stream {
            Stream::Stdout => 0,
            Stream::Stderr => STDERR,
        };
        let mut bytes = [0; SIZE];
        bytes[..8].copy_from_slice(&self.time.to_le_bytes());
        bytes[8..].copy_from_slice(&(self.end | mark).to_le_bytes());
        bytes
    }

    /// As read.
    pub fn decode(bytes: [u8; SIZE]) -> Self {
        let number = u128::from_le_bytes(bytes);
        // Both halves keep their bits; only their meaning changes.
        let time = i64::from_le_bytes(low(number).to_le_bytes());
        let word = low(number >> 64);
        Self {
            stream: if word & STDERR == 0 {
                Stream::Stdout
            } else {
                Stream::Stderr
            },
            time,
            end: word & !STDERR,
        }
    }
}

/// The lower 64 bits.
fn low(number: u128) -> u64 {
    u64::try_from(number & u128::from(u64::MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_as_it_was_written() {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let arrival = Arrival {
                stream,
                time: 1_700_000_000_123_456_789,
                end: 1 << 40,
            };
            assert_eq!(Arrival::decode(arrival.encode()), arrival);
        }
    }
}
