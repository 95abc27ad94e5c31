//! Whether an answer that breaks off can be continued, and what may be joined to it: only the rest of the very
//! same bytes (A24).

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// How the rest of an answer is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By `Range`, from the byte reached (U10): blobs.
    Range,
    /// Whole once more, and what the client has is left out: manifests, which know no ranges.
    Again,
}

/// What an answer's head has promised the client, and how far that is kept. Private fields: what is joined to an
/// answer has been compared with its own head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    way: Way,
    /// The next byte, counted from the whole's first.
    at: u64,
    /// The byte after the last.
    end: u64,
    /// Bytes of the whole.
    total: u64,
    etag: Option<Box<[u8]>>,
    digest: Option<Box<[u8]>>,
}

/// Why an answer is not the rest of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// No 206 to a range, no 200 to a whole.
    #[error("its status is another")]
    Status,
    /// `Content-Range` is not exactly what is missing.
    #[error("it has another range")]
    Range,
    /// Its length is not that of what is missing.
    #[error("it has another length")]
    Length,
    /// `ETag` or `Docker-Content-Digest` differ.
    #[error("its ETag or digest differs")]
    Identity,
    /// It is packed, and the first answer was not.
    #[error("it has a content coding")]
    Coding,
}

impl Promise {
    /// What this head promises, whose body is `length` bytes long; `None` where its rest could not be told from
    /// another's: no byte of it, or neither a strong `ETag` nor a digest. `ranged`: whether the client asked for a range.
    pub fn of(
        way: Way,
        ranged: impl FnOnce() -> bool,
        length: u64,
        (status, headers): (StatusCode, &HeaderMap),
    ) -> Option<Self> {
        let (at, end, total) = match (way, status) {
            _ if length == 0 => return None,
            (_, StatusCode::OK) => (0, length, length),
            (Way::Range, StatusCode::PARTIAL_CONTENT) if ranged() => range_of(headers)?,
            _ => return None,
        };
        let etag = strong_etag(headers).map(Box::from);
        let digest = only(headers, &DIGEST).map(Box::from);
        let known = etag.is_some() || digest.is_some();
        (known && !is_coded(headers) && end - at == length).then_some(Self {
            way,
            at,
            end,
            total,
            etag,
            digest,
        })
    }

    /// How its rest is asked for.
    pub fn way(&self) -> Way {
        self.way
    }

    /// So many bytes more went to the client.
    pub fn kept(&mut self, bytes: u64) {
        self.at = self.at.saturating_add(bytes).min(self.end);
    }

    /// Bytes that are still to come.
    pub fn left(&self) -> u64 {
        self.end - self.at
    }

    /// The `Range` that asks for them; `None` where the whole is asked for.
    pub fn range(&self) -> Option<HeaderValue> {
        let text = match self.way {
            Way::Again => return None,
            Way::Range if self.end == self.total => format!("bytes={}-", self.at),
            Way::Range => format!("bytes={}-{}", self.at, self.end - 1),
        };
        HeaderValue::try_from(text).ok()
    }

    /// Bytes at an answer's beginning that the client has; an error where the answer is not the rest.
    pub fn join(&self, status: StatusCode, headers: &HeaderMap) -> Result<u64, Misfit> {
        let (wanted, skip) = match self.way {
            Way::Range => (StatusCode::PARTIAL_CONTENT, 0),
            Way::Again => (StatusCode::OK, self.at),
        };
        if status != wanted {
            return Err(Misfit::Status);
        }
        if is_coded(headers) {
            return Err(Misfit::Coding);
        }
        if self.way == Way::Range && range_of(headers) != Some((self.at, self.end, self.total)) {
            return Err(Misfit::Range);
        }
        if length_of(headers) != Some(self.left() + skip) {
            return Err(Misfit::Length);
        }
        let same = |first: &Option<Box<[u8]>>, now| first.is_none() || first.as_deref() == now;
        if same(&self.etag, strong_etag(headers)) && same(&self.digest, only(headers, &DIGEST)) {
            Ok(skip)
        } else {
            Err(Misfit::Identity)
        }
    }
}

/// Continuations of one answer at most: beyond that something between us and core cuts everything.
const ALL: u8 = 16;
/// Continuations one after the other that bring no byte, at most (A6).
const IN_VAIN: u8 = 3;

/// Before the next one after one in vain: a core that stops takes up to 100 ms for it (U8).
const PAUSE: Duration = Duration::from_millis(250);

/// How often an answer was continued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    all: u8,
    in_vain: u8,
}

impl Tries {
    /// Takes one; `false` where none is left.
    pub fn take(&mut self) -> bool {
        let left = self.all < ALL && self.in_vain < IN_VAIN;
        if left {
            self.all += 1;
            self.in_vain += 1;
        }
        left
    }

    /// The last one has brought bytes.
    pub fn brought(&mut self) {
        self.in_vain = 0;
    }

    /// How long the one just taken waits: not at all where bytes came since the one before.
    pub fn pause(&self) -> Duration {
        PAUSE * u32::from(self.in_vain.saturating_sub(1))
    }
}

/// The value of a header that stands there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (Some(value), None) => Some(value.as_bytes()),
        _ => None,
    }
}

/// An `ETag` that stands for these very bytes (RFC 9110, 8.8.1).
fn strong_etag(headers: &HeaderMap) -> Option<&[u8]> {
    let quoted = |etag: &&[u8]| etag.len() > 2 && etag.starts_with(b"\"") && etag.ends_with(b"\"");
    only(headers, &header::ETAG).filter(quoted)
}

fn is_coded(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONTENT_ENCODING).iter().any(|coding| coding != "identity")
}

fn length_of(headers: &HeaderMap) -> Option<u64> {
    only(headers, &header::CONTENT_LENGTH).and_then(|value| number(std::str::from_utf8(value).ok()?))
}

/// First byte, the byte after the last, and the whole's length, of `bytes 5-9/10`.
fn range_of(headers: &HeaderMap) -> Option<(u64, u64, u64)> {
    let text = std::str::from_utf8(only(headers, &header::CONTENT_RANGE)?).ok()?;
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, total) = (number(first)?, number(last)?, number(total)?);
    (first <= last && last < total).then_some((first, last + 1, total))
}

/// Digits alone: no sign.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests;
