//! Real files change, and the right paths are told.

use super::*;
use crate::project::model::{Reaction, Trigger};
use std::time::Duration;

fn rules(path: &Path) -> [Rule; 1] {
    let trigger = Trigger {
        path: path.to_owned(),
        reaction: Reaction::Restart,
        target: None,
        exec: None,
        include: Vec::new(),
        ignore: vec!["ignored".to_owned()],
        initial_sync: false,
    };
    [Rule::new("web", &trigger, &[]).unwrap()]
}

/// Collects changes until all of these are among them.
async fn until(files: &mut Files, rules: &[Rule], wanted: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut seen = BTreeSet::new();
    let all = async {
        while !wanted.iter().all(|path| seen.contains(path)) {
            files.queue().ready().await;
            seen.extend(files.changed(rules).unwrap().into_keys());
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all)
        .await
        .unwrap_or_else(|_| panic!("{wanted:?} were not told"));
    seen
}

#[tokio::test]
async fn new_directories_moves_and_bursts_are_seen() {
    let root = tempfile::tempdir().unwrap();
    let src = root.path().join("src");
    fs::create_dir_all(src.join("ignored")).unwrap();
    fs::create_dir_all(src.join(".git")).unwrap();
    let rules = rules(&src);
    let mut files = Files::watch(&rules, Sources::default()).unwrap();
    assert_eq!(files.directories(), 2, "the path and the one above it");

    // A burst in directories that did not exist.
    let burst: Vec<PathBuf> = (0..1000)
        .map(|n| src.join(format!("d{}/e/f{n}", n % 10)))
        .collect();
    for path in &burst {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }
    fs::write(src.join("ignored/x"), "x").unwrap();
    let seen = until(&mut files, &rules, &burst).await;
    assert!(
        !seen
            .iter()
            .any(|path| path.starts_with(src.join("ignored")))
    );

    // Saved by renaming; deleted and made again.
    let file = src.join("d1/e/f1");
    fs::write(src.join("d1/e/f1.new"), "y").unwrap();
    fs::rename(src.join("d1/e/f1.new"), &file).unwrap();
    until(&mut files, &rules, std::slice::from_ref(&file)).await;
    fs::remove_file(&file).unwrap();
    until(&mut files, &rules, std::slice::from_ref(&file)).await;
    fs::write(&file, "z").unwrap();
    until(&mut files, &rules, std::slice::from_ref(&file)).await;

    // A directory that was moved is watched by its new name.
    fs::rename(src.join("d1"), src.join("moved")).unwrap();
    let inside = src.join("moved/e/f1");
    until(&mut files, &rules, &[src.join("d1"), inside.clone()]).await;
    fs::write(&inside, "again").unwrap();
    let seen = until(&mut files, &rules, &[inside]).await;
    assert!(!seen.iter().any(|path| path.starts_with(src.join("d1"))));
}

#[tokio::test]
async fn the_path_itself_comes_and_goes() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("later/config.toml");
    let rules = rules(&path);
    let mut files = Files::watch(&rules, Sources::default()).unwrap();
    for _ in 0..2 {
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(&path, "x").unwrap();
        until(&mut files, &rules, std::slice::from_ref(&path)).await;
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
        until(&mut files, &rules, std::slice::from_ref(&path)).await;
    }
}
/// Writes through a mapping, which no event but the close tells.
fn write_mapped(path: &Path) {
    let script = "import mmap,sys\nf=open(sys.argv[1],'r+b')\nm=mmap.mmap(f.fileno(),0)\nm[0:1]=b'M'\nm.close()\nf.close()";
    let ended = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(path)
        .status()
        .unwrap();
    assert!(ended.success());
}

#[tokio::test]
async fn a_file_that_is_only_opened_for_writing_has_not_changed() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a");
    fs::write(&path, "one").unwrap();
    // Stamps are ticks of a clock: what was written before lies before.
    let written = fs::metadata(&path).unwrap().modified().unwrap();
    while written.elapsed().unwrap() < 2 * crate::watch::stamps::TICK {
        std::thread::yield_now();
    }
    let rules = rules(root.path());
    let mut files = Files::watch(&rules, Sources::default()).unwrap();
    let mut of = |change: &dyn Fn()| {
        change();
        files.changed(&rules).unwrap().contains_key(&path)
    };
    let open = || fs::OpenOptions::new().append(true).open(&path).unwrap();
    let opened = || drop(open());
    assert!(!of(&opened), "never told of before");
    assert!(!of(&opened));
    assert!(of(&|| drop(fs::File::create(&path).unwrap())), "cut off");
    assert!(!of(&opened), "as told");
    assert!(of(&|| fs::write(&path, "two").unwrap()));
    assert!(!of(&opened), "as told");
    assert!(of(&|| write_mapped(&path)), "through a mapping");
    assert!(!of(&opened));
    assert!(of(&|| open().set_len(1).unwrap()));
    let new = root.path().join("new");
    fs::write(&new, "x").unwrap();
    assert!(of(&|| fs::rename(&new, &path).unwrap()), "renamed over");
    assert!(!of(&opened));
    assert!(of(&|| fs::set_permissions(
        &path,
        std::os::unix::fs::PermissionsExt::from_mode(0o600)
    )
    .unwrap()));
    assert!(of(&|| fs::remove_file(&path).unwrap()));
    assert!(of(&opened_new(&path)), "new and empty");
}

fn opened_new(path: &Path) -> impl Fn() {
    move || drop(fs::File::create_new(path).unwrap())
}

#[tokio::test]
async fn what_is_written_through_a_mapping_first_is_seen() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a");
    fs::write(&path, "one").unwrap();
    let rules = rules(root.path());
    let mut files = Files::watch(&rules, Sources::default()).unwrap();
    write_mapped(&path);
    assert!(files.changed(&rules).unwrap().contains_key(&path));
}
/// Whether a change is told as one of a path.
fn tells(files: &mut Files, rules: &[Rule], path: &Path, change: impl FnOnce()) -> bool {
    change();
    files.changed(rules).unwrap().contains_key(path)
}

#[tokio::test]
async fn a_link_is_followed_wherever_it_leads() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let point = |to: &str| {
        std::os::unix::fs::symlink(to, at("new")).unwrap();
        fs::rename(at("new"), at("current")).unwrap();
    };
    for release in ["rel/1", "rel/2/sub"] {
        fs::create_dir_all(at(release)).unwrap();
        fs::write(at(release).join("f"), "x").unwrap();
    }
    point("rel/1");
    let path = at("current");
    let inside = path.join("f");
    let rules = rules(&path);
    let mut files = Files::watch(&rules, Sources::default()).unwrap();
    let write = |name: &str| fs::write(at(name), "y").unwrap();
    assert!(tells(&mut files, &rules, &inside, || write("current/f")));
    assert!(tells(&mut files, &rules, &path, || point("rel/2")));
    assert!(tells(&mut files, &rules, &inside, || write("current/f")));
    let deep = path.join("sub/f");
    assert!(tells(&mut files, &rules, &deep, || write("rel/2/sub/f")));
    assert!(!tells(&mut files, &rules, &inside, || write("rel/1/f")));
    // It may lead to nothing for a while.
    assert!(tells(&mut files, &rules, &path, || point("rel/3")));
    let made = || {
        fs::create_dir(at("rel/3")).unwrap();
        write("rel/3/f");
    };
    assert!(tells(&mut files, &rules, &inside, made));
    assert!(tells(&mut files, &rules, &inside, || write("rel/3/f")));
    let replaced = || {
        fs::rename(at("rel/3"), at("rel/old")).unwrap();
        fs::rename(at("rel/1"), at("rel/3")).unwrap();
    };
    assert!(tells(&mut files, &rules, &path, replaced));
    assert!(tells(&mut files, &rules, &inside, || write("rel/3/f")));
    assert!(!tells(&mut files, &rules, &inside, || write("rel/old/f")));
    let removed = || fs::remove_file(&path).unwrap();
    assert!(tells(&mut files, &rules, &path, removed));
    assert!(tells(&mut files, &rules, &inside, || point("rel/2")));
    assert!(tells(&mut files, &rules, &inside, || write("rel/2/f")));
}

#[tokio::test]
async fn a_file_behind_a_link_is_seen_where_it_is_written() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    for directory in ["common", "app"] {
        fs::create_dir(at(directory)).unwrap();
    }
    fs::write(at("common/env"), "x").unwrap();
    std::os::unix::fs::symlink("../common/env", at("app/.env")).unwrap();
    let path = at("app/.env");
    let rules = rules(&path);
    let mut files = Files::watch(&rules, Sources::default()).unwrap();
    let write = |name: &str| fs::write(at(name), "y").unwrap();
    let opened = || drop(fs::OpenOptions::new().append(true).open(&path).unwrap());
    let mut told = |change: &dyn Fn()| tells(&mut files, &rules, &path, change);
    assert!(told(&|| write("app/.env")));
    assert!(told(&|| write("common/env")));
    assert!(!told(&|| write("common/other")));
    assert!(!told(&|| drop(
        fs::OpenOptions::new().append(true).open(&path)
    )));
    let saved = || {
        write("common/env.new");
        fs::rename(at("common/env.new"), at("common/env")).unwrap();
    };
    assert!(told(&saved));
    assert!(!told(&opened));
    assert!(told(&|| write("common/env")));
    assert!(!told(&|| drop(
        fs::OpenOptions::new().append(true).open(&path)
    )));
    assert!(told(&|| fs::remove_dir_all(at("common")).unwrap()));
    let again = || {
        fs::create_dir(at("common")).unwrap();
        write("common/env");
    };
    assert!(told(&again));
    assert!(told(&|| write("common/env")));
}

#[tokio::test]
async fn what_others_watch_has_not_changed_because_a_path_came() {
    let root = tempfile::tempdir().unwrap();
    let src = root.path().join("src");
    fs::create_dir(&src).unwrap();
    fs::write(src.join("a"), "x").unwrap();
    let mark = root.path().join("mark");
    let [of_src] = rules(&src);
    let [of_mark] = rules(&mark);
    let rules = [of_src, of_mark];
    let mut files = Files::watch(&rules, Sources::default()).unwrap();
    fs::write(&mark, "x").unwrap();
    let found = files.changed(&rules).unwrap();
    assert_eq!(found.into_keys().collect::<Vec<_>>(), [mark]);
}

#[tokio::test]
async fn the_directory_of_the_path_comes_and_goes() {
    let root = tempfile::tempdir().unwrap();
    let above = root.path().join("conf");
    let path = above.join("one.toml");
    fs::create_dir(&above).unwrap();
    fs::write(&path, "x").unwrap();
    let rules = rules(&path);
    let mut files = Files::watch(&rules, Sources::default()).unwrap();
    for _ in 0..2 {
        let removed = || fs::remove_dir_all(&above).unwrap();
        assert!(tells(&mut files, &rules, &path, removed));
        let made = || {
            fs::create_dir(&above).unwrap();
            fs::write(&path, "x").unwrap();
        };
        assert!(tells(&mut files, &rules, &path, made));
        let written = || fs::write(&path, "y").unwrap();
        assert!(tells(&mut files, &rules, &path, written));
    }
}
