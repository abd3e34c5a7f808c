//! `develop.watch` → model.

use std::path::PathBuf;

use super::model::{Reaction, Trigger};
use super::paths;
use super::tree::Node;
use super::typed::{Context, flag, hook, items, owned, texts};

/// The triggers of a service, in the order of the file.
pub(crate) fn triggers(service: &Node, context: &Context<'_>) -> Vec<Trigger> {
    let Some(develop) = service.get("develop") else {
        return Vec::new();
    };
    items(develop, "watch")
        .iter()
        .filter_map(|node| {
            let path = node.text("path")?;
            Some(Trigger {
                path: absolute(path, context),
                reaction: reaction(node.text("action")?)?,
                target: owned(node, "target"),
                exec: node.get("exec").map(hook),
                include: texts(node, "include"),
                ignore: texts(node, "ignore"),
                initial_sync: flag(node, "initial_sync"),
            })
        })
        .collect()
}

/// The schema knows no other words.
fn reaction(word: &str) -> Option<Reaction> {
    Some(match word {
        "rebuild" => Reaction::Rebuild,
        "restart" => Reaction::Restart,
        "sync" => Reaction::Sync,
        "sync+restart" => Reaction::SyncRestart,
        "sync+exec" => Reaction::SyncExec,
        _ => return None,
    })
}

fn absolute(path: &str, context: &Context<'_>) -> PathBuf {
    let base = paths::Base {
        directory: context.directory,
        home: context.home,
    };
    PathBuf::from(paths::absolute(path, base))
}
