//! How a service's command is found and run, and what is said when it cannot be.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use wharf::backend::{BackendError, LogOptions};
use wharf::state::Status;

use crate::stage::{Stage, command, exited, process, shell};

#[tokio::test]
async fn a_command_that_does_not_exist_is_an_error_with_its_cause() {
    let stage = Stage::new();
    let error = stage
        .up(command("web", &["no-such-command-here", "--port", "1"]))
        .await
        .unwrap_err();
    let BackendError::Command {
        command, source, ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(command, "no-such-command-here --port 1");
    assert_eq!(source.kind(), ErrorKind::NotFound);
    assert_eq!(stage.instance("web").await.status, exited(127));
}

#[tokio::test]
async fn a_file_that_is_no_program_is_an_error_with_its_cause() {
    let stage = Stage::new();
    let path = stage.root.path().join("notes.txt");
    std::fs::write(&path, "hello").unwrap();
    let error = stage
        .up(command("web", &[path.to_str().unwrap()]))
        .await
        .unwrap_err();
    let BackendError::Command { source, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(source.kind(), ErrorKind::PermissionDenied);
    assert_eq!(stage.instance("web").await.status, exited(126));
}

#[tokio::test]
async fn the_interpreter_of_a_script_is_told_from_the_script() {
    let stage = Stage::new();
    let path = stage.root.path().join("tool");
    std::fs::write(&path, "#!/no/such/thing\n").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, executable).unwrap();
    let error = stage.up(command("web", &["./tool"])).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("/no/such/thing, which"), "{source}");
    let hints = wharf::error::Error::from(error).hints;
    assert!(hints[0].starts_with("install /no/such/thing"), "{hints:?}");
    assert_eq!(stage.instance("web").await.status, exited(127));
}

#[tokio::test]
async fn the_limit_that_cannot_be_set_is_named() {
    let stage = Stage::new();
    let mut service = command("web", &["sleep", "600"]);
    let limit = wharf::project::model::Ulimit {
        soft: i64::MAX,
        hard: i64::MAX,
    };
    service.ulimits = BTreeMap::from([("nofile".into(), limit)]);
    let error = stage.up(service).await.unwrap_err();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    assert!(text.contains("nofile"), "{text}");
}

#[tokio::test]
async fn a_missing_directory_is_named() {
    let stage = Stage::new();
    let mut service = command("web", &["true"]);
    service.working_dir = Some("nowhere".into());
    let error = stage.up(service).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("its directory"), "{source}");
    assert!(source.contains("nowhere is not there"), "{source}");
}

#[tokio::test]
async fn the_command_is_looked_up_in_the_path_of_the_service() {
    let stage = Stage::new();
    let bin = stage.root.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink("/bin/true", bin.join("only-here")).unwrap();
    let mut service = command("web", &["only-here"]);
    service.environment = BTreeMap::from([("PATH".into(), bin.display().to_string())]);
    stage.up(service).await.unwrap();
    assert_eq!(stage.exit_code("web").await, 0);
}

#[tokio::test]
async fn a_process_has_its_own_session_default_signals_and_three_descriptors() {
    let mut stage = Stage::new();
    // Without a pipe, which the shell itself would have open for a moment.
    let script = "echo session $(ps -o sid= -p $$) $$; grep -E '^Sig(Blk|Ign)' /proc/self/status; \
                  readlink /proc/$$/fd/0; pwd; echo $WHARF_PROJECT $WHARF_SERVICE $WHARF_RUN_ID; \
                  ls /proc/self/fd";
    let id = stage.up(shell("web", script)).await.unwrap();
    assert_eq!(stage.exit_code("web").await, 0);
    let lines: Vec<String> = stage
        .lines("web", LogOptions::default())
        .await
        .into_iter()
        .map(|(_, line)| line)
        .collect();
    let words: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(words[1], words[2], "leads its session");
    for line in &lines[1..3] {
        let bits = line.split_whitespace().last().unwrap();
        // 32 and 33 belong to the C library, which lets nobody change them.
        let bits = u64::from_str_radix(bits, 16).unwrap() & !(0b11 << 31);
        assert_eq!(bits, 0, "{line}");
    }
    assert_eq!(lines[3], "/dev/null");
    assert_eq!(lines[4], stage.root.path().to_str().unwrap());
    assert_eq!(lines[5], format!("stage web {id}"));
    // The fourth is the directory that `ls` itself reads.
    assert_eq!(lines[6..], ["0", "1", "2", "3"]);
}

#[tokio::test]
async fn the_code_of_a_death_by_signal_is_128_and_the_signal() {
    let stage = Stage::new();
    stage.up(shell("web", "kill -USR1 $$")).await.unwrap();
    assert_eq!(stage.exit_code("web").await, 138);
}

#[tokio::test]
async fn a_started_instance_is_running_under_its_pid() {
    let stage = Stage::new();
    let id = stage
        .up(shell("web", "echo pid $$; exec sleep 600"))
        .await
        .unwrap();
    let pid = stage.line("web", "pid ").await;
    let instance = stage.instance("web").await;
    assert_eq!(instance.status, Status::Running);
    assert_eq!(instance.pid, Some(pid.parse().unwrap()));
    assert_eq!(instance.id, id);
    // Starting it once more is no second instance.
    assert_eq!(stage.start("web").await.unwrap(), id);
    assert!(process(&pid).is_alive());
    stage.stop("web", None).await.unwrap();
}

#[tokio::test]
async fn another_user_is_taken_on_where_that_is_permitted() {
    let mut stage = Stage::new();
    let mut service = shell("web", "id -u; id -G; echo named > /dev/stdout; echo $HOME");
    service.user = Some("65534:65534".into());
    service.working_dir = Some("/".into());
    let outcome = stage.up(service).await;
    if !rustix::process::geteuid().is_root() {
        let error = outcome.unwrap_err();
        assert!(matches!(&error, BackendError::Command { source, .. }
            if source.kind() == ErrorKind::PermissionDenied));
        return;
    }
    outcome.unwrap();
    assert_eq!(stage.exit_code("web").await, 0);
    let lines: Vec<String> = stage
        .lines("web", LogOptions::default())
        .await
        .into_iter()
        .map(|(_, line)| line)
        .collect();
    assert_eq!(lines[..3], ["65534", "65534", "named"]);
}
