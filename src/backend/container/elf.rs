//! What a program needs to be loaded, out of its own headers (ELF-64, little endian: gABI 4.1, chapters
//! 4 and 5): the path of its interpreter, and the name by which others ask for a library.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// `PT_LOAD`, `PT_DYNAMIC`, `PT_INTERP`.
const LOAD: u32 = 1;
const DYNAMIC: u32 = 2;
const INTERPRETER: u32 = 3;

/// `DT_NULL`, `DT_STRTAB`, `DT_SONAME`.
const END: u64 = 0;
const STRINGS: u64 = 5;
const SONAME: u64 = 14;

/// The size of one program header, and of one entry of the dynamic section.
const PROGRAM_HEADER: usize = 56;
const ENTRY: usize = 16;

/// No real table is larger, and no path longer.
const LARGEST_TABLE: u64 = 1 << 20;
const LONGEST_NAME: usize = 4096;

/// A part of the file, as a program header describes it.
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    size: u64,
}

/// The program that loads this one and its libraries; `None` for a program that needs none.
///
/// # Errors
/// The file cannot be read, or is not of this form.
pub(super) fn interpreter(file: &File) -> io::Result<Option<String>> {
    let segments = segments(file)?;
    let Some(segment) = segments.iter().find(|part| part.kind == INTERPRETER) else {
        return Ok(None);
    };
    name_at(file, segment.offset).map(Some)
}

/// The name by which programs ask for this library, where it has one.
///
/// # Errors
/// As [`interpreter`].
pub(super) fn soname(file: &File) -> io::Result<Option<String>> {
    let segments = segments(file)?;
    let Some(dynamic) = segments.iter().find(|part| part.kind == DYNAMIC) else {
        return Ok(None);
    };
    let table = read(file, dynamic.offset, dynamic.size)?;
    let entries = table
        .chunks_exact(ENTRY)
        .map(|entry| (u64_at(entry, 0), u64_at(entry, 8)))
        .take_while(|(tag, _)| *tag != END);
    let (mut strings, mut name) = (None, None);
    for (tag, value) in entries {
        match tag {
            STRINGS => strings = Some(value),
            SONAME => name = Some(value),
            _ => {}
        }
    }
    let (Some(strings), Some(name)) = (strings, name) else {
        return Ok(None);
    };
    // The table of strings is told by its address in memory.
    let holds = |part: &&Segment| {
        part.kind == LOAD && part.address <= strings && strings - part.address < part.size
    };
    let part = segments.iter().find(holds).ok_or_else(malformed)?;
    let offset = (strings - part.address)
        .checked_add(part.offset)
        .and_then(|offset| offset.checked_add(name))
        .ok_or_else(malformed)?;
    name_at(file, offset).map(Some)
}

fn segments(file: &File) -> io::Result<Vec<Segment>> {
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0)?;
    // Magic, 64 bits, little endian.
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return Err(malformed());
    }
    let (offset, size) = (u64_at(&header, 32), u16_at(&header, 54));
    let count = u16_at(&header, 56);
    if usize::from(size) != PROGRAM_HEADER {
        return Err(malformed());
    }
    let table = read(file, offset, u64::from(size) * u64::from(count))?;
    let segments = table.chunks_exact(PROGRAM_HEADER).map(|part| Segment {
        kind: u32_at(part, 0),
        offset: u64_at(part, 8),
        address: u64_at(part, 16),
        size: u64_at(part, 32),
    });
    Ok(segments.collect())
}

fn read(file: &File, offset: u64, size: u64) -> io::Result<Vec<u8>> {
    let length = usize::try_from(size.min(LARGEST_TABLE)).unwrap_or(LONGEST_NAME);
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// The text that begins here and ends with a zero.
fn name_at(file: &File, offset: u64) -> io::Result<String> {
    let mut bytes = vec![0; LONGEST_NAME];
    let mut filled = 0;
    while let Some(free) = bytes.get_mut(filled..).filter(|free| !free.is_empty()) {
        match file.read_at(free, offset.saturating_add(filled as u64))? {
            0 => break,
            count => filled += count,
        }
    }
    bytes.truncate(filled);
    let end = bytes.iter().position(|byte| *byte == 0);
    bytes.truncate(end.ok_or_else(malformed)?);
    String::from_utf8(bytes).map_err(|_| malformed())
}

fn malformed() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "not a program or library of a 64-bit little-endian Linux",
    )
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes
        .get(at..at + N)
        .and_then(|part| part.try_into().ok())
        .unwrap_or([0; N])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(number(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(number(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(number(bytes, at))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::FileExt as _;

    use super::*;

    /// A library with a name, or a program with an interpreter.
    fn made(kind: u32) -> File {
        let mut bytes = vec![0; 0x400];
        let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
        put(0, b"\x7fELF\x02\x01\x01");
        put(32, &64_u64.to_le_bytes());
        put(54, &56_u16.to_le_bytes());
        put(56, &2_u16.to_le_bytes());
        let headers = [
            (LOAD, 0_u64, 0x10_000_u64, 0x400_u64),
            (kind, 0x200, 0, 0x40),
        ];
        for (index, (kind, offset, address, size)) in headers.into_iter().enumerate() {
            let at = 64 + index * PROGRAM_HEADER;
            put(at, &kind.to_le_bytes());
            put(at + 8, &offset.to_le_bytes());
            put(at + 16, &address.to_le_bytes());
            put(at + 32, &size.to_le_bytes());
        }
        if kind == DYNAMIC {
            let entries = [(SONAME, 4_u64), (STRINGS, 0x10_300), (END, 0), (SONAME, 9)];
            for (index, (tag, value)) in entries.into_iter().enumerate() {
                put(0x200 + index * ENTRY, &tag.to_le_bytes());
                put(0x208 + index * ENTRY, &value.to_le_bytes());
            }
            put(0x300, b"\0abclibx.so.1\0");
        } else {
            put(0x200, b"/lib/ld.so.1\0");
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file
    }

    #[test]
    fn names_are_read_where_the_headers_say() {
        let library = made(DYNAMIC);
        assert_eq!(soname(&library).unwrap().as_deref(), Some("libx.so.1"));
        assert_eq!(interpreter(&library).unwrap(), None);
        let program = made(INTERPRETER);
        let found = interpreter(&program).unwrap();
        assert_eq!(found.as_deref(), Some("/lib/ld.so.1"));
        assert_eq!(soname(&program).unwrap(), None);
    }

    #[test]
    fn a_broken_file_is_an_error() {
        let library = made(DYNAMIC);
        // The strings are somewhere that no part of the file is loaded to.
        library
            .write_all_at(&0x99_000_u64.to_le_bytes(), 0x218)
            .unwrap();
        assert!(soname(&library).is_err());
        library.write_all_at(&u64::MAX.to_le_bytes(), 32).unwrap();
        assert!(interpreter(&library).is_err());
        library.write_all_at(b"\x7fELF\x01", 0).unwrap();
        assert!(interpreter(&library).is_err());
        let mut script = tempfile::tempfile().unwrap();
        script.write_all(b"#!/bin/sh\n").unwrap();
        assert!(interpreter(&script).is_err());
    }
}
