//! Any text as a value with variables; one without a dollar sign stays as it is.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_fuzz::{Memory, check_again, quoted};

fuzz_target!(|text: &str| {
    let compose = format!(
        "services: {{a: {{image: a, labels: {{key: {}}}}}}}\n",
        quoted(text)
    );
    let project = check_again(&Memory::default().with("compose.yaml", compose.as_bytes()));
    if !text.contains('$') {
        let value = project.as_ref().and_then(|project| {
            let service = project.services.values().next()?;
            service.labels.get("key").map(String::as_str)
        });
        assert_eq!(value, Some(text), "a text without variables was changed");
    }
});
