//! Waiting for answers, verdicts and ends.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use wharf::backend::BackendError;
use wharf::event::Event;
use wharf::plan::step::Action;
use wharf::project::model::{HealthTest, Healthcheck};
use wharf::state::{ProbeKind, Readiness};

use crate::engine::{free_port, lab, published};

const SERVER: &str = "mkdir /w; echo hello > /w/index.html; sleep 0.5; exec httpd -f -p 80 -h /w";

fn readiness(probe: ProbeKind, port: u16, seconds: u64) -> Readiness {
    Readiness {
        probe,
        address: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
        target: 80,
        timeout_ms: seconds * 1000,
    }
}

fn http() -> ProbeKind {
    ProbeKind::Http {
        path: "/".to_owned(),
    }
}

#[tokio::test]
async fn a_server_is_ready_when_it_answered() {
    let mut lab = lab!();
    lab.default_network().await;
    let fixed = free_port();
    for (place, host) in [Some(fixed), None].into_iter().enumerate() {
        let name = format!("web{place}");
        let mut spec = lab.spec(lab.shell(&name, SERVER));
        spec.ports = vec![published(80, host, Ipv4Addr::LOCALHOST)];
        let ready = readiness(http(), host.unwrap_or(0), 60);
        spec.readiness = Some(ready.clone());
        let id = lab.up(spec).await.unwrap();
        lab.told();
        lab.perform(Action::AwaitReady {
            instance: lab.target(&name, &id),
            readiness: ready,
        })
        .await
        .unwrap();
        let seen = lab.observe().await;
        let seen = seen.iter().find(|instance| instance.id == id).unwrap();
        let port = seen.publishers[0].published;
        assert!(host.is_none_or(|host| host == port));
        // Recorded with the container, the engine's choice filled in.
        assert_eq!(seen.readiness.as_ref().unwrap().address.port(), port);
        let urls: Vec<String> = lab
            .told()
            .into_iter()
            .filter_map(|event| {
                let Event::Ready { url, .. } = event else {
                    return None;
                };
                Some(url)
            })
            .collect();
        assert_eq!(urls, [format!("http://127.0.0.1:{port}/")]);
    }
}

#[tokio::test]
async fn a_connection_counts_only_if_the_server_itself_took_it() {
    let mut lab = lab!();
    lab.default_network().await;
    let port = free_port();
    // The engine's proxy listens on the published port all the time.
    let mut spec = lab.spec(lab.shell("web", "echo nothing; sleep 60"));
    spec.ports = vec![published(80, Some(port), Ipv4Addr::LOCALHOST)];
    let id = lab.up(spec).await.unwrap();
    let instance = lab.target("web", &id);
    let error = lab
        .perform(Action::AwaitReady {
            instance: instance.clone(),
            readiness: readiness(ProbeKind::Tcp, port, 1),
        })
        .await
        .unwrap_err();
    let BackendError::NotReady { last_lines, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(last_lines, &["nothing"]);

    // Nothing published: asked at the container's own address.
    let id = lab.up(lab.spec(lab.shell("inside", SERVER))).await.unwrap();
    let instance = lab.target("inside", &id);
    lab.perform(Action::AwaitReady {
        instance,
        readiness: readiness(ProbeKind::Tcp, 0, 60),
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_server_that_ends_is_not_waited_for() {
    let mut lab = lab!();
    lab.default_network().await;
    let port = free_port();
    let mut spec = lab.spec(lab.shell("web", "echo cannot >&2; sleep 0.3; exit 5"));
    spec.ports = vec![published(80, Some(port), Ipv4Addr::LOCALHOST)];
    let id = lab.up(spec).await.unwrap();
    let instance = lab.target("web", &id);
    let error = lab
        .perform(Action::AwaitReady {
            instance: instance.clone(),
            readiness: readiness(http(), port, 600),
        })
        .await
        .unwrap_err();
    let BackendError::ExitedEarly {
        code, last_lines, ..
    } = &error
    else {
        panic!("{error:?}");
    };
    assert_eq!(
        (*code, last_lines.as_slice()),
        (5, &["cannot".to_owned()][..])
    );

    let error = lab
        .perform(Action::AwaitCompleted { instance })
        .await
        .unwrap_err();
    assert!(matches!(error, BackendError::ExitedEarly { code: 5, .. }));
    let id = lab
        .up(lab.spec(lab.shell("job", "sleep 0.3")))
        .await
        .unwrap();
    let instance = lab.target("job", &id);
    lab.perform(Action::AwaitCompleted { instance })
        .await
        .unwrap();
}

fn check(line: &str) -> Healthcheck {
    Healthcheck {
        test: Some(HealthTest::Shell(line.to_owned())),
        interval: Some(Duration::from_millis(300)),
        timeout: None,
        retries: Some(2),
        start_period: None,
        start_interval: None,
    }
}

#[tokio::test]
async fn the_healthcheck_s_verdict_decides() {
    let mut lab = lab!();
    lab.default_network().await;
    for (name, line) in [
        ("well", "test -e /well"),
        ("ill", "echo no pulse; false"),
        ("dying", "false"),
    ] {
        let mut service = lab.shell(
            name,
            "sleep 0.5; touch /well; case $HOSTNAME in dying) exit 6;; esac; sleep 60",
        );
        service.hostname = Some(name.to_owned());
        service
            .environment
            .insert("HOSTNAME".to_owned(), name.to_owned());
        service.healthcheck = Some(check(line));
        if name == "dying" {
            service.healthcheck = Some(Healthcheck {
                interval: Some(Duration::from_mins(10)),
                ..check(line)
            });
        }
        let id = lab.up(lab.spec(service)).await.unwrap();
        let instance = lab.target(name, &id);
        let waited = lab.perform(Action::AwaitHealthy { instance }).await;
        match (name, waited) {
            ("well", Ok(_)) | ("dying", Err(BackendError::ExitedEarly { code: 6, .. })) => {}
            ("ill", Err(BackendError::NotReady { last, .. })) => {
                assert_eq!(last, "its healthcheck says unhealthy (no pulse)");
            }
            (name, waited) => panic!("{name}: {waited:?}"),
        }
    }
    // Passes long before the engine looks for the first time.
    let mut service = lab.shell("early", "sleep 0.5; touch /well; sleep 60");
    service.healthcheck = Some(Healthcheck {
        interval: Some(Duration::from_hours(1)),
        ..check("test -e /well")
    });
    let id = lab.up(lab.spec(service)).await.unwrap();
    let instance = lab.target("early", &id);
    lab.perform(Action::AwaitHealthy { instance })
        .await
        .unwrap();

    let id = lab
        .up(lab.spec(lab.shell("without", "sleep 60")))
        .await
        .unwrap();
    let instance = lab.target("without", &id);
    let error = lab
        .perform(Action::AwaitHealthy { instance })
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no healthcheck"), "{error}");
}
