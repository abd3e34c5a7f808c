//! Where Git looks for patterns besides the `.gitignore` files (gitignore(5)): the repository's own file and the user's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::project::Env;

/// `info/exclude` of the repository with this working copy. Of a further working copy or a submodule, `.git` is a file
/// that says where the repository is (gitrepository-layout(5)).
pub(super) fn exclude(top: &Path) -> PathBuf {
    let git = top.join(".git");
    let line = |path: &Path| {
        let text = fs::read_to_string(path).ok()?;
        Some(text.trim_end().to_owned())
    };
    let named = line(&git).and_then(|text| Some(text.strip_prefix("gitdir: ")?.to_owned()));
    let own = named.map_or(git, |named| top.join(named));
    let common = line(&own.join("commondir")).map(|common| own.join(common));
    common.unwrap_or(own).join("info/exclude")
}

/// The user's own file: `core.excludesFile`, as Git itself finds it, else the default place.
pub(super) fn excludes_file(env: &Env, top: &Path) -> Option<PathBuf> {
    set(env, top).or_else(|| {
        let config = env.get("XDG_CONFIG_HOME").map(PathBuf::from);
        let home = || env.get("HOME").map(|home| Path::new(home).join(".config"));
        Some(config.or_else(home)?.join("git/ignore"))
    })
}

/// What Git's configuration says, with all the files that it may be in or include; nothing without a Git to ask.
fn set(env: &Env, top: &Path) -> Option<PathBuf> {
    let output = Command::new("git")
        .args(["config", "--type=path", "--get", "core.excludesFile"])
        .env_clear()
        .envs(&env.variables)
        .current_dir(top)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let path = text.trim_end_matches('\n');
    // A path that is not absolute is one below the top of the working copy.
    (output.status.success() && !path.is_empty()).then(|| top.join(path))
}
