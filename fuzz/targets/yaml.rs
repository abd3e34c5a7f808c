//! Any bytes as the one compose file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_fuzz::{Memory, check};

fuzz_target!(|bytes: &[u8]| {
    check(&Memory::default().with("compose.yaml", bytes));
});
