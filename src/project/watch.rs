//! `develop.watch` → model.

use super::model::{Reaction, Trigger};
use super::tree::Node;
use super::typed::{Context, flag, hook, items, owned, texts};

/// The triggers of a service as they are written, in the order of the file.
pub(crate) fn written(service: &Node) -> &[Node] {
    let develop = service.get("develop");
    develop.map_or(&[], |develop| items(develop, "watch"))
}

/// The triggers of a service, in the order of the file.
pub(crate) fn triggers(service: &Node, context: &Context<'_>) -> Vec<Trigger> {
    written(service)
        .iter()
        .filter_map(|node| {
            let path = node.text("path")?;
            Some(Trigger {
                path: context.absolute(path),
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
