//! What a real store must do: six calls on bytes.

use std::{fmt, future::Future, pin::Pin};

use crate::{
    decisions::record::{Kind, Place},
    words::clock::UnixTime,
};

/// A call that runs. A store is asked beside requests and never within one: a box costs nothing that counts.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreFault>> + Send + 'a>>;

/// A record as a store holds it.
#[derive(Clone, PartialEq, Eq)]
pub struct Kept {
    /// Rises with every write of the place, and never goes back.
    pub generation: u64,
    /// From then on it means nothing, and whoever comes across it may remove it; `None` = never.
    pub expires: Option<UnixTime>,
    pub sealed: Vec<u8>,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kept({}, {:?}, {} bytes)", self.generation, self.expires, self.sealed.len())
    }
}

/// One write, which happens only where the place still has the generation that its writer knows.
#[derive(Clone, Debug)]
pub struct Write {
    pub place: Place,
    /// The generation that must be there; `None` = nothing.
    pub over: Option<u64>,
    /// What shall be there; `None` = nothing.
    pub kept: Option<Kept>,
}

/// What became of a [`Write`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// It will be there after a crash as well.
    Done,
    /// Another generation, or none, is there: nothing was changed.
    Other(Option<u64>),
    /// The store didn't do it, and says why; what else it was asked it may well have done.
    Refused(String),
}

/// Where a reading in pages goes on; only the store that gave it can read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(pub(super) String);

/// Some records of a kind. Over all pages each record that is there throughout comes at least once.
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub records: Vec<(String, Kept)>,
    /// The names of what is in the place of records, and can be none.
    pub junk: Vec<String>,
    /// `None` = that was the last.
    pub next: Option<Cursor>,
}

/// Why a store didn't do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreFault {
    /// It couldn't be reached, read or written now.
    #[error("{0}")]
    Unavailable(String),
    #[error("it gave no answer within {} s", .0.as_secs())]
    Slow(std::time::Duration),
    /// What it holds can't be ours.
    #[error("it holds something that is no record")]
    Foreign,
}

/// Listens for other processes' writes. Whatever is said, it means "read again" and nothing else (A21).
pub trait Ear: Send {
    /// Waits for the next word; an error where no other will come.
    fn heard(&mut self) -> Doing<'_, ()>;
}

/// One real store of one deployment. Records of different deployments in it never meet.
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// The record of a place.
    fn get<'a>(&'a self, place: &'a Place) -> Doing<'a, Option<Kept>>;

    /// All of these, in their order, each by itself: one that finds another generation leaves the others alone. Where
    /// the whole call fails, any of them may have happened.
    fn put(&self, writes: Vec<Write>) -> Doing<'_, Vec<Written>>;

    /// The records of a kind: about so many of them, from the cursor on.
    fn page<'a>(&'a self, kind: Kind, from: Option<&'a Cursor>, about: usize) -> Doing<'a, Page>;

    /// A number that changes when another process may have written records of this kind.
    fn revision(&self, kind: Kind) -> Doing<'_, u64>;

    /// Whether other processes write to it too.
    fn is_shared(&self) -> bool;

    /// Begins to listen for what others write of [`Kind::WATCHED`]; `None` where only [`Self::revision`] tells.
    fn listen(&self) -> Option<Doing<'_, Box<dyn Ear>>> {
        None
    }

    /// What an operator calls it: a path, or an address without any secret.
    fn name(&self) -> &str;
}

/// Bytes of a record, at most. Ours have a few thousand; what is longer was put there by somebody else.
pub(super) const LONGEST: usize = 256 << 10;

impl Kept {
    const HEAD: usize = 16;
    const NEVER: i64 = i64::MAX;

    /// As bytes: generation, end, what is sealed.
    pub(super) fn write(&self) -> Vec<u8> {
        let expires = self.expires.map_or(Self::NEVER, |at| at.0);
        [&self.generation.to_be_bytes(), expires.to_be_bytes().as_slice(), &self.sealed].concat()
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self, StoreFault> {
        if bytes.len() > 2 * LONGEST {
            return Err(StoreFault::Foreign);
        }
        let (head, sealed) = bytes.split_first_chunk::<{ Self::HEAD }>().ok_or(StoreFault::Foreign)?;
        let number = |part: &[u8]| <[u8; 8]>::try_from(part).map_err(|_| StoreFault::Foreign);
        let (generation, expires) = head.split_at(Self::HEAD / 2);
        let expires = i64::from_be_bytes(number(expires)?);
        Ok(Self {
            generation: u64::from_be_bytes(number(generation)?),
            expires: (expires != Self::NEVER).then_some(UnixTime(expires)),
            sealed: sealed.to_vec(),
        })
    }
}

impl Write {
    /// What becomes of it where this generation is there.
    pub(super) fn meets(&self, present: Option<u64>) -> Written {
        if self.over == present { Written::Done } else { Written::Other(present) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In files and servers there are records as these: a form that is changed must be told from them.
    #[test]
    fn a_record_has_its_generation_and_its_end_before_what_is_sealed() {
        for (expires, end) in [(Some(UnixTime(2)), [0, 0, 0, 0, 0, 0, 0, 2]), (None, i64::MAX.to_be_bytes())]
        {
            let kept = Kept { generation: 0x0102, expires, sealed: b"sealed".to_vec() };
            let bytes = [&[0, 0, 0, 0, 0, 0, 1, 2][..], &end, b"sealed"].concat();
            assert_eq!((kept.write(), Kept::read(&bytes)), (bytes.clone(), Ok(kept)));
        }
        assert_eq!(Kept::read(&[0; 15]), Err(StoreFault::Foreign));
    }
}
