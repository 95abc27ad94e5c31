//! Tasks that end with their owner.

use tokio::task::AbortHandle;

/// A task of this thread, ended when this is dropped.
#[derive(Debug)]
pub struct Bound(AbortHandle);

impl Bound {
    /// Starts one.
    pub fn spawn(task: impl Future<Output = ()> + 'static) -> Self {
        Self(tokio::task::spawn_local(task).abort_handle())
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.0.abort();
    }
}
