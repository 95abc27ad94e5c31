//! Blobs, as Go's `http.ServeContent` serves them: whole, in part (U10), and the 416 that lies (U11).

use bytes::Bytes;
use serde_json::Value;

use super::{Blob, MemoryRegistry, refusal};
use crate::rehearsal::harbor::wire::{
    head::Head,
    reply::{Reply, ReplyBody},
};

/// What a `Range` header asks of a blob.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Bytes(u64, u64),
    Unsatisfiable,
}

impl MemoryRegistry {
    pub(super) fn blob(&self, head: &Head, repository: &str, digest: &str) -> Reply {
        let Some(blob) = self.linked_blob(repository, digest) else { return unknown(digest) };
        let etag = format!("\"{digest}\"");
        if head.header("if-none-match").is_some_and(|sent| sent.split(',').any(|one| one.trim() == etag)) {
            return headers(Reply::new(304), digest);
        }
        let whole_wanted = head.header("if-range").is_some_and(|sent| sent != etag);
        let range = head.header("range").filter(|_| !whole_wanted);
        match range.map_or(Part::Whole, |range| part(range, blob.length)) {
            Part::Whole => headers(Reply::new(200), digest)
                .with("Content-Length", blob.length.to_string())
                .with("Content-Type", "application/octet-stream")
                .pieces(blob.pieces),
            Part::Bytes(first, last) => headers(Reply::new(206), digest)
                .with("Content-Length", (last - first + 1).to_string())
                .with("Content-Range", format!("bytes {first}-{last}/{}", blob.length))
                .with("Content-Type", "application/octet-stream")
                .pieces(slice(&blob, first, last)),
            // U11: the length announced is the blob's, the body is this sentence.
            Part::Unsatisfiable => headers(Reply::new(416), digest)
                .with("Content-Length", blob.length.to_string())
                .with("Content-Range", format!("bytes */{}", blob.length))
                .with("Content-Type", "text/plain; charset=utf-8")
                .with("X-Content-Type-Options", "nosniff")
                .body("invalid range: failed to overlap\n"),
        }
    }

    pub(super) fn delete_blob(&self, repository: &str, digest: &str) -> Reply {
        let link = (repository.to_owned(), digest.to_owned());
        if self.store().links.remove(&link) { Reply::new(202) } else { unknown(digest) }
    }

    pub(super) fn linked_blob(&self, repository: &str, digest: &str) -> Option<Blob> {
        let store = self.store();
        let link = (repository.to_owned(), digest.to_owned());
        store.links.contains(&link).then(|| store.blobs.get(digest).cloned())?
    }
}

impl Reply {
    fn pieces(mut self, pieces: Vec<Bytes>) -> Self {
        self.body = ReplyBody::Here(pieces);
        self
    }
}

fn headers(reply: Reply, digest: &str) -> Reply {
    reply
        .with("Accept-Ranges", "bytes")
        .with("Cache-Control", "max-age=31536000")
        .with("Docker-Content-Digest", digest)
        .with("Etag", format!("\"{digest}\""))
}

fn unknown(digest: &str) -> Reply {
    refusal(404, "BLOB_UNKNOWN", "blob unknown to registry", Value::from(digest))
}

/// One range; several, or another unit, are answered with the whole.
fn part(range: &str, length: u64) -> Part {
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-'))
    else {
        return Part::Whole;
    };
    let (first, last) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => (first, last.min(length.saturating_sub(1))),
        (Ok(first), Err(_)) if last.is_empty() => (first, length.saturating_sub(1)),
        (Err(_), Ok(suffix)) if first.is_empty() => (length.saturating_sub(suffix), length.saturating_sub(1)),
        _ => return Part::Whole,
    };
    if first >= length { Part::Unsatisfiable } else { Part::Bytes(first, last) }
}

fn slice(blob: &Blob, first: u64, last: u64) -> Vec<Bytes> {
    let mut at = 0u64;
    let mut found = Vec::new();
    for piece in &blob.pieces {
        let end = at + piece.len() as u64;
        if end > first && at <= last {
            let from = first.saturating_sub(at) as usize;
            let to = (last + 1 - at).min(piece.len() as u64) as usize;
            found.push(piece.slice(from..to));
        }
        at = end;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_a_blob_of_ten_bytes() {
        assert_eq!(part("bytes=0-3", 10), Part::Bytes(0, 3));
        assert_eq!(part("bytes=4-", 10), Part::Bytes(4, 9));
        assert_eq!(part("bytes=-3", 10), Part::Bytes(7, 9));
        assert_eq!(part("bytes=4-99", 10), Part::Bytes(4, 9));
        assert_eq!(part("bytes=10-", 10), Part::Unsatisfiable);
        assert_eq!(part("lines=1-2", 10), Part::Whole);
    }

    #[test]
    fn slices_cross_pieces() {
        let pieces =
            vec![Bytes::from_static(b"abc"), Bytes::from_static(b"defg"), Bytes::from_static(b"hij")];
        let blob = Blob { pieces, length: 10 };
        assert_eq!(slice(&blob, 2, 7).concat(), b"cdefgh");
        assert_eq!(slice(&blob, 0, 9).concat(), b"abcdefghij");
        assert_eq!(slice(&blob, 3, 3).concat(), b"d");
    }
}
