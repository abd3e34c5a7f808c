//! Systems without pidfds: no process can be taken hold of, so none is ever signalled.

use std::time::Duration;

use rustix::io::Errno;
use rustix::process::Signal;

/// Never made.
pub(in crate::port) enum Handle {}

impl Handle {
    pub(in crate::port) fn open(_pid: u32) -> Option<Self> {
        None
    }

    pub(in crate::port) fn is_available() -> bool {
        false
    }

    pub(in crate::port) fn signal(&self, _signal: Signal) -> Result<(), Errno> {
        match *self {}
    }

    pub(in crate::port) fn wait(_handles: &[&Self], _patience: Duration) -> Vec<bool> {
        Vec::new()
    }
}
