//! `!reset` and `!override`: which paths of earlier files a file removes.
//!
//! A reset value disappears from its own file; an override replaces what was there instead of
//! merging with it, so what was there goes as well (compose specification, 13-merge).

use super::tree::{Directive, Node, Value};

/// Key paths to remove from what is below a file.
pub(crate) type Paths = Vec<Vec<String>>;

/// Takes the reset values out of a tree and lists the paths of all resets and overrides.
pub(crate) fn take(node: &mut Node) -> Paths {
    let mut paths = Vec::new();
    walk(node, &mut Vec::new(), &mut paths);
    paths
}

fn walk(node: &mut Node, at: &mut Vec<String>, paths: &mut Paths) {
    match &mut node.value {
        Value::Map(map) => map.retain(|key, child| {
            at.push(key.clone());
            let keep = visit(child, at, paths);
            at.pop();
            keep
        }),
        Value::List(list) => {
            let mut index = 0usize;
            list.retain_mut(|child| {
                at.push(index.to_string());
                index += 1;
                let keep = visit(child, at, paths);
                at.pop();
                keep
            });
        }
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Large(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Date(_) => {}
    }
}

fn visit(child: &mut Node, at: &mut Vec<String>, paths: &mut Paths) -> bool {
    match child.directive {
        Directive::Reset => {
            paths.push(at.clone());
            false
        }
        Directive::Override => {
            paths.push(at.clone());
            child.directive = Directive::None;
            true
        }
        Directive::None => {
            walk(child, at, paths);
            true
        }
    }
}

/// Removes the paths from a tree that stands at `prefix`.
pub(crate) fn apply(node: &mut Node, prefix: &[&str], paths: &Paths) {
    for path in paths {
        let mut steps = path.iter().map(String::as_str);
        let below = prefix.iter().all(|step| steps.next() == Some(step));
        let rest: Vec<&str> = steps.collect();
        if below && !rest.is_empty() {
            remove(node, &rest);
        }
    }
}

fn remove(node: &mut Node, path: &[&str]) {
    let (Some(map), Some((first, rest))) = (node.as_map_mut(), path.split_first()) else {
        return;
    };
    if rest.is_empty() {
        map.remove(*first);
    } else if let Some(child) = map.get_mut(*first) {
        remove(child, rest);
    }
}
