//! The command.

use std::path::PathBuf;
use std::process::ExitCode;

use wharf::backend::process::Dirs;
use wharf::supervise::daemon;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [
            "supervise",
            "--project",
            project,
            "--state-dir",
            state,
            "--runtime-dir",
            runtime,
        ] => {
            let dirs = Dirs::new(PathBuf::from(state), PathBuf::from(runtime));
            match daemon::run(&dirs, project) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            }
        }
        _ => ExitCode::from(2),
    }
}
