//! Any bytes as several files: what stands before the first line `%%` is `compose.yaml`, then come
//! `compose.override.yaml` and `other.yaml`, which the others can include and extend.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_fuzz::{Memory, check};

fuzz_target!(|text: &str| {
    let mut files = Memory::default();
    let names = ["compose.yaml", "compose.override.yaml", "other.yaml"];
    for (name, part) in names.into_iter().zip(text.split("%%\n")) {
        files = files.with(name, part.as_bytes());
    }
    check(&files);
});
