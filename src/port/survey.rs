//! Which sockets keep claims from being had: asked for port by port, or, where many are asked about, found in
//! one list. Names nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use crate::port::claim::{Claim, Protocol};
use crate::port::owner::Depth;
use crate::port::sockets::{self, Bound};
use crate::port::{PortError, free};

/// How often, and after which pause, a port is looked at again that cannot be had although nobody listens, or
/// that is only bound: another command may try it out just now, which takes microseconds.
const LOOKS: usize = 5;
const PAUSE: Duration = Duration::from_millis(5);

/// With more claims than this, one list of all sockets costs less than a question for each.
const MANY: usize = 32;

/// The sockets of this machine, as far as they were listed beforehand.
pub(super) struct Survey {
    listed: BTreeMap<Protocol, BTreeMap<u16, Vec<Bound>>>,
}

impl Survey {
    pub(super) fn of(claims: &[Claim]) -> Result<Self, PortError> {
        let mut listed = BTreeMap::new();
        if claims.len() > MANY {
            let protocols: BTreeSet<Protocol> = claims.iter().map(|claim| claim.protocol).collect();
            for protocol in protocols {
                let mut by_port: BTreeMap<u16, Vec<Bound>> = BTreeMap::new();
                for bound in sockets::everything(protocol)? {
                    let port = bound.socket.address.port();
                    by_port.entry(port).or_default().push(bound);
                }
                listed.insert(protocol, by_port);
            }
        }
        Ok(Self { listed })
    }

    /// The sockets that keep a claim from being had; `None` where it is free.
    pub(super) fn blockers(
        &self,
        claim: &Claim,
        depth: Depth,
    ) -> Result<Option<Vec<Bound>>, PortError> {
        for look in 1.. {
            // Beside a listener another address may be bound.
            let found = if depth == Depth::Bound && self.may_be_bound(claim) {
                lastingly_bound(claim)?
            } else {
                self.listening(claim)?
            };
            if !found.is_empty() {
                let is_wanted = depth == Depth::Everybody && self.may_be_bound(claim);
                return Ok(Some(if is_wanted {
                    with_exclusive(claim, &found)?
                } else {
                    found
                }));
            }
            // A socket that is bound and does not listen blocks only those who do not both set SO_REUSEADDR.
            if free::is_free(claim)? {
                break;
            }
            if look == LOOKS {
                return sockets::blocking(claim).map(Some);
            }
            thread::sleep(PAUSE);
        }
        Ok(None)
    }

    /// Those that listen where the claims want to, as far as that is asked port by port.
    pub(super) fn listening_on(&self, claims: &[Claim]) -> Result<Vec<Bound>, PortError> {
        if !self.listed.is_empty() {
            return Ok(Vec::new());
        }
        let found = claims.iter().map(sockets::listening);
        Ok(found.collect::<Result<Vec<_>, _>>()?.concat())
    }

    fn listening(&self, claim: &Claim) -> Result<Vec<Bound>, PortError> {
        let Some(by_port) = self.listed.get(&claim.protocol) else {
            return sockets::listening(claim);
        };
        let found = by_port.get(&claim.port).cloned().unwrap_or_default();
        let mut found = sockets::excluding(claim, found);
        found.retain(|bound| bound.socket.listening);
        Ok(found)
    }

    /// Whether it is worth asking whether the port is bound.
    fn may_be_bound(&self, claim: &Claim) -> bool {
        claim.protocol == Protocol::Tcp
            && self
                .listed
                .get(&claim.protocol)
                .is_none_or(|by_port| by_port.contains_key(&claim.port))
    }
}

/// Those that listen, and those that are only bound, on other addresses, and exclude a server there, too. Whether one
/// does is asked of the kernel: it lists no options. A bound socket on the address of a listener excludes nobody, or
/// that would not listen there.
fn with_exclusive(claim: &Claim, listening: &[Bound]) -> Result<Vec<Bound>, PortError> {
    let mut all = listening.to_vec();
    for bound in lastingly_bound(claim)? {
        let alone = Claim {
            addresses: vec![bound.socket.address.ip()],
            ..claim.clone()
        };
        let is_beside = listening
            .iter()
            .all(|other| !alone.conflicts_with(other.socket.address.ip(), other.socket.only_v6));
        if !bound.socket.listening && is_beside && !free::is_free(&alone)? {
            all.push(bound);
        }
    }
    Ok(all)
}

/// The sockets that listen, and those that are bound and still there at a second look.
fn lastingly_bound(claim: &Claim) -> Result<Vec<Bound>, PortError> {
    let first = sockets::there(claim)?;
    if first.iter().all(|bound| bound.socket.listening) {
        return Ok(first);
    }
    thread::sleep(PAUSE);
    let mut second = sockets::there(claim)?;
    second.retain(|bound| {
        let inode = bound.socket.inode;
        bound.socket.listening || first.iter().any(|before| before.socket.inode == inode)
    });
    Ok(second)
}
