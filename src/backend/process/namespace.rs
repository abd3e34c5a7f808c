//! A hosts file of a process's own: a mount namespace in which a private file lies over `/etc/hosts`
//! (`mount_namespaces(7)`), and where privileges are needed for that, a user namespace with only our own ids in
//! it (`user_namespaces(7)`). Entered between fork and exec, so nothing here may allocate or lock once
//! [`Hosts`] is made.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};
use rustix::fs::{Mode, OFlags};

/// What programs read names from.
const HOSTS: &str = "/etc/hosts";

/// Which sources of names there are, in which order (`nsswitch.conf(5)`).
const SWITCH: &str = "/etc/nsswitch.conf";

/// Where a name service cache daemon is asked, which knows the machine's hosts file and not ours.
const CACHES: [&str; 2] = ["/run/nscd", "/var/run/nscd"];

/// How long what was found on the machine counts: services that start together need it looked up once.
const RECENT: Duration = Duration::from_secs(1);

/// What the machine has of all this.
#[derive(Debug)]
struct Machine {
    hosts: CString,
    /// What `nsswitch.conf` is to say, where it says something else, and where that is.
    switch: Option<(String, CString)>,
    /// Directories of caches.
    hidden: Vec<CString>,
}

impl Machine {
    fn now() -> io::Result<Arc<Self>> {
        static LAST: Mutex<Option<(Instant, Arc<Machine>)>> = Mutex::new(None);
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, machine)) = &*last
            && at.elapsed() < RECENT
        {
            return Ok(Arc::clone(machine));
        }
        let machine = Arc::new(Self::look()?);
        *last = Some((Instant::now(), Arc::clone(&machine)));
        Ok(machine)
    }

    fn look() -> io::Result<Self> {
        let switch = fs::read_to_string(SWITCH).ok();
        let switch = switch
            .and_then(|text| files_first(&text))
            .map(|changed| Ok::<_, io::Error>((changed, c_path(&fs::canonicalize(SWITCH)?)?)))
            .transpose()?;
        let caches = CACHES.iter().filter_map(|path| fs::canonicalize(path).ok());
        let mut hidden: Vec<PathBuf> = caches.collect();
        hidden.dedup();
        Ok(Self {
            // A link leads to what the mount would otherwise replace.
            hosts: c_path(&fs::canonicalize(HOSTS)?)?,
            switch,
            hidden: hidden
                .iter()
                .map(|path| c_path(path))
                .collect::<io::Result<_>>()?,
        })
    }
}

/// What is entered.
#[derive(Clone, Debug)]
pub struct Hosts {
    /// What lies over what.
    over: Vec<(CString, CString)>,
    /// Directories that are to be empty.
    hidden: Vec<CString>,
    /// Our ids, as `uid_map` and `gid_map` take them; `None`: we may mount as we are.
    ids: Option<(Vec<u8>, Vec<u8>)>,
}

impl Hosts {
    /// With this file over `/etc/hosts`. What stands in `nsswitch.conf` is put beside it where other sources
    /// would be asked first.
    ///
    /// # Errors
    /// No `/etc/hosts`, or a file that cannot be written.
    pub fn new(file: &Path) -> io::Result<Self> {
        let machine = Machine::now()?;
        let mut over = vec![(c_path(file)?, machine.hosts.clone())];
        if let Some((changed, switch)) = &machine.switch {
            let beside = file.with_extension("nsswitch");
            fs::write(&beside, changed)?;
            over.push((c_path(&beside)?, switch.clone()));
        }
        let ids = (!geteuid().is_root()).then(|| {
            let (uid, gid) = (geteuid(), getegid());
            (
                format!("{uid} {uid} 1").into_bytes(),
                format!("{gid} {gid} 1").into_bytes(),
            )
        });
        Ok(Self {
            over,
            hidden: machine.hidden.clone(),
            ids,
        })
    }

    /// Enters the namespaces. Only system calls that are safe between fork and exec (signal-safety(7)).
    pub(super) fn enter(&self) -> io::Result<()> {
        match &self.ids {
            None => unshare(CloneFlags::CLONE_NEWNS)?,
            Some((uids, gids)) => {
                unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
                // Before a group may be mapped without privileges (user_namespaces(7), "Interaction with
                // system calls that change groups").
                put(c"/proc/self/setgroups", b"deny")?;
                put(c"/proc/self/uid_map", uids)?;
                put(c"/proc/self/gid_map", gids)?;
            }
        }
        let none: Option<&CStr> = None;
        // What is mounted outside later is seen, what is mounted here stays here.
        let slave = MsFlags::MS_REC | MsFlags::MS_SLAVE;
        mount(none, c"/", none, slave, none)?;
        for (source, target) in &self.over {
            mount(
                Some(source.as_c_str()),
                target.as_c_str(),
                none,
                MsFlags::MS_BIND,
                none,
            )?;
        }
        for path in &self.hidden {
            mount(
                Some(c"tmpfs"),
                path.as_c_str(),
                Some(c"tmpfs"),
                MsFlags::MS_RDONLY,
                none,
            )?;
        }
        Ok(())
    }
}

fn put(path: &CStr, text: &[u8]) -> io::Result<()> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, text)?;
    Ok(())
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|error| io::Error::other(error.to_string()))
}

/// `nsswitch.conf` with `files` as the first source of hosts; `None` where it is already.
fn files_first(text: &str) -> Option<String> {
    let mut changed = false;
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            let Some(sources) = line.trim_start().strip_prefix("hosts:") else {
                return line.to_owned();
            };
            if sources.split_whitespace().next() == Some("files") {
                return line.to_owned();
            }
            changed = true;
            let others = sources.split_whitespace().filter(|word| *word != "files");
            let others: Vec<&str> = others.collect();
            format!("hosts: files {}", others.join(" "))
        })
        .collect();
    changed.then(|| lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_asked_first() {
        assert_eq!(files_first("passwd: files\nhosts:  files dns\n"), None);
        assert_eq!(files_first("passwd: files\n"), None);
        let arch = "# x\nhosts: mymachines resolve [!UNAVAIL=return] files myhostname dns\n";
        assert_eq!(
            files_first(arch).as_deref(),
            Some("# x\nhosts: files mymachines resolve [!UNAVAIL=return] myhostname dns\n")
        );
    }
}
