//! The head of a request as it came.

use std::borrow::Cow;

use bytes::{Buf, BytesMut};
use percent_encoding::percent_decode_str;

/// Go's default limit of a head (`DefaultMaxHeaderBytes` is 1 MiB; nothing here needs as much).
pub(in super::super) const LONGEST_HEAD: usize = 256 * 1024;
const MOST_HEADERS: usize = 256;

/// Method, target and headers of a request; names as sent, in the order sent.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// The method as sent.
    pub method: String,
    /// Path and query as sent.
    pub target: String,
    /// Headers as sent, one entry a line.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The minor HTTP version, 0 or 1.
    pub minor: u8,
}

/// Why bytes are no head.
#[derive(Debug, thiserror::Error)]
#[error("malformed request head")]
pub(in super::super) struct Malformed;

impl Head {
    /// Takes a whole head off the front of `buffer`; `None` while it isn't whole.
    pub(in super::super) fn take(buffer: &mut BytesMut) -> Result<Option<Self>, Malformed> {
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let length = match request.parse(buffer) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if buffer.len() < LONGEST_HEAD => return Ok(None),
            _ => return Err(Malformed),
        };
        let head = Self {
            method: request.method.unwrap_or_default().to_owned(),
            target: request.path.unwrap_or_default().to_owned(),
            minor: request.version.unwrap_or(1),
            headers: request.headers.iter().map(|h| (h.name.to_owned(), h.value.to_vec())).collect(),
        };
        buffer.advance(length);
        Ok(Some(head))
    }

    /// The first value of a header, where it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .and_then(|(_, value)| std::str::from_utf8(value).ok())
    }

    /// All values of a header, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name))
            .filter_map(|(_, value)| std::str::from_utf8(value).ok())
    }

    /// The path with percent escapes undone, as Go's `URL.Path`.
    pub fn path(&self) -> Cow<'_, str> {
        let raw = self.target.split_once('?').map_or(self.target.as_str(), |(path, _)| path);
        percent_decode_str(raw).decode_utf8_lossy()
    }

    /// The values of a query parameter, in order, decoded as a form.
    pub fn query(&self, name: &str) -> Vec<String> {
        form(self.target.split_once('?').map_or("", |(_, query)| query), name)
    }

    /// A cookie's value.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.all("cookie")
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(n, _)| *n == name)
            .map(|(_, value)| value)
    }

    /// Whether the method is this one.
    pub fn is(&self, method: &str) -> bool {
        self.method == method
    }
}

/// The values of one field of an `application/x-www-form-urlencoded` text.
pub(in super::super) fn form(text: &str, name: &str) -> Vec<String> {
    let decode = |part: &str| percent_decode_str(&part.replace('+', " ")).decode_utf8_lossy().into_owned();
    text.split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(|(n, _)| decode(n) == name)
        .map(|(_, value)| decode(value))
        .collect()
}
