//! The upgrade window as the process has it: by command, by the configuration, by other replicas.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{Notify, watch},
    time,
};

use crate::{
    decisions::window::{self, Dates, Open, Order},
    edges::key_source::KeyShelf,
    words::clock::{Clock, UnixTime},
};

/// Between two looks at the clock: a window of the configuration opens by itself.
const LOOK: Duration = Duration::from_secs(1);

/// All windows.
#[derive(Debug)]
pub struct UpgradeWindows {
    listed: ArcSwap<Vec<Dates>>,
    order: Mutex<Option<Order>>,
    changed: watch::Sender<u64>,
}

impl UpgradeWindows {
    /// With those of the configuration.
    pub fn new(listed: Vec<Dates>) -> Self {
        Self {
            listed: ArcSwap::from_pointee(listed),
            order: Mutex::default(),
            changed: watch::Sender::default(),
        }
    }

    /// What is open now.
    pub fn open(&self, now: UnixTime) -> Option<Open> {
        window::open(&self.listed.load(), *self.order_of(), now)
    }

    /// Those of the configuration.
    pub fn listed(&self) -> Arc<Vec<Dates>> {
        self.listed.load_full()
    }

    /// The configuration has other ones.
    pub fn list(&self, dates: Vec<Dates>) {
        self.listed.store(Arc::new(dates));
        self.tell();
    }

    /// An operator opens one for so long from now on, or gives the open one another end.
    pub fn order_open(&self, length: Duration, now: UnixTime) -> Order {
        let mut last = self.order_of();
        let order = Order::open(*last, length, now);
        *last = Some(order);
        drop(last);
        self.tell();
        order
    }

    /// An operator closes what was opened by command; `None` where nothing is.
    pub fn order_close(&self, now: UnixTime) -> Option<Order> {
        let mut last = self.order_of();
        let order = Order::close(*last, now)?;
        *last = Some(order);
        drop(last);
        self.tell();
        Some(order)
    }

    /// Another replica, or an archive, has this.
    pub fn take(&self, order: Order) {
        let mut last = self.order_of();
        let later = last.map_or(order, |last| last.or_later(order));
        if *last != Some(later) {
            *last = Some(later);
            drop(last);
            self.tell();
        }
    }

    /// What a store or an archive should hold.
    pub fn order(&self) -> Option<Order> {
        *self.order_of()
    }

    /// Told of every change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Tells the ring which window is open, and has all endpoints asked when that changes; never ends.
    pub async fn watch(&self, keys: &KeyShelf, clock: &Clock, probe_now: &Notify) {
        let mut changes = self.changes();
        let mut known = None;
        loop {
            let now = clock.now();
            let open = self.open(now);
            if open != known {
                tell(open);
                known = open;
                keys.set_window(open, now);
                probe_now.notify_one();
            }
            tokio::select! {
                // Its sender is here.
                _ = changes.changed() => {}
                () = time::sleep(LOOK) => {}
            }
        }
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    // What it guards is whole at every step.
    fn order_of(&self) -> MutexGuard<'_, Option<Order>> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell(open: Option<Open>) {
    let Some(open) = open else { return tracing::info!("the upgrade window is closed") };
    tracing::info!(
        window.since = %open.since.rfc3339(), window.until = %open.until.rfc3339(),
        window.by_command = open.by_command, "an upgrade window is open"
    );
}
