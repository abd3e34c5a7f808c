//! Any text as the short syntax of one attribute; the first byte chooses which.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_fuzz::{Memory, check, quoted};

/// The attributes, with `@` for the text.
const ATTRIBUTES: &[&str] = &[
    "ports: [@]",
    "volumes: [@]",
    "expose: [@]",
    "devices: [@]",
    "command: @",
    "entrypoint: @",
    "environment: [@]",
    "labels: [@]",
    "extra_hosts: [@]",
    "extra_hosts: {name: @}",
    "ulimits: {nofile: @}",
    "tmpfs: @",
    "mem_limit: @",
    "shm_size: @",
    "cpus: @",
    "stop_grace_period: @",
    "healthcheck: {test: @, interval: @}",
    "healthcheck: {test: [CMD, x], interval: @}",
    "depends_on: [@]",
    "networks: [@]",
    "secrets: [@]",
    "configs: [@]",
    "build: @",
    "build: {context: ., ssh: [@], secrets: [@]}",
    "build: {context: ., additional_contexts: [@], args: [@]}",
    "env_file: @",
    "gpus: @",
    "blkio_config: {device_read_bps: [{path: /dev/x, rate: @}]}",
    "sysctls: [@]",
    "volumes_from: [@]",
    "links: [@]",
    "external_links: [@]",
    "network_mode: @",
    "restart: @",
    "user: @",
    "platform: @",
    "pull_policy: @",
    "cpuset: @",
    "storage_opt: {size: @}",
    "deploy: {resources: {limits: {cpus: @, memory: @}}}",
    "deploy: {update_config: {delay: @, monitor: @}}",
    "credential_spec: {file: @}",
    "dns: @",
    "security_opt: [@]",
    "oom_score_adj: @",
    "mac_address: @",
    "container_name: @",
];

fuzz_target!(|input: &str| {
    let Some(first) = input.chars().next() else {
        return;
    };
    let chosen = u32::from(first) as usize % ATTRIBUTES.len();
    let text = input.get(first.len_utf8()..).unwrap_or_default();
    // Bare as well as quoted, so that numbers and booleans are tried too.
    for value in [quoted(text), text.to_owned()] {
        let attribute = ATTRIBUTES[chosen].replace('@', &value);
        let compose = format!("services:\n  a:\n    image: a\n    {attribute}\n");
        check(&Memory::default().with("compose.yaml", compose.as_bytes()));
    }
});
