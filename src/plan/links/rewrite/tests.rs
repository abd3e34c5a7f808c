//! Values before and after.

use super::*;

fn names() -> BTreeMap<String, Mentioned> {
    let one = |service: &str, last, ports: &[u16]| Mentioned {
        service: Some(service.to_owned()),
        address: Ipv4Addr::new(127, 77, 0, last),
        ports: ports.to_vec(),
    };
    BTreeMap::from([
        ("db".to_owned(), one("db", 1, &[5432])),
        ("database".to_owned(), one("db", 1, &[5432])),
        ("proxy".to_owned(), one("proxy", 2, &[80, 443])),
        ("api.v2".to_owned(), one("api.v2", 3, &[8080])),
        ("kafka".to_owned(), one("kafka", 4, &[])),
    ])
}

fn value(variable: &str, value: &str, first_port: u16) -> (String, Vec<String>) {
    let environment = BTreeMap::from([(variable.to_owned(), value.to_owned())]);
    let outcome = rewrite(&environment, &names(), first_port);
    let to = outcome.values.first().map(|value| value.to.clone());
    let leads = outcome.forwards.iter();
    (
        to.unwrap_or_else(|| value.to_owned()),
        leads
            .map(|lead| format!("{} {}:{}", lead.listen, lead.service, lead.port))
            .collect(),
    )
}

fn check(text: &str, expected: &str) {
    assert_eq!(value("X", text, 1024).0, expected, "{text}");
}

#[test]
fn hosts_are_replaced_where_they_are_hosts() {
    check("db:5432", "127.77.0.1:5432");
    check("database:5432", "127.77.0.1:5432");
    check(
        "postgres://user:pw@db:5432/x",
        "postgres://user:pw@127.77.0.1:5432/x",
    );
    check("postgres://user:pw@db/x", "postgres://user:pw@127.77.0.1/x");
    check("http://proxy/", "http://127.77.0.2:20080/");
    check("http://proxy", "http://127.77.0.2:20080");
    check("https://proxy?x=1", "https://127.77.0.2:20443?x=1");
    check("grpc://api.v2/x", "grpc://127.77.0.3:8080/x");
    check("http://api.v2:8080", "http://127.77.0.3:8080");
    check("kafka:9092,db:9093", "127.77.0.4:9092,127.77.0.1:9093");
    check(
        "mongodb://u:p@db:27017,kafka:27018/x?replicaSet=r",
        "mongodb://u:p@127.77.0.1:27017,127.77.0.4:27018/x?replicaSet=r",
    );
    check(
        "user:pw@tcp(db:3306)/shop",
        "user:pw@tcp(127.77.0.1:3306)/shop",
    );
    check(
        "host=x servers=db:5001,db:5002",
        "host=x servers=127.77.0.1:5001,127.77.0.1:5002",
    );
    check(
        "postgresql+asyncpg://db/x",
        "postgresql+asyncpg://127.77.0.1/x",
    );
    check("jdbc:mysql://db/x", "jdbc:mysql://127.77.0.1/x");
    check("//db:5432/x", "//127.77.0.1:5432/x");
    check("user@db:5432", "user@127.77.0.1:5432");
    check(
        "http://example.com/?peer=db:5432",
        "http://example.com/?peer=127.77.0.1:5432",
    );
    check(
        r#"["http://db:5001","http://kafka:5002"]"#,
        r#"["http://127.77.0.1:5001","http://127.77.0.4:5002"]"#,
    );
}

#[test]
fn a_dot_at_the_end_is_part_of_no_name() {
    check("db.:5432", "127.77.0.1:5432");
    check("http://proxy./x", "http://127.77.0.2:20080/x");
    check("Host=db.;Port=5432", "Host=127.77.0.1;Port=5432");
    assert_eq!(value("DB_HOST", "db.", 1024).0, "127.77.0.1");
    check("db..:5432", "db..:5432");
    check("db.x:5432", "db.x:5432");
}

#[test]
fn an_address_of_the_files_own_is_where_it_is() {
    let given = Mentioned {
        service: None,
        address: Ipv4Addr::new(127, 0, 0, 8),
        ports: Vec::new(),
    };
    let names = BTreeMap::from([("db".to_owned(), given)]);
    for (variable, text, expected) in [
        ("X", "db:80", "127.0.0.8:80"),
        ("X", "http://db/", "http://127.0.0.8/"),
        ("X", "host=db port=81", "host=127.0.0.8 port=81"),
        ("DB_HOST", "db", "127.0.0.8"),
    ] {
        let environment = BTreeMap::from([(variable.to_owned(), text.to_owned())]);
        let outcome = rewrite(&environment, &names, 1024);
        assert_eq!(outcome.values[0].to, expected);
        assert_eq!(
            (outcome.forwards.len(), outcome.refused.len()),
            (0, 0),
            "{text}"
        );
    }
}

#[test]
fn what_only_looks_like_one_stays() {
    for text in [
        "db",
        "the db is down",
        "mydb:5432",
        "db.example.com:5432",
        "db-2:5432",
        "https://example.com/db:5432x",
        "postgres://db:1234@example.com/db",
        "postgres://example.com/db",
        "db:latest",
        "db:5432abc",
        "db:0",
        "db:70000",
        "amqp://example.com:5672/db",
        "http://db.example.com/db:5432",
        "http://example.com/x/db:5432/y",
        "http://example.com/@db:5432",
        "/srv/db:5432",
        "registry.example.com/db:15",
        "file:///db:5432",
        "",
        "://db",
        "é db: ü",
    ] {
        check(text, text);
    }
}

#[test]
fn what_names_an_image_or_a_version_stays() {
    for (variable, text, expected) in [
        ("IMAGE", "db:15", "db:15"),
        ("KAFKA_VERSION", "kafka:7", "kafka:7"),
        ("base.image.tags", "db:15,kafka:3", "db:15,kafka:3"),
        ("IMAGE2", "db:15", "db:15"),
        // A port of the service, an address, and a word that only looks like one.
        ("IMAGE_DB", "db:5432", "127.77.0.1:5432"),
        (
            "IMAGE_STORE",
            "http://kafka:9000/x",
            "http://127.77.0.4:9000/x",
        ),
        ("STAGE", "kafka:9000", "127.77.0.4:9000"),
    ] {
        assert_eq!(value(variable, text, 1024).0, expected, "{variable}");
    }
}

#[test]
fn a_name_alone_cannot_carry_another_port_so_what_is_not_ours_is_told() {
    let environment = BTreeMap::from([
        ("PROXY_HOST".to_owned(), "proxy".to_owned()),
        ("PROXY_URL".to_owned(), "http://proxy/".to_owned()),
        ("DB_HOST".to_owned(), "db".to_owned()),
    ]);
    let refused = |first_port| rewrite(&environment, &names(), first_port).refused;
    let proxy = |port| ("proxy".to_owned(), port);
    assert_eq!(refused(1024), BTreeSet::from([proxy(80), proxy(443)]));
    assert_eq!(refused(443), BTreeSet::from([proxy(80)]));
    assert_eq!(refused(0), BTreeSet::new());
}

#[test]
fn a_name_alone_counts_where_the_variable_says_host() {
    let db = (
        "127.77.0.1".to_owned(),
        vec!["127.77.0.1:5432 db:5432".to_owned()],
    );
    for variable in ["DB_HOST", "PGHOST", "HOST", "db_hostname", "MYSQL_SERVER"] {
        assert_eq!(value(variable, "db", 1024), db, "{variable}");
    }
    for variable in ["DB", "APP_NAME", "HOSTS", "GHOSTS_OF"] {
        assert_eq!(value(variable, "db", 1024).0, "db", "{variable}");
    }
}

#[test]
fn connection_strings_of_pairs_have_hosts() {
    check(
        "Host=db;Port=5432;Database=db",
        "Host=127.77.0.1;Port=5432;Database=db",
    );
    check(
        "host=db port=5432 user=db",
        "host=127.77.0.1 port=5432 user=db",
    );
    check("Host=proxy;Port=80", "Host=127.77.0.2;Port=20080");
    check(
        "host=db,kafka port=5432",
        "host=127.77.0.1,127.77.0.4 port=5432",
    );
    check(
        "Server=tcp:db,1433;Database=x",
        "Server=tcp:127.77.0.1,1433;Database=x",
    );
    check("Host=db:5432;User=db", "Host=127.77.0.1:5432;User=db");
    check(
        "jdbc:sqlserver://db;databaseName=x",
        "jdbc:sqlserver://127.77.0.1;databaseName=x",
    );
    let leads = value("X", "host=db port=6432", 1024).1;
    assert_eq!(leads, ["127.77.0.1:6432 db:6432"]);
    let leads = value("X", "Host=db;Database=x", 1024).1;
    assert_eq!(leads, ["127.77.0.1:5432 db:5432"]);
    for text in ["the host=db is down", "a host=db", "name=db;kind=db"] {
        check(text, text);
    }
}

#[test]
fn lists_of_hosts_count_where_the_variable_says_so() {
    let both = "127.77.0.1,127.77.0.4";
    for variable in ["PGHOST", "DB_HOSTS", "MEMCACHED_SERVERS", "kafka.brokers"] {
        assert_eq!(value(variable, "db,kafka", 1024).0, both, "{variable}");
    }
    let mixed = value("DB_HOSTS", "db, other,kafka:9092", 1024).0;
    assert_eq!(mixed, "127.77.0.1, other,127.77.0.4:9092");
    for variable in ["ALLOWED_HOSTS", "TRUSTED_HOSTS", "NAMES", "SERVICES"] {
        assert_eq!(
            value(variable, "db,kafka", 1024).0,
            "db,kafka",
            "{variable}"
        );
    }
}

#[test]
fn what_a_service_is_called_stays() {
    for (variable, text) in [
        ("HOSTNAME", "db"),
        ("VIRTUAL_HOST", "db"),
        ("ALLOWED_HOST", "db"),
        ("DJANGO_ALLOWED_HOSTS", "db,localhost"),
        ("SERVER_NAME", "http://db:5432"),
        ("CORS_ALLOW_ORIGIN", "http://proxy:3000"),
        ("ORIGIN", "http://proxy:3000"),
        ("KAFKA_ADVERTISED_LISTENERS", "PLAINTEXT://kafka:9092"),
        ("TRUSTED_PROXIES", "proxy:80"),
    ] {
        assert_eq!(value(variable, text, 1024).0, text, "{variable}");
    }
    let url = value("ORIGIN_URL", "http://kafka:3000", 1024).0;
    assert_eq!(url, "http://127.77.0.4:3000");
}

#[test]
fn addresses_stand_beside_the_names_that_no_proxy_is_asked_for() {
    for variable in ["NO_PROXY", "no_proxy"] {
        let (to, leads) = value(variable, "db, database,example.com,localhost", 1024);
        assert_eq!(to, "db, database,example.com,localhost,127.77.0.1");
        assert_eq!(leads, Vec::<String>::new());
    }
    assert_eq!(value("NO_PROXY", "localhost,", 1024).0, "localhost,");
}

#[test]
fn hosts_in_quotes_in_queries_and_in_capitals_are_found() {
    check(
        "host=db user=db password='a host=db b' dbname=db",
        "host=127.77.0.1 user=db password='a host=db b' dbname=db",
    );
    check(
        r"password='it\'s host=kafka' host='db'",
        r"password='it\'s host=kafka' host='127.77.0.1'",
    );
    check(
        "Password=\"a;Host=kafka\";Host=db",
        "Password=\"a;Host=kafka\";Host=127.77.0.1",
    );
    check("HOST=DB;PORT=5432", "HOST=127.77.0.1;PORT=5432");
    check("postgres://DB/x", "postgres://127.77.0.1/x");
    check(
        "postgresql://u@/x?host=db",
        "postgresql://u@/x?host=127.77.0.1",
    );
    let leads = value(
        "X",
        "postgresql+psycopg://u@/x?user=u&host=db&port=6432",
        1024,
    );
    assert_eq!(
        leads.0,
        "postgresql+psycopg://u@/x?user=u&host=127.77.0.1&port=6432"
    );
    assert_eq!(leads.1, ["127.77.0.1:6432 db:6432"]);
    check(
        "postgresql:///x?host=db,kafka",
        "postgresql:///x?host=127.77.0.1,127.77.0.4",
    );
    let both = value("MEMCACHED_SERVERS", "db kafka", 1024).0;
    assert_eq!(both, "127.77.0.1 127.77.0.4");
    for text in [
        "http://example.com/?host=db",
        "postgresql:///x?host=db.example.com",
        "postgresql:///x?myhost=db",
        "DB:5432",
        "host=db password='open",
    ] {
        check(text, text);
    }
}

#[test]
fn a_port_below_the_first_is_another_one_at_the_address() {
    let leads = value("X", "http://proxy/", 1024).1;
    assert_eq!(leads, ["127.77.0.2:20080 proxy:80"]);
    let (to, leads) = value("X", "http://proxy/", 0);
    assert_eq!(to, "http://127.77.0.2/");
    assert_eq!(leads, ["127.77.0.2:80 proxy:80"]);
}
