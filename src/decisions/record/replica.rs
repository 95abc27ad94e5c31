//! The record by which a replica says that it lives, and what it has taken from the store (A20).

use serde::{Deserialize, Serialize};

use crate::words::clock::UnixTime;

/// The format that this version writes.
const VERSION: u32 = 1;

/// One replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The name of its machine or pod.
    pub host: String,
    /// tidegate's.
    pub version: String,
    pub began: UnixTime,
    /// When it wrote this, by its own clock. It changes as long as the replica lives.
    pub seen: UnixTime,
    /// A digest of the revocations and windows that it goes by: what two replicas agree in is the same in both.
    pub applied: String,
}

/// It is no record of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no record of a replica that this version knows")]
pub struct NoReplica;

#[derive(Deserialize, Serialize)]
struct Written {
    v: u32,
    host: String,
    version: String,
    began: i64,
    seen: i64,
    applied: String,
}

impl Replica {
    pub fn write(&self) -> Vec<u8> {
        let written = Written {
            v: VERSION,
            host: self.host.clone(),
            version: self.version.clone(),
            began: self.began.0,
            seen: self.seen.0,
            applied: self.applied.clone(),
        };
        // Texts and numbers alone: this can't fail.
        serde_json::to_vec(&written).unwrap_or_default()
    }

    pub fn read(text: &[u8]) -> Result<Self, NoReplica> {
        let written: Written = serde_json::from_slice(text).map_err(|_| NoReplica)?;
        let Written { host, version, began, seen, applied, .. } = written;
        Ok(Self { host, version, began: UnixTime(began), seen: UnixTime(seen), applied })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_read_as_it_was_written_and_members_of_later_versions_are_passed_over() {
        let replica = Replica {
            host: "tidegate-0".to_owned(),
            version: "0.1.0".to_owned(),
            began: UnixTime(3),
            seen: UnixTime(7),
            applied: "00ff".to_owned(),
        };
        assert_eq!(Replica::read(&replica.write()), Ok(replica.clone()));
        let mut later: serde_json::Value = serde_json::from_slice(&replica.write()).expect("JSON");
        later["colour"] = "green".into();
        assert_eq!(Replica::read(later.to_string().as_bytes()), Ok(replica));
        assert_eq!(Replica::read(b"{}"), Err(NoReplica));
    }
}
