//! Laws that hold for every compose file: what `config` prints loads to the same, an empty file on
//! top changes nothing, and the order of keys does not matter.

use proptest::prelude::*;
use wharf::project::LoadOptions;
use wharf::project::config::{Format, Request, show};

use crate::disk::{Table, env};

/// What `config` prints for some files.
fn config(files: &[(&str, &str)], format: Format) -> String {
    let request = Request {
        load: LoadOptions {
            files: files.iter().map(|(name, _)| (*name).into()).collect(),
            ..LoadOptions::default()
        },
        format,
        ..Request::default()
    };
    match show(&request, &env(&[("TAG", "7")]), &Table::new(files)) {
        Ok(shown) => shown.text,
        Err(error) => panic!("{:?}\n{files:?}", error.diagnostics),
    }
}

/// Text with the characters that YAML and interpolation care about.
fn text() -> impl Strategy<Value = String> {
    proptest::string::string_regex("[ -~éß\n\t]{0,12}").unwrap()
}

/// A double-quoted YAML scalar of a text, its dollars doubled.
fn quoted(text: &str) -> String {
    serde_json::to_string(&text.replace('$', "$$")).unwrap()
}

/// The attributes of a service, as YAML flow entries in any order.
fn attributes() -> impl Strategy<Value = Vec<String>> {
    let one = prop_oneof![
        text().prop_map(|t| format!("hostname: {}", quoted(&t))),
        proptest::collection::btree_map("[A-Z]{1,3}", text(), 0..4).prop_map(|map| {
            let entries: Vec<String> = map
                .iter()
                .map(|(key, value)| format!("{key}: {}", quoted(value)))
                .collect();
            format!("environment: {{{}}}", entries.join(", "))
        }),
        proptest::collection::btree_map("[a-z.]{1,6}", text(), 0..4).prop_map(|map| {
            let entries: Vec<String> = map
                .iter()
                .map(|(key, value)| format!("{}: {}", quoted(key), quoted(value)))
                .collect();
            format!("labels: {{{}}}", entries.join(", "))
        }),
        proptest::collection::vec(text(), 0..4).prop_map(|list| {
            let items: Vec<String> = list.iter().map(|item| quoted(item)).collect();
            format!("command: [{}]", items.join(", "))
        }),
        proptest::collection::btree_set((1u16..65535, 1u16..65535), 0..3).prop_map(|ports| {
            let items: Vec<String> = ports.iter().map(|(a, b)| format!("\"{a}:{b}\"")).collect();
            format!("ports: [{}]", items.join(", "))
        }),
        any::<bool>().prop_map(|flag| format!("init: {flag}")),
        any::<bool>().prop_map(|flag| format!("tty: {flag}")),
        (0u32..5000).prop_map(|n| format!("mem_limit: {n}m")),
        (0u32..5000).prop_map(|n| format!("stop_grace_period: {n}s")),
        (1u32..50).prop_map(|n| format!("cpus: {}", f64::from(n) / 10.0)),
        text().prop_map(|t| format!("x-note: {{a: [{}, 1, 2.5, true, null]}}", quoted(&t))),
        Just("volumes: [\"./a:/a:ro\", \"data:/data\", /anon]".to_owned()),
        Just("healthcheck: {test: \"curl x\", interval: 90s, retries: 2}".to_owned()),
        Just("extra_hosts: [\"a:1.2.3.4\", \"b=::1\"]".to_owned()),
        Just("ulimits: {nofile: {soft: 1, hard: 2}, nproc: 5}".to_owned()),
        Just("build: {context: ., args: {A: 1}}".to_owned()),
    ];
    proptest::collection::vec(one, 0..6).prop_map(|mut list| {
        let key = |entry: &String| entry.split(':').next().unwrap_or_default().to_owned();
        list.sort_by_key(key);
        list.dedup_by_key(|entry| key(entry));
        list
    })
}

/// A compose file of these services.
fn file(services: &[Vec<String>]) -> String {
    let mut text = "name: demo\nvolumes: {data: }\nservices:\n".to_owned();
    for (index, attributes) in services.iter().enumerate() {
        let mut entries = vec!["image: \"app:${TAG}\"".to_owned()];
        entries.extend(attributes.iter().cloned());
        text.push_str(&["  s", &index.to_string(), ": {", &entries.join(", "), "}\n"].concat());
    }
    text
}

fn services() -> impl Strategy<Value = Vec<Vec<String>>> {
    proptest::collection::vec(attributes(), 1..4)
}

proptest! {
    #[test]
    fn config_of_config_is_the_same(services in services()) {
        let text = file(&services);
        let once = config(&[("a.yaml", &text)], Format::Yaml);
        let twice = config(&[("a.yaml", &once)], Format::Yaml);
        prop_assert_eq!(&once, &twice);
        let json = config(&[("a.yaml", &text)], Format::Json);
        prop_assert_eq!(json, config(&[("a.yaml", &once)], Format::Json));
    }

    #[test]
    fn a_file_without_services_on_top_changes_nothing(services in services()) {
        let text = file(&services);
        let alone = config(&[("a.yaml", &text)], Format::Json);
        let merged = config(&[("a.yaml", &text), ("b.yaml", "services: {}\n")], Format::Json);
        prop_assert_eq!(alone, merged);
    }

    #[test]
    fn the_order_of_keys_does_not_matter(services in services()) {
        let text = file(&services);
        let turned: Vec<Vec<String>> = services
            .iter()
            .map(|attributes| attributes.iter().rev().cloned().collect())
            .collect();
        let turned = file(&turned);
        prop_assert_eq!(
            config(&[("a.yaml", &text)], Format::Yaml),
            config(&[("a.yaml", &turned)], Format::Yaml)
        );
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "[ -~\n\t{}\\[\\]:&*!|>$'\"]{0,200}") {
        let request = Request {
            load: LoadOptions { files: vec!["a.yaml".into()], ..LoadOptions::default() },
            ..Request::default()
        };
        let files = Table::new(&[("a.yaml", &text)]);
        // Whatever it is, it is a result or an error.
        let _either = show(&request, &env(&[]), &files);
    }

    #[test]
    fn no_dotenv_makes_the_reader_panic(text in "[ -~\n\t$'\"\\\\#=]{0,200}") {
        let request = Request::default();
        let files = Table::new(&[("compose.yaml", "services: {a: {image: x}}"), (".env", &text)]);
        let _either = show(&request, &env(&[]), &files);
    }
}
