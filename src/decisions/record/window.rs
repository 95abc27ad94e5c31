//! The record of what an operator said of the upgrade window: one for all replicas.

use serde::{Deserialize, Serialize};

use crate::{decisions::window::Order, words::clock::UnixTime};

/// The format that this version writes.
const VERSION: u32 = 1;

/// The record's name among its kind: there is one.
pub const PLACE: &str = "upgrade";

/// It is no record of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no record of an upgrade window that this version knows")]
pub struct NoWindow;

#[derive(Deserialize, Serialize)]
struct Written {
    v: u32,
    opened: i64,
    until: i64,
    said: i64,
}

impl Order {
    pub fn write(self) -> Vec<u8> {
        let written = Written { v: VERSION, opened: self.opened.0, until: self.until.0, said: self.said.0 };
        // Numbers alone: this can't fail.
        serde_json::to_vec(&written).unwrap_or_default()
    }

    pub fn read(text: &[u8]) -> Result<Self, NoWindow> {
        let written: Written = serde_json::from_slice(text).map_err(|_| NoWindow)?;
        let Written { opened, until, said, .. } = written;
        Ok(Self { opened: UnixTime(opened), until: UnixTime(until), said: UnixTime(said) })
    }
}

/// The later order.
pub(super) fn merge(present: &[u8], ours: &[u8]) -> Vec<u8> {
    match (Order::read(present), Order::read(ours)) {
        (Ok(theirs), Ok(mine)) => theirs.or_later(mine).write(),
        (Ok(theirs), Err(_)) => theirs.write(),
        (Err(_), _) => ours.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(said: i64) -> Order {
        Order { opened: UnixTime(1), until: UnixTime(9), said: UnixTime(said) }
    }

    #[test]
    fn a_window_is_read_as_it_was_written_and_members_of_later_versions_are_passed_over() {
        assert_eq!(Order::read(&order(2).write()), Ok(order(2)));
        let later = br#"{"v":2,"opened":1,"until":9,"said":2,"colour":"green"}"#;
        assert_eq!(Order::read(later), Ok(order(2)));
        for text in ["", "{}", r#"{"v":1,"opened":1}"#] {
            assert_eq!(Order::read(text.as_bytes()), Err(NoWindow), "{text}");
        }
    }

    #[test]
    fn of_two_records_the_later_order_stays() {
        for (present, ours) in [(order(2), order(3)), (order(3), order(2))] {
            assert_eq!(merge(&present.write(), &ours.write()), order(3).write());
        }
        assert_eq!(merge(b"torn", &order(2).write()), order(2).write());
    }
}
