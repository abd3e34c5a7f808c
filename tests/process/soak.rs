//! Three services through a few hundred random steps: started, stopped, killed, with their supervisor, their
//! keepers and the commands themselves killed on the way. After each step the system is asked whether any
//! service runs twice, and at the end the log whether anything was lost or said twice.
//!
//! `WHARF_SOAK_SEED` repeats the steps of a seed, which is printed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wharf::backend::process::cgroup::View;
use wharf::backend::process::run::Stat;
use wharf::backend::{Backend, LogOptions};
use wharf::event::Stream;
use wharf::project::model::{Logging, Restart, RestartPacing, Service};
use wharf::state::{Instance, Status};

use crate::stage::{PROJECT, Stage, shell};

const SERVICES: [&str; 3] = ["a", "b", "c"];
const STEPS: usize = 300;
/// Looks at the system until a step must have come to its end.
const LOOKS: usize = 500;

/// Numbers its lines, and counts in a file of its run those that it has surely written.
const TALKER: &str = "i=0; while :; do echo \"$WHARF_RUN_ID $i\"; echo \"$WHARF_RUN_ID $i\" >&2; \
    i=$((i+1)); echo $i > count.$WHARF_RUN_ID; [ $((i % 40)) = 0 ] && sleep 0.01; done";

/// Marsaglia's xorshift: the same steps for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap_or_default()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "whoever repeats a run says its seed"
)]
fn seed() -> u64 {
    let asked = std::env::var("WHARF_SOAK_SEED").ok();
    let asked = asked.and_then(|text| text.parse().ok());
    asked.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        u64::from(now.unwrap_or_default().subsec_nanos()) | 1
    })
}

fn talker(name: &str) -> Service {
    let mut service = shell(name, TALKER);
    service.restart = Restart::Always;
    service.restart_pacing = RestartPacing {
        delay: Some(Duration::from_millis(20)),
        ..RestartPacing::default()
    };
    service.stop_grace_period = Some(Duration::from_millis(200));
    if name == "b" {
        service.logging = Some(Logging {
            driver: None,
            options: BTreeMap::from([
                ("max-size".to_owned(), "64k".to_owned()),
                ("max-file".to_owned(), "100000".to_owned()),
            ]),
        });
    }
    service
}

#[tokio::test]
async fn nothing_runs_twice_and_nothing_is_lost_whatever_is_killed() {
    let seed = seed();
    eprintln!("WHARF_SOAK_SEED={seed}");
    let mut chance = Chance(seed);
    let mut stage = Stage::new();
    // What is known of each service: meant to run or not; unknown after a command that was given up.
    let mut wanted: BTreeMap<&str, Option<bool>> = BTreeMap::new();
    for name in SERVICES {
        stage.up(talker(name)).await.unwrap();
        wanted.insert(name, Some(true));
    }
    for step in 0..STEPS {
        let name = SERVICES[chance.below(SERVICES.len())];
        let what = chance.below(9);
        let at = format!("seed {seed}, step {step}: {what} on {name}");
        match what {
            0 => stage.kill_whoever_supervises(),
            1 => kill_keeper(&stage, name),
            2 => {
                kill_keeper(&stage, name);
                stage.kill_whoever_supervises();
            }
            3 | 4 => kill_main(&stage, name),
            5 => {
                stage.stop(name, None).await.expect(&at);
                wanted.insert(name, Some(false));
            }
            6 => {
                stage.start(name).await.expect(&at);
                wanted.insert(name, Some(true));
            }
            7 => {
                // The command is killed in the middle of what it does.
                let moment = Duration::from_micros(chance.below(4000) as u64);
                drop(tokio::time::timeout(moment, stage.stop(name, None)).await);
                wanted.insert(name, None);
            }
            _ => {
                let moment = Duration::from_micros(chance.below(4000) as u64);
                drop(tokio::time::timeout(moment, stage.start(name)).await);
                wanted.insert(name, None);
            }
        }
        check(&stage, &wanted, &at).await;
    }
    for name in SERVICES {
        stage.stop(name, None).await.unwrap();
    }
    assert_eq!(stage.started(), Vec::<u32>::new(), "seed {seed}");
    let place = View::new().find(&BTreeSet::new());
    for name in SERVICES {
        let written = said(&mut stage, name).await;
        assert!(!written.is_empty(), "seed {seed}: {name}");
        for ((run, stream), numbers) in written {
            if let Some(place) = &place {
                let group = place.dir.join(format!("wharf-{run}"));
                assert!(!group.exists(), "seed {seed}: {name}, {}", group.display());
            }
            let count = stage.root.path().join(format!("count.{run}"));
            let least = std::fs::read_to_string(count).unwrap_or_default();
            let least: usize = least.trim().parse().unwrap_or_default();
            let whole: Vec<usize> = (0..numbers.len()).collect();
            assert_eq!(numbers, whole, "seed {seed}: {name}, {stream:?} of {run}");
            assert!(
                numbers.len() >= least,
                "seed {seed}: {name}, {stream:?} of {run}: {} of {least} lines",
                numbers.len()
            );
        }
    }
}

fn kill_keeper(stage: &Stage, name: &str) {
    if let Some(keeper) = stage.record(name).keeper() {
        let sent = keeper.signal(rustix::process::Signal::KILL);
        assert!(sent.is_ok(), "{sent:?}");
    }
}

fn kill_main(stage: &Stage, name: &str) {
    if let Some(main) = stage.record(name).process() {
        let sent = main.signal(rustix::process::Signal::KILL);
        assert!(sent.is_ok(), "{sent:?}");
    }
}

/// At most one main process each, and the state that the last finished command asked for.
async fn check(stage: &Stage, wanted: &BTreeMap<&str, Option<bool>>, at: &str) {
    // That a main process was killed is known a moment after it has gone.
    for look in 1.. {
        let wrong = wrong(stage, wanted).await;
        if wrong.is_empty() {
            return;
        }
        assert!(look < LOOKS, "{at}: {wrong:?}");
        assert!(
            !wrong.iter().any(|what| what.contains(" as ")),
            "{at}: {wrong:?}"
        );
        tokio::task::yield_now().await;
    }
}

async fn wrong(stage: &Stage, wanted: &BTreeMap<&str, Option<bool>>) -> Vec<String> {
    let instances = stage.another().observe(PROJECT).await;
    let instances = instances.expect("a ledger that can be read");
    let mut mains: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for pid in stage.started() {
        // Its children have its session.
        if Stat::read(pid).is_some_and(|stat| stat.session == pid && !stat.dead)
            && let Some(service) = service_of(pid)
        {
            mains.entry(service).or_default().push(pid);
        }
    }
    let mut wrong = Vec::new();
    for Instance {
        service, status, ..
    } in &instances
    {
        let of = mains.remove(service).unwrap_or_default();
        if of.len() > 1 {
            wrong.push(format!("{service} runs as {of:?}"));
        }
        let is_right = match wanted[service.as_str()] {
            Some(true) => matches!(status, Status::Running | Status::Restarting),
            Some(false) => !status.is_alive() && of.is_empty(),
            None => true,
        };
        if !is_right {
            wrong.push(format!("{service} is {status:?}, with {of:?}"));
        }
    }
    wrong.extend(mains.keys().map(|service| format!("{service} is unknown")));
    wrong
}

fn service_of(pid: u32) -> Option<String> {
    let text = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    text.split(|byte| *byte == 0).find_map(|entry| {
        let name = entry.strip_prefix(b"WHARF_SERVICE=")?;
        Some(String::from_utf8_lossy(name).into_owned())
    })
}

/// The numbers that each run of a service has said on each stream, in their order.
async fn said(stage: &mut Stage, name: &str) -> BTreeMap<(String, String), Vec<usize>> {
    stage.heard();
    let mut all: BTreeMap<(String, String), Vec<usize>> = BTreeMap::new();
    for (stream, line) in stage.lines(name, LogOptions::default()).await {
        // A line may break off where its process was killed.
        let Some((run, number)) = line.split_once(' ') else {
            continue;
        };
        let stream = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        let of = all.entry((run.to_owned(), stream.to_owned())).or_default();
        of.push(number.parse().expect("a number"));
    }
    all
}
