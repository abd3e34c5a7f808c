//! What people read when a compose file is wrong: the whole of it, one snapshot per mistake.

use std::fmt::Write as _;

use wharf::project::{LoadOptions, load};
use wharf::ui::report::rendered;

use crate::disk::{Table, env};

/// The findings of a load, as they are printed.
fn told(files: &Table, options: &LoadOptions, variables: &[(&str, &str)]) -> String {
    let findings = match load(options, &env(variables), files) {
        Ok(loaded) => loaded.warnings,
        Err(error) => error.diagnostics,
    };
    let mut out = String::new();
    for finding in findings {
        let text = rendered(&finding);
        writeln!(out, "{}", anstream::adapter::strip_str(&text)).unwrap();
    }
    out
}

/// One snapshot for one file.
macro_rules! tells {
    ($($name:ident: $text:expr;)*) => {$(
        #[test]
        fn $name() {
            let files = Table::new(&[("compose.yaml", $text)]);
            insta::assert_snapshot!(told(&files, &LoadOptions::default(), &[]));
        }
    )*};
}

tells! {
    unknown_service_key: "services:\n  web:\n    image: app\n    enviroment: {A: 1}\n";
    unknown_top_level_key: "servces:\n  web: {image: app}\n";
    unknown_nested_key: "services:\n  web:\n    image: app\n    healthcheck: {test: x, intervall: 5s}\n";
    unknown_key_like_no_other: "services:\n  web:\n    image: app\n    frobnicate: true\n";
    wrong_kind: "services:\n  web:\n    image: app\n    ports: \"80\"\n";
    number_for_text: "services:\n  web:\n    image: app\n    user: 1000\n";
    nothing_for_a_list: "services:\n  web:\n    image: app\n    ports:\n";
    a_word_of_a_few: "services:\n  web:\n    image: app\n    depends_on: {db: {condition: service_helthy}}\n  db: {image: db}\n";
    missing_condition: "services:\n  web:\n    image: app\n    depends_on: {db: {restart: true}}\n  db: {image: db}\n";
    bad_service_name: "services:\n  \"web app\": {image: app}\n";
    not_a_port: "services:\n  web:\n    image: app\n    ports: [\"80:http\"]\n";
    port_beyond_the_last: "services:\n  web:\n    image: app\n    ports:\n      - \"8080:80\"\n      - \"70000:80\"\n";
    port_ranges_of_different_lengths: "services:\n  web:\n    image: app\n    ports: [\"8000-8002:80-81\"]\n";
    port_on_a_host_name: "services:\n  web:\n    image: app\n    ports: [\"localhost:80:80\"]\n";
    long_port_beyond_the_last: "services:\n  web:\n    image: app\n    ports: [{target: 80, published: \"99999\"}]\n";
    mount_without_target: "services:\n  web:\n    image: app\n    volumes: [\"data::ro\"]\n";
    not_a_duration: "services:\n  web:\n    image: app\n    stop_grace_period: 10\n";
    duration_without_a_unit: "services:\n  web:\n    image: app\n    healthcheck: {test: x, interval: \"10\"}\n";
    not_a_size: "services:\n  web:\n    image: app\n    mem_limit: 64 megs\n";
    not_a_boolean: "services:\n  web:\n    image: app\n    tty: maybe\n";
    not_an_integer: "services:\n  web:\n    image: app\n    scale: two\n";
    open_quote_in_a_command: "services:\n  web:\n    image: app\n    command: echo 'hello\n";
    undefined_network: "services:\n  web:\n    image: app\n    networks: [back]\nnetworks:\n  bakc: {}\n";
    undefined_volume: "services:\n  web:\n    image: app\n    volumes: [\"data:/data\"]\n";
    undefined_secret: "services:\n  web:\n    image: app\n    secrets: [key]\n";
    undefined_dependency: "services:\n  web:\n    image: app\n    depends_on: [datbase]\n  database: {image: db}\n";
    disabled_dependency: "services:\n  web:\n    image: app\n    depends_on: [db]\n  db: {image: db, profiles: [data]}\n";
    circle: "services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [c]}\n  c: {image: x, depends_on: [a]}\n";
    nothing_to_run: "services:\n  web:\n    environment: {A: 1}\n";
    network_mode_and_networks: "services:\n  web:\n    image: app\n    network_mode: host\n    networks: [default]\n";
    scale_and_replicas: "services:\n  web:\n    image: app\n    scale: 2\n    deploy: {replicas: 3}\n";
    scaled_with_a_fixed_name: "services:\n  web:\n    image: app\n    scale: 2\n    container_name: web\n";
    the_same_container_name: "services:\n  a: {image: x, container_name: same}\n  b: {image: x, container_name: same}\n";
    two_mounts_in_one_place: "services:\n  web:\n    image: app\n    tmpfs: /data\n    volumes: [\"./data:/data\"]\n";
    healthcheck_without_a_form: "services:\n  web:\n    image: app\n    healthcheck: {test: [curl, localhost]}\n";
    secret_without_a_source: "services: {web: {image: app}}\nsecrets:\n  key: {name: k}\n";
    config_with_two_sources: "services: {web: {image: app}}\nconfigs:\n  c:\n    file: ./c\n    content: text\n";
    the_same_entry_twice: "services:\n  web:\n    image: app\n    security_opt: [a, b, a]\n";
    duplicate_key: "services:\n  web:\n    image: app\n    image: other\n";
    tab_for_indentation: "services:\n\tweb: {image: app}\n";
    unknown_alias: "services:\n  web: *base\n";
    number_for_a_key: "services:\n  web:\n    image: app\n    labels: {8080: x}\n";
    empty_file: "# nothing here\n";
    not_a_mapping: "- services\n";
    broken_expression: "services:\n  web:\n    image: app:${TAG\n";
    required_variable: "services:\n  web:\n    image: app:${TAG:?say which version}\n";
    unset_variable: "services:\n  web:\n    image: app:$TAG\n";
    obsolete_version: "version: \"3\"\nservices:\n  web: {image: app}\n";
    extends_a_missing_service: "services:\n  web: {extends: bse}\n  base: {image: app}\n";
    extends_in_a_circle: "services:\n  a: {extends: b}\n  b: {extends: a}\n";
    extends_a_missing_file: "services:\n  web:\n    extends: {file: other.yaml, service: web}\n";
    includes_a_missing_file: "include:\n  - other.yaml\nservices: {web: {image: app}}\n";
    missing_env_file: "services:\n  web:\n    image: app\n    env_file: web.env\n";
    restart_policy: "services:\n  web:\n    image: app\n    restart: sometimes\n";
    wharf_key: "services:\n  web:\n    image: app\n    x-wharf: {redy: {path: /}}\n";
    wharf_conflict: "services:\n  web:\n    image: app\n    x-wharf: {conflict: replce}\n";
    several_at_once: "services:\n  web:\n    imgae: app\n    ports: [80, web]\n  db:\n    image: 5\n    mem_limit: lots\nnetwork: {}\n";
}

#[test]
fn mistakes_keep_their_line_through_merges() {
    let files = Table::new(&[
        (
            "a.yaml",
            "services:\n  web:\n    image: app\n    environment: {A: 1}\n",
        ),
        (
            "b.yaml",
            "services:\n  web:\n    # a comment\n    environment:\n      - B=2\n    mem_limit: ${SIZE}\n",
        ),
    ]);
    let options = LoadOptions {
        files: vec!["a.yaml".into(), "b.yaml".into()],
        ..LoadOptions::default()
    };
    insta::assert_snapshot!(told(&files, &options, &[("SIZE", "lots")]));
}

#[test]
fn mistakes_keep_their_line_through_extends_and_include() {
    let files = Table::new(&[
        (
            "compose.yaml",
            "include: [parts/db.yaml]\nservices:\n  web:\n    extends: {file: base.yaml, service: base}\n",
        ),
        (
            "base.yaml",
            "services:\n  base:\n    image: app\n    cap_ad: [X]\n",
        ),
        (
            "parts/db.yaml",
            "services:\n  db:\n    image: db\n    ports: [nope]\n",
        ),
    ]);
    insta::assert_snapshot!(told(&files, &LoadOptions::default(), &[]));
}

#[test]
fn a_quote_without_end_in_dotenv() {
    let files = Table::new(&[
        ("compose.yaml", "services: {web: {image: app}}\n"),
        (".env", "A=1\nB=\"open\nC=3\n"),
    ]);
    insta::assert_snapshot!(told(&files, &LoadOptions::default(), &[]));
}

#[test]
fn an_included_service_that_differs() {
    let files = Table::new(&[
        (
            "compose.yaml",
            "include: [other.yaml]\nservices:\n  web: {image: app}\n",
        ),
        ("other.yaml", "services:\n  web: {image: other}\n"),
    ]);
    insta::assert_snapshot!(told(&files, &LoadOptions::default(), &[]));
}

#[test]
fn files_include_each_other_in_a_circle() {
    let files = Table::new(&[
        (
            "compose.yaml",
            "include: [a.yaml]\nservices: {x: {image: x}}\n",
        ),
        ("a.yaml", "include: [b.yaml]\nservices: {y: {image: x}}\n"),
        ("b.yaml", "include: [a.yaml]\nservices: {z: {image: x}}\n"),
    ]);
    insta::assert_snapshot!(told(&files, &LoadOptions::default(), &[]));
}

#[test]
fn text_that_is_not_utf_8() {
    let files = Table::new(&[]).with("compose.yaml", b"services:\n  web: {image: \"\xff\"}\n");
    insta::assert_snapshot!(told(&files, &LoadOptions::default(), &[]));
}

#[test]
fn no_compose_file_at_all() {
    insta::assert_snapshot!(told(&Table::new(&[]), &LoadOptions::default(), &[]));
}

#[test]
fn a_project_name_that_cannot_be() {
    let files = Table::new(&[("compose.yaml", "services: {web: {image: app}}\n")]);
    let options = LoadOptions {
        name: Some("MyApp".into()),
        ..LoadOptions::default()
    };
    insta::assert_snapshot!(told(&files, &options, &[]));
}
