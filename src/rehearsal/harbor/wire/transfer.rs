//! How a body is framed, in either direction (RFC 9112, 6 and 7.1).

use std::io;

use bytes::{Buf, Bytes, BytesMut};

/// What of a body is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Transfer {
    /// Nothing, or nothing more.
    Ended,
    /// That many bytes.
    Length(u64),
    /// Chunks; the next thing is a size line.
    ChunkSize,
    /// That many bytes of a chunk, then its line end.
    ChunkData(u64),
    /// The line end after a chunk.
    ChunkEnd,
    /// Trailer lines after the last chunk.
    Trailer,
    /// Everything until the peer closes.
    UntilClose,
}

/// What [`Transfer::take`] found in a buffer.
pub(in super::super) enum Piece {
    /// Bytes of the body.
    Data(Bytes),
    /// More must be read first.
    NeedsMore,
    /// The body has ended.
    End,
}

impl Transfer {
    /// The framing that a request's or an answer's headers name; `None` where they name none.
    pub(in super::super) fn of(chunked: bool, length: Option<&str>) -> io::Result<Option<Self>> {
        match length {
            _ if chunked => Ok(Some(Self::ChunkSize)),
            None => Ok(None),
            Some(text) => match text.trim().parse() {
                Ok(0) => Ok(Some(Self::Ended)),
                Ok(length) => Ok(Some(Self::Length(length))),
                Err(_) => Err(malformed("content length")),
            },
        }
    }

    /// Takes the next piece of the body off the front of `buffer`.
    pub(in super::super) fn take(&mut self, buffer: &mut BytesMut) -> io::Result<Piece> {
        loop {
            match *self {
                Self::Ended => return Ok(Piece::End),
                _ if buffer.is_empty() => return Ok(Piece::NeedsMore),
                Self::UntilClose => return Ok(Piece::Data(buffer.split().freeze())),
                Self::Length(left) => {
                    let (data, left) = split(buffer, left);
                    *self = if left == 0 { Self::Ended } else { Self::Length(left) };
                    return Ok(Piece::Data(data));
                }
                Self::ChunkData(left) => {
                    let (data, left) = split(buffer, left);
                    *self = if left == 0 { Self::ChunkEnd } else { Self::ChunkData(left) };
                    return Ok(Piece::Data(data));
                }
                Self::ChunkSize | Self::ChunkEnd | Self::Trailer => {
                    let Some(line) = line(buffer)? else { return Ok(Piece::NeedsMore) };
                    *self = self.after_line(&line)?;
                }
            }
        }
    }

    fn after_line(self, line: &str) -> io::Result<Self> {
        match self {
            Self::ChunkEnd if line.is_empty() => Ok(Self::ChunkSize),
            Self::Trailer if line.is_empty() => Ok(Self::Ended),
            Self::Trailer => Ok(Self::Trailer),
            Self::ChunkSize => {
                let digits = line.split(';').next().unwrap_or_default().trim();
                match u64::from_str_radix(digits, 16) {
                    Ok(0) => Ok(Self::Trailer),
                    Ok(size) => Ok(Self::ChunkData(size)),
                    Err(_) => Err(malformed("chunk size")),
                }
            }
            _ => Err(malformed("chunk end")),
        }
    }
}

fn split(buffer: &mut BytesMut, left: u64) -> (Bytes, u64) {
    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
    (buffer.split_to(taken).freeze(), left - taken as u64)
}

/// The next line without its end; `None` while it isn't whole.
fn line(buffer: &mut BytesMut) -> io::Result<Option<String>> {
    const LONGEST_LINE: usize = 4096;
    let Some(end) = buffer.iter().position(|&b| b == b'\n') else {
        return if buffer.len() > LONGEST_LINE { Err(malformed("line")) } else { Ok(None) };
    };
    let line = buffer.split_to(end);
    buffer.advance(1);
    let line = line.strip_suffix(b"\r").unwrap_or(&line);
    Ok(Some(String::from_utf8_lossy(line).into_owned()))
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_with_extension_and_trailer_byte_by_byte() {
        let mut transfer = Transfer::ChunkSize;
        let (mut buffer, mut body) = (BytesMut::new(), Vec::new());
        for byte in b"5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nA: b\r\n\r\n" {
            buffer.extend_from_slice(&[*byte]);
            if let Piece::Data(data) = transfer.take(&mut buffer).expect("well formed") {
                body.extend_from_slice(&data);
            }
        }
        assert_eq!((body.as_slice(), transfer), (&b"hello!"[..], Transfer::Ended));
    }

    #[test]
    fn a_chunk_without_its_line_end_is_malformed() {
        let mut buffer = BytesMut::from(&b"1\r\naXX\r\n"[..]);
        let mut transfer = Transfer::ChunkSize;
        assert!(matches!(transfer.take(&mut buffer), Ok(Piece::Data(_))));
        assert!(transfer.take(&mut buffer).is_err());
    }
}
