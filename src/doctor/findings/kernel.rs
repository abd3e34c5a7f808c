//! The kernel's side: cgroups, ptrace, ports of outgoing connections, inotify, what it tells about sockets.

use crate::doctor::Finding;
use crate::doctor::facts::{Cgroups, Layout, Machine};

/// What watching a few source trees needs; the default of kernels before 5.11 is below it.
const WATCHES: u64 = 65_536;

/// Every watching program takes one or two.
const INSTANCES: u64 = 128;

pub(super) fn findings(machine: &Machine) -> Vec<Finding> {
    vec![
        cgroups(machine.cgroups.as_ref(), machine.uid),
        ptrace(machine),
        outgoing_ports(machine),
        inotify(machine),
        holders(machine),
        bound(machine),
    ]
}

fn cgroups(found: Option<&Cgroups>, uid: u32) -> Finding {
    const CHECK: &str = "cgroups";
    const V2: &str = "sudo sed -i 's/^GRUB_CMDLINE_LINUX=\"/&systemd.unified_cgroup_hierarchy=1 /' \
                      /etc/default/grub && sudo update-grub   # then reboot";
    // It can be set in a file alone: `systemctl set-property` refuses it.
    const DELEGATE: &str = "sudo mkdir -p /etc/systemd/system/user@.service.d && printf '[Service]\\nDelegate=yes\\n' | \
                            sudo tee /etc/systemd/system/user@.service.d/delegate.conf   # then reboot";
    let Some(found) = found else {
        return Finding::reduced(
            CHECK,
            "they could not be looked at",
            "mount -t cgroup2 && cat /proc/self/cgroup",
        );
    };
    let controllers = if found.controllers.is_empty() {
        "no controllers".to_owned()
    } else {
        found.controllers.join(" ")
    };
    match (found.layout, &found.delegated) {
        (Layout::None, _) => Finding::reduced(
            CHECK,
            "none are mounted: local services cannot be limited",
            "sudo mount -t cgroup2 none /sys/fs/cgroup",
        ),
        (Layout::V1, _) => Finding::reduced(
            CHECK,
            "version 1: none can be delegated, so local services cannot be limited, and holders of ports are \
             found by their files alone",
            V2,
        ),
        (Layout::Hybrid, _) => Finding::reduced(
            CHECK,
            "hybrid: the controllers are in version 1, so local services cannot be limited",
            V2,
        ),
        (Layout::V2, None) => Finding::reduced(
            CHECK,
            format!(
                "version 2, and no part of it is delegated to user {uid} (we are in {}): local services cannot \
                 be limited",
                found.own
            ),
            if uid == 0 {
                "systemd-run --scope --property=Delegate=yes wharf up"
            } else {
                "systemd-run --user --scope --property=Delegate=yes wharf up"
            },
        ),
        (Layout::V2, Some(cgroup)) if !found.controllers.iter().any(|name| name == "memory") => {
            Finding::reduced(
                CHECK,
                format!(
                    "version 2, {cgroup} is delegated, with {controllers}: memory cannot be limited"
                ),
                DELEGATE,
            )
        }
        (Layout::V2, Some(cgroup)) => Finding::ok(
            CHECK,
            format!("version 2, {cgroup} is delegated, with {controllers}"),
        ),
    }
}

fn ptrace(machine: &Machine) -> Finding {
    const CHECK: &str = "ptrace";
    const ALLOW: &str = "sudo sysctl -w kernel.yama.ptrace_scope=0";
    let scope = machine.settings.ptrace_scope;
    match scope {
        _ if machine.uid == 0 && scope != Some(3) => {
            Finding::ok(CHECK, "a debugger of root attaches to every local service")
        }
        None => Finding::ok(CHECK, "no Yama: debuggers attach to local services"),
        Some(0) => Finding::ok(CHECK, "Yama scope 0: debuggers attach to local services"),
        Some(1) => Finding::reduced(
            CHECK,
            "Yama scope 1: a debugger attaches to what it has started itself, not to a service that runs",
            ALLOW,
        ),
        Some(2) => Finding::reduced(CHECK, "Yama scope 2: only root's debuggers attach", ALLOW),
        Some(_) => Finding::reduced(
            CHECK,
            "Yama scope 3: nothing attaches until the next boot",
            "sudo sed -i '/ptrace_scope/d' /etc/sysctl.d/*.conf   # then reboot",
        ),
    }
}

fn outgoing_ports(machine: &Machine) -> Finding {
    const CHECK: &str = "ports of outgoing connections";
    match machine.settings.port_range {
        None => Finding::reduced(
            CHECK,
            "the kernel does not tell which they are",
            "sysctl net.ipv4.ip_local_port_range",
        ),
        Some((first, last)) => {
            let reserved = &machine.settings.reserved_ports;
            let except = if reserved.is_empty() {
                String::new()
            } else {
                format!(" except {reserved}")
            };
            Finding::ok(
                CHECK,
                format!(
                    "{first} to {last}{except}: a port that a service publishes is safe outside of these"
                ),
            )
        }
    }
}

fn inotify(machine: &Machine) -> Finding {
    const CHECK: &str = "inotify";
    let (Some(watches), Some(instances)) = (
        machine.settings.inotify_watches,
        machine.settings.inotify_instances,
    ) else {
        return Finding::reduced(
            CHECK,
            "the kernel has none, or does not tell: `watch` may see no changes",
            "sysctl fs.inotify",
        );
    };
    let words = format!("{watches} directories, {instances} watching programs");
    let mut raised = Vec::new();
    if watches < WATCHES {
        raised.push("fs.inotify.max_user_watches=524288");
    }
    if instances < INSTANCES {
        raised.push("fs.inotify.max_user_instances=512");
    }
    if raised.is_empty() {
        return Finding::ok(CHECK, words);
    }
    Finding::reduced(
        CHECK,
        format!("{words}: `watch` fails where a source tree has more, or an editor has taken them"),
        format!("sudo sysctl -w {}", raised.join(" ")),
    )
}

fn holders(machine: &Machine) -> Finding {
    const CHECK: &str = "holders of ports";
    match &machine.sockets {
        Some(Ok(sockets)) => match &sockets.sock_diag {
            Ok(()) => Finding::ok(CHECK, "asked of the kernel by sock_diag"),
            Err(why) => Finding::reduced(
                CHECK,
                format!("read from /proc/net, because sock_diag does not answer ({why}): slower"),
                "sudo modprobe -a tcp_diag udp_diag",
            ),
        },
        Some(Err(why)) => Finding::missing(
            CHECK,
            format!("no socket can be bound on loopback ({why}), so ports cannot be tried"),
            "sudo ip link set lo up",
        ),
        None => Finding::reduced(
            CHECK,
            "the kernel did not answer within two seconds",
            "ss --listening --tcp",
        ),
    }
}

fn bound(machine: &Machine) -> Finding {
    const CHECK: &str = "bound ports that do not listen";
    let visible = machine
        .sockets
        .as_ref()
        .is_some_and(|sockets| sockets.as_ref().is_ok_and(|sockets| sockets.bound));
    if visible {
        return Finding::ok(CHECK, "their holders are named");
    }
    Finding::reduced(
        CHECK,
        format!(
            "seen, but their holders are not named: Linux 6.8 or newer lists them, this is {}",
            if machine.kernel.is_empty() {
                "an unknown one"
            } else {
                &machine.kernel
            }
        ),
        "uname -r   # update the kernel",
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fit, only};
    use super::*;
    use crate::doctor::State;
    use crate::port::sockets::abilities::Abilities;

    fn found(layout: Layout, delegated: Option<&str>, controllers: &[&str]) -> Finding {
        let mut machine = fit();
        machine.cgroups = Some(Cgroups {
            layout,
            own: "/user.slice".to_owned(),
            delegated: delegated.map(str::to_owned),
            controllers: controllers.iter().map(|name| (*name).to_owned()).collect(),
        });
        only(&machine, "cgroups")
    }

    #[test]
    fn cgroups_of_every_kind() {
        let old = found(Layout::V1, None, &[]);
        assert!(old.detail.starts_with("version 1"), "{old:?}");
        assert!(
            found(Layout::Hybrid, None, &[])
                .detail
                .starts_with("hybrid")
        );
        let closed = found(Layout::V2, None, &["cpu"]);
        assert_eq!(closed.state, State::Reduced);
        assert!(
            closed
                .hint
                .unwrap()
                .starts_with("systemd-run --user --scope")
        );
        let without = found(Layout::V2, Some("/u"), &["pids"]);
        assert!(
            without.detail.contains("memory cannot be limited"),
            "{without:?}"
        );
        assert_eq!(found(Layout::V2, Some("/u"), &["memory"]).state, State::Ok);
        assert_eq!(found(Layout::None, None, &[]).state, State::Reduced);
    }

    #[test]
    fn debuggers_attach_by_yamas_leave() {
        let scope = |scope, uid| {
            let mut machine = fit();
            machine.settings.ptrace_scope = scope;
            machine.uid = uid;
            only(&machine, "ptrace").state
        };
        assert_eq!(scope(None, 1000), State::Ok);
        assert_eq!(scope(Some(1), 1000), State::Reduced);
        assert_eq!(scope(Some(1), 0), State::Ok);
        assert_eq!(scope(Some(3), 0), State::Reduced);
    }

    #[test]
    fn limits_of_inotify_are_raised_where_they_are_low() {
        let mut machine = fit();
        machine.settings.inotify_watches = Some(8192);
        let finding = only(&machine, "inotify");
        assert_eq!(
            finding.hint.as_deref(),
            Some("sudo sysctl -w fs.inotify.max_user_watches=524288")
        );
    }

    #[test]
    fn an_old_kernel_names_fewer_holders() {
        let mut machine = fit();
        "6.1.0-18".clone_into(&mut machine.kernel);
        machine.sockets = Some(Ok(Abilities {
            sock_diag: Err("Protocol not supported".to_owned()),
            bound: false,
        }));
        let holders = only(&machine, "holders of ports");
        assert_eq!(
            holders.hint.as_deref(),
            Some("sudo modprobe -a tcp_diag udp_diag")
        );
        let bound = only(&machine, "bound ports that do not listen");
        assert!(bound.detail.contains("6.1.0-18"), "{bound:?}");
    }
}
