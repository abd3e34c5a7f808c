//! How watching is brought to its end: what is under way is finished, and nothing more is begun.
//!
//! Files that are half copied would be worse than old ones, and an engine goes on with what it was asked for. A plan
//! that is being carried out hears of the interrupt by itself.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::execute::Halt;
use crate::ui::Ui;

/// Held by whoever watches; pulled at the first interrupt.
#[derive(Debug, Default)]
pub(in crate::cli) struct Reins {
    halt: Halt,
    /// What is being finished in any case.
    doing: Mutex<Option<String>>,
    /// Whether services are being started anew, which are not to be left stopped.
    renews: AtomicBool,
}

impl Reins {
    /// Nothing is begun from here on.
    pub(in crate::cli) fn pull(&self) {
        self.halt.now();
    }

    /// Watching may be begun again.
    pub(in crate::cli) fn slacken(&self) {
        self.halt.revoke();
    }

    /// Whether something would be left half done where watching alone ends, and services go on.
    pub(in crate::cli) fn renews(&self) -> bool {
        self.renews.load(Ordering::Relaxed) || self.is_busy()
    }

    /// Does what leaves services as they are to be only as a whole.
    pub(super) async fn wholly<T>(&self, work: impl Future<Output = T>) -> T {
        self.renews.store(true, Ordering::Relaxed);
        let result = work.await;
        self.renews.store(false, Ordering::Relaxed);
        result
    }

    /// Waits until they are pulled.
    pub(super) async fn pulled(&self) {
        self.halt.set().await;
    }

    /// Whether they were.
    pub(in crate::cli) fn is_pulled(&self) -> bool {
        self.halt.is_set()
    }

    /// Whether something is being finished.
    pub(in crate::cli) fn is_busy(&self) -> bool {
        self.doing().is_some()
    }

    /// Says what is being finished.
    pub(in crate::cli) fn tell(&self, ui: Ui) {
        if let Some(doing) = self.doing() {
            ui.status(format!(
                "interrupted: finishing {doing}; press Ctrl-C again to leave at once"
            ));
        }
    }

    /// Says what is left in the middle.
    pub(in crate::cli) fn tell_cut_off(&self, ui: Ui) {
        if let Some(doing) = self.doing() {
            ui.status(format!("interrupted: not finished: {doing}"));
        }
    }

    fn doing(&self) -> Option<String> {
        self.doing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, doing: Option<String>) {
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = doing;
    }

    /// Fails where nothing may be begun.
    ///
    /// # Errors
    /// They were pulled.
    pub(super) fn check(&self) -> Result<()> {
        if self.halt.is_set() {
            return Err(Error::interrupted());
        }
        Ok(())
    }

    /// Does what can be cut off.
    ///
    /// # Errors
    /// That of the work, or that it was cut off.
    pub(super) async fn unless_pulled<T>(
        &self,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        tokio::select! {
            biased;
            () = self.halt.set() => Err(Error::interrupted()),
            result = work => result,
        }
    }

    /// Does what is finished once it was begun.
    ///
    /// # Errors
    /// That of the work, or that it was not begun.
    pub(super) async fn finishing<T, E>(
        &self,
        what: String,
        work: impl Future<Output = std::result::Result<T, E>>,
    ) -> Result<T>
    where
        Error: From<E>,
    {
        self.check()?;
        self.set(Some(what));
        let result = work.await;
        self.set(None);
        Ok(result?)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;
    use crate::error::Kind;

    #[tokio::test]
    async fn what_was_begun_is_finished_and_nothing_more_is_begun() {
        let reins = Reins::default();
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        let mut work = std::pin::pin!(reins.finishing("the copies".to_owned(), async {
            receiver.await.map_err(Error::failed)
        }));
        assert!(futures_util::poll!(&mut work).is_pending());
        assert_eq!(reins.doing().as_deref(), Some("the copies"));
        reins.pull();
        assert!(futures_util::poll!(&mut work).is_pending());
        sender.send(()).unwrap();
        assert!(matches!(
            futures_util::poll!(&mut work),
            Poll::Ready(Ok(()))
        ));
        assert!(!reins.is_busy());
        let more = reins.finishing("more".to_owned(), async { Ok::<_, Error>(()) });
        assert_eq!(more.await.unwrap_err().kind, Kind::Interrupted);
    }

    #[tokio::test]
    async fn what_can_be_cut_off_is() {
        let reins = Reins::default();
        let mut work = std::pin::pin!(reins.unless_pulled(std::future::pending::<Result<()>>()));
        assert!(futures_util::poll!(&mut work).is_pending());
        reins.pull();
        assert!(matches!(
            futures_util::poll!(&mut work),
            Poll::Ready(Err(_))
        ));
    }
}
