//! What an upload session has sent so far, kept for a second session: in memory up to a bound, beyond it in the spool
//! (U9, A24, A25).

use std::{
    fmt, io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use tokio::task::JoinHandle;

use super::budget::{Budget, Share};
use crate::edges::spool::{Place, Spool, SpoolFile};

/// Bytes of a block: what is read and written at once.
const BLOCK: usize = 1024 * 1024;
/// Bytes of memory taken at first.
const SMALLEST: usize = 64 * 1024;
/// Bytes of one upload in memory at most where there is a spool.
const IN_MEMORY: u64 = 8 * BLOCK as u64;

/// Where uploads are kept.
pub struct Stores {
    /// Bytes in memory, of all together.
    pub memory: Arc<Budget>,
    /// Beyond them; `None` = nowhere.
    pub spool: Option<Arc<Spool>>,
    /// Uploads that found no room, and went on without being kept.
    pub given_up: AtomicU64,
}

/// All bytes of one upload session, or nothing any more.
pub struct Kept {
    stores: Arc<Stores>,
    holder: (IpAddr, Arc<str>),
    blocks: Vec<Block>,
    tail: BytesMut,
    tail_shares: Vec<Share>,
    /// Bytes of those shares.
    tail_room: usize,
    length: u64,
    in_memory: u64,
    file: Option<Arc<SpoolFile>>,
    writing: Option<JoinHandle<io::Result<()>>>,
    reading: Option<(u64, JoinHandle<io::Result<Vec<u8>>>)>,
    lost: bool,
}

/// So many bytes from `start` on.
struct Block {
    start: u64,
    held: Held,
}

enum Held {
    Memory {
        bytes: Bytes,
        _shares: Vec<Share>,
    },
    /// In the spool when its write has ended.
    Writing {
        bytes: Bytes,
        place: Place,
        _shares: Vec<Share>,
    },
    Spool(Place),
}

impl Kept {
    /// Nothing yet, for a client and a principal.
    pub fn new(stores: Arc<Stores>, client: IpAddr, principal: Arc<str>) -> Self {
        Self {
            stores,
            holder: (client, principal),
            blocks: Vec::new(),
            tail: BytesMut::new(),
            tail_shares: Vec::new(),
            tail_room: 0,
            length: 0,
            in_memory: 0,
            file: None,
            writing: None,
            reading: None,
            lost: false,
        }
    }

    /// Nothing, and never anything: what stands in the place of an upload that was handed on.
    pub fn handed_on(&self) -> Self {
        let (client, principal) = self.holder.clone();
        Self { lost: true, ..Self::new(self.stores.clone(), client, principal) }
    }

    /// Whether every byte is still here.
    pub fn is_whole(&self) -> bool {
        !self.lost
    }

    /// Bytes so far, kept or not.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Completes when the next chunk may come: writes to the spool keep no more than a block waiting.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.tail.len() < BLOCK {
            return Poll::Ready(());
        }
        ready!(self.poll_written(cx));
        self.close_block();
        Poll::Ready(())
    }

    /// Takes the next chunk.
    pub fn push(&mut self, chunk: &[u8]) {
        self.length += chunk.len() as u64;
        if self.lost {
            return;
        }
        while self.tail.len() + chunk.len() > self.tail_room {
            let (client, principal) = self.holder.clone();
            // No more than a block, and the chunk that closes it.
            let most = (BLOCK + SMALLEST).saturating_sub(self.tail_room).max(SMALLEST);
            let more = self.tail_room.clamp(SMALLEST, BLOCK).min(most);
            let Some(share) = self.stores.memory.take(more, client, principal) else {
                return self.lose(None);
            };
            self.tail_shares.push(share);
            self.tail_room += more;
            self.tail.reserve(self.tail_room - self.tail.len());
        }
        self.tail.extend_from_slice(chunk);
        if self.tail.len() >= BLOCK && self.writing.is_none() {
            self.close_block();
        }
    }

    /// The bytes from `at` to the end of their block; `None` at the end of all.
    pub fn poll_read(&mut self, at: u64, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if self.lost {
            return Poll::Ready(Err(io::Error::other("the upload is not kept any more")));
        }
        let tail_start = self.length - self.tail.len() as u64;
        if at >= tail_start {
            let from = usize::try_from(at - tail_start).unwrap_or(usize::MAX);
            let rest = self.tail.get(from..).filter(|rest| !rest.is_empty());
            return Poll::Ready(Ok(rest.map(Bytes::copy_from_slice)));
        }
        let Some(block) = self.blocks[..self.blocks.partition_point(|b| b.start <= at)].last() else {
            return Poll::Ready(Err(io::Error::other("the upload has a gap")));
        };
        let from = usize::try_from(at - block.start).map_err(io::Error::other)?;
        let place = match &block.held {
            Held::Memory { bytes, .. } | Held::Writing { bytes, .. } => {
                return Poll::Ready(Ok(Some(bytes.slice(from..))));
            }
            Held::Spool(place) => *place,
        };
        let mut job = match self.reading.take() {
            Some((start, job)) if start == block.start => job,
            _ => {
                let Some(file) = self.file.clone() else {
                    return Poll::Ready(Err(io::Error::other("the upload has no file")));
                };
                tokio::task::spawn_blocking(move || file.read(place))
            }
        };
        let start = block.start;
        match std::pin::Pin::new(&mut job).poll(cx) {
            Poll::Pending => {
                self.reading = Some((start, job));
                Poll::Pending
            }
            Poll::Ready(read) => Poll::Ready(
                read.map_err(io::Error::other).flatten().map(|b| Some(Bytes::from(b).slice(from..))),
            ),
        }
    }

    /// A block in the spool is written, or there is none under way.
    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(job) = &mut self.writing else { return Poll::Ready(()) };
        let written = ready!(std::pin::Pin::new(job).poll(cx));
        self.writing = None;
        match written.map_err(io::Error::other).flatten() {
            Ok(()) => {
                for block in self.blocks.iter_mut().rev() {
                    if let Held::Writing { place, .. } = block.held {
                        block.held = Held::Spool(place);
                        break;
                    }
                }
            }
            Err(fault) => self.lose(Some(&fault)),
        }
        Poll::Ready(())
    }

    /// The tail becomes a block: in memory, or on its way into the spool.
    fn close_block(&mut self) {
        let start = self.length - self.tail.len() as u64;
        let (bytes, shares) =
            (std::mem::take(&mut self.tail).freeze(), std::mem::take(&mut self.tail_shares));
        self.tail_room = 0;
        let (client, principal) = self.holder.clone();
        // What stays in memory leaves room for the blocks that others of this client's are filling.
        let stays = self.in_memory < IN_MEMORY && self.stores.memory.is_ample(client, principal);
        let Some(spool) = self.stores.spool.clone().filter(|_| !stays) else {
            self.in_memory += bytes.len() as u64;
            self.blocks.push(Block { start, held: Held::Memory { bytes, _shares: shares } });
            return;
        };
        match self.spooled(&spool, &bytes) {
            Ok(None) => self.lose(None),
            Ok(Some(place)) => {
                self.blocks.push(Block { start, held: Held::Writing { bytes, place, _shares: shares } });
            }
            Err(fault) => self.lose(Some(&fault)),
        }
    }

    /// Begins to write a block; `None` where the spool has no room.
    fn spooled(&mut self, spool: &Arc<Spool>, bytes: &Bytes) -> io::Result<Option<Place>> {
        let file = match &self.file {
            Some(file) => file.clone(),
            None => self.file.insert(Arc::new(spool.file()?)).clone(),
        };
        let Some(place) = file.reserve(bytes.len(), self.blocks.len() as u64) else { return Ok(None) };
        let bytes = bytes.clone();
        self.writing = Some(tokio::task::spawn_blocking(move || file.write(place, &bytes)));
        Ok(Some(place))
    }

    /// The upload goes on and can't be begun again.
    fn lose(&mut self, fault: Option<&io::Error>) {
        self.stores.given_up.fetch_add(1, Relaxed);
        if let Some(fault) = fault {
            tracing::warn!(cause = %fault, "uploads.spool: an upload can't be kept, a cut would end it");
        }
        self.drop_all();
    }

    /// Lets go of all that is kept.
    pub fn drop_all(&mut self) {
        self.lost = true;
        self.blocks = Vec::new();
        self.tail = BytesMut::new();
        self.tail_shares = Vec::new();
        self.tail_room = 0;
        self.file = None;
        self.writing = None;
        self.reading = None;
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("length", &self.length).field("lost", &self.lost).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const CHUNK: usize = 64 * 1024;

    /// So many uploads of one principal, 20 MiB each, a chunk of each in turn; how many of them are still whole.
    async fn whole(uploads: usize, spool: bool) -> usize {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = spool.then(|| Arc::new(Spool::new(folder.path().to_owned(), 1 << 30, 1 << 30)));
        let memory = Arc::new(Budget::new(64 * BLOCK));
        let stores = Arc::new(Stores { memory, spool, given_up: AtomicU64::new(0) });
        let mut all: Vec<_> =
            (0..uploads).map(|_| Kept::new(stores.clone(), CLIENT, Arc::from("robot$ci"))).collect();
        let chunk = vec![7; CHUNK];
        for _ in 0..20 * BLOCK / CHUNK {
            for kept in &mut all {
                std::future::poll_fn(|cx| kept.poll_room(cx)).await;
                kept.push(&chunk);
            }
        }
        all.iter().filter(|kept| kept.is_whole()).count()
    }

    #[tokio::test]
    async fn a25_many_uploads_of_one_principal_at_once_are_kept_where_there_is_a_spool() {
        assert_eq!(whole(6, true).await, 6);
        assert_eq!(whole(1, false).await, 1, "one has half of the memory");
        assert_eq!(whole(6, false).await, 1, "and without a spool that is all there is");
    }
}
