//! The control groups of a project whose test has ended.

use std::time::Duration;

use wharf::backend::process::cgroup::{Group, View};
use wharf::backend::process::dirs::ProjectDir;

/// Ends and removes them, also those that no entry names any more.
pub(crate) fn clear(project: &ProjectDir) {
    for place in View::new().delegated() {
        for (_, group) in Group::of_project(&place, &project.tag()) {
            drop(group.kill());
            // What was killed leaves it a moment later.
            for _ in 0..500 {
                if group.remove().is_ok() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}
