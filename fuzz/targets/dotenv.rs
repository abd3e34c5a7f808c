//! Any text as `.env` and as the file of `env_file`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_fuzz::{Memory, check_again};

const COMPOSE: &str = "\
services:
  a:
    image: \"${IMAGE:-a}\"
    env_file: [.env, {path: raw.env, format: raw}]
    environment: [FROM_FILE]
";

fuzz_target!(|bytes: &[u8]| {
    let files = Memory::default()
        .with("compose.yaml", COMPOSE.as_bytes())
        .with(".env", bytes)
        .with("raw.env", bytes);
    check_again(&files);
});
