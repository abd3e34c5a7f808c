//! The users and groups that this machine knows.
//!
//! Normally the C library is asked, with all the sources that the machine has configured (`nsswitch.conf(5)`). It
//! loads those as shared libraries, which ends a statically linked program that was made for other versions of
//! them: such a program reads `/etc/passwd` and `/etc/group` by itself and knows no other sources.

use std::ffi::CString;
use std::path::PathBuf;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

/// `passwd(5)`.
const USERS: &str = "/etc/passwd";

/// `group(5)`.
const GROUPS: &str = "/etc/group";

const IS_STATIC: bool = cfg!(target_feature = "crt-static");

/// The user with this id.
pub fn user_with_id(uid: Uid) -> Option<User> {
    if IS_STATIC {
        return users(&text(USERS)).find(|user| user.uid == uid);
    }
    User::from_uid(uid).ok().flatten()
}

/// The user with this name.
pub fn user_with_name(name: &str) -> Option<User> {
    if IS_STATIC {
        return users(&text(USERS)).find(|user| user.name == name);
    }
    User::from_name(name).ok().flatten()
}

/// The group with this id.
pub fn group_with_id(gid: Gid) -> Option<Group> {
    if IS_STATIC {
        return groups(&text(GROUPS)).find(|group| group.gid == gid);
    }
    Group::from_gid(gid).ok().flatten()
}

/// The group with this name.
pub fn group_with_name(name: &str) -> Option<Group> {
    if IS_STATIC {
        return groups(&text(GROUPS)).find(|group| group.name == name);
    }
    Group::from_name(name).ok().flatten()
}

/// All groups of a user whose own is `gid`, that one first.
pub fn groups_of(user: &User, gid: Gid) -> Vec<Gid> {
    if !IS_STATIC
        && let Ok(name) = CString::new(user.name.clone())
        && let Ok(found) = getgrouplist(&name, gid)
    {
        return found;
    }
    memberships(&text(GROUPS), &user.name, gid)
}

fn text(path: &str) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn memberships(text: &str, name: &str, gid: Gid) -> Vec<Gid> {
    let others = groups(text)
        .filter(|group| group.mem.iter().any(|member| member == name))
        .map(|group| group.gid)
        .filter(|other| *other != gid);
    std::iter::once(gid).chain(others).collect()
}

fn users(text: &str) -> impl Iterator<Item = User> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let mut next = || fields.next();
        Some(User {
            name: next().filter(|name| !name.is_empty())?.to_owned(),
            passwd: CString::new(next()?).ok()?,
            uid: Uid::from_raw(next()?.parse().ok()?),
            gid: Gid::from_raw(next()?.parse().ok()?),
            gecos: CString::new(next()?).ok()?,
            dir: PathBuf::from(next()?),
            shell: PathBuf::from(next().unwrap_or_default()),
        })
    })
}

fn groups(text: &str) -> impl Iterator<Item = Group> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let mut next = || fields.next();
        let members = |text: &str| {
            let names = text.split(',').filter(|name| !name.is_empty());
            names.map(str::to_owned).collect()
        };
        Some(Group {
            name: next().filter(|name| !name.is_empty())?.to_owned(),
            passwd: CString::new(next()?).ok()?,
            gid: Gid::from_raw(next()?.parse().ok()?),
            mem: next().map(members).unwrap_or_default(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_say_what_the_library_says() {
        let root = users(&text(USERS)).find(|user| user.uid.is_root()).unwrap();
        assert_eq!(Some(&root), User::from_uid(root.uid).unwrap().as_ref());
        let group = groups(&text(GROUPS)).next().unwrap();
        assert_eq!(Some(&group), Group::from_gid(group.gid).unwrap().as_ref());
    }

    #[test]
    fn lines_that_are_none_are_left_out() {
        let text = "# users\n+::::::\nann:x:1000:100:Ann,,,:/home/ann:/bin/sh\nbad:x:y:1::/:\n";
        let found: Vec<User> = users(text).collect();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].uid.as_raw(), found[0].gid.as_raw()), (1000, 100));
        assert_eq!(found[0].dir, PathBuf::from("/home/ann"));
    }

    #[test]
    fn a_user_has_its_own_group_once_and_those_that_list_it() {
        let text = "ann:x:100:ann\nwheel:x:10:bob,ann\nbob:x:101:\naudio:x:11:anna\n";
        let ids: Vec<u32> = memberships(text, "ann", Gid::from_raw(100))
            .into_iter()
            .map(Gid::as_raw)
            .collect();
        assert_eq!(ids, [100, 10]);
    }
}
