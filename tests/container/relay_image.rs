//! The image of relays on a real engine: an executable and what it has loaded, runnable from nothing.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use wharf::backend::container::RelayImage;

use crate::engine::{Lab, docker, inspect, lab};

const DAY: Duration = Duration::from_hours(24);

/// A program that has said its first line, and so has loaded what it needs.
struct Running(Child);

impl Running {
    fn start(program: &Path, arguments: &[&str]) -> Self {
        let (output, writer) = std::io::pipe().unwrap();
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(writer.try_clone().unwrap())
            .stderr(writer)
            .spawn()
            .unwrap();
        let running = Self(child);
        let first = BufReader::new(output).lines().next();
        assert!(first.is_some_and(|line| line.is_ok()));
        running
    }

    fn image(&self) -> RelayImage {
        RelayImage::of_process(self.0.id()).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// The image of a small program that was built some days ago.
fn aged(lab: &Lab, days: u32) -> (Running, RelayImage) {
    let source = ["/bin/busybox", "/usr/bin/busybox"];
    let source = source.into_iter().find(|path| Path::new(path).exists());
    let path = lab.directory.path().join(format!("busybox-{days}"));
    std::fs::copy(source.expect("a static busybox"), &path).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.set_modified(SystemTime::now() - days * DAY).unwrap();
    drop(file);
    let running = Running::start(&path, &["sh", "-c", "echo up; read line"]);
    let image = running.image();
    (running, image)
}

/// Loads the image of the wharf under test; its name.
pub(crate) async fn loaded(lab: &Lab) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_wharf"));
    let running = Running::start(program, &["serve", "--port", "0"]);
    let image = running.image();
    lab.containers.load_relay_image(&image).await.unwrap();
    image.name().to_owned()
}

fn ids(reference: &str) -> String {
    docker(&["image", "ls", "-q", "--no-trunc", reference])
}

#[tokio::test]
async fn the_executable_runs_from_nothing_else_but_its_libraries() {
    let lab = lab!();
    let program = Path::new(env!("CARGO_BIN_EXE_wharf"));
    let running = Running::start(program, &["serve", "--port", "0"]);
    let image = running.image();
    let name = image.name();
    assert!(name.starts_with(&format!("wharf-relay:{}-", env!("CARGO_PKG_VERSION"))));
    lab.containers.load_relay_image(&image).await.unwrap();
    let made = inspect(name);
    assert_eq!(made["Config"]["Labels"]["wharf.role"], "relay");
    assert_eq!(made["Config"]["Entrypoint"][0], "/wharf");
    assert_eq!(made["RootFS"]["Layers"].as_array().unwrap().len(), 1);
    let run = ["run", "--rm", "--network", "none", "--read-only"];
    let bare = ["--cap-drop", "ALL", "--user", "65534", name, "version"];
    let said = docker(&[run.as_slice(), bare.as_slice()].concat());
    assert_eq!(said, format!("wharf version {}", env!("CARGO_PKG_VERSION")));

    // The same again changes nothing, whether it is there or was removed meanwhile.
    lab.containers.load_relay_image(&image).await.unwrap();
    assert_eq!(inspect(name)["Id"], made["Id"]);
}

#[tokio::test]
async fn images_of_older_builds_go_when_nothing_uses_them() {
    let lab = lab!();
    let (_oldest, unused) = aged(&lab, 40);
    let (_older, used) = aged(&lab, 30);
    let (_old, present) = aged(&lab, 20);
    let foreign = format!("wharf-relay:{}", lab.project.name);
    docker(&["tag", lab.busybox(), &foreign]);
    lab.containers.load_relay_image(&used).await.unwrap();
    let label = format!("com.docker.compose.project={}", lab.project.name);
    docker(&["create", "--label", &label, used.name(), "sh"]);
    lab.containers.load_relay_image(&unused).await.unwrap();
    // What a newer wharf uses is not for an older one to remove.
    assert_ne!(ids(used.name()), "");
    lab.containers.load_relay_image(&present).await.unwrap();
    assert_eq!(ids(unused.name()), "");
    assert_ne!(ids(used.name()), "");
    assert_ne!(ids(&foreign), "");
    assert_ne!(ids(lab.busybox()), "");
    docker(&["rmi", &foreign]);
    let all = docker(&["ps", "-aq", "--filter", &format!("label={label}")]);
    docker(&["rm", &all]);
    docker(&["rmi", used.name()]);
    // Loaded unless another test has loaded that of a newer build since.
    if !ids(present.name()).is_empty() {
        docker(&["rmi", present.name()]);
    }
}

#[tokio::test]
async fn an_image_is_the_same_each_time_it_is_made() {
    let lab = lab!();
    let (_running, image) = aged(&lab, 10);
    lab.containers.load_relay_image(&image).await.unwrap();
    let first = ids(image.name());
    docker(&["create", "--name", &lab.project.name, image.name(), "sh"]);
    docker(&["rm", &lab.project.name]);
    if !ids(image.name()).is_empty() {
        docker(&["rmi", image.name()]);
    }
    lab.containers.load_relay_image(&image).await.unwrap();
    assert_eq!(ids(image.name()), first);
    docker(&["rmi", image.name()]);
}
