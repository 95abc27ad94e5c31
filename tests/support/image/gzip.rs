//! Gzip (RFC 1952) with stored blocks only: random bytes don't get smaller, and nothing is spent on trying.

use std::io::{self, Write};

/// The most that one stored block can hold (RFC 1951, 3.2.4).
const STORED_MAX: usize = 65_535;

/// Writes what it gets as a gzip stream; [`Stored::finish`] ends it.
pub struct Stored<W> {
    out: W,
    table: [u32; 256],
    crc: u32,
    length: u32,
}

impl<W: Write> Stored<W> {
    pub fn new(mut out: W) -> io::Result<Self> {
        // Deflate, no flags, no time, unknown system.
        out.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255])?;
        Ok(Self { out, table: table(), crc: !0, length: 0 })
    }

    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[1, 0, 0, 0xff, 0xff])?;
        self.out.write_all(&(!self.crc).to_le_bytes())?;
        self.out.write_all(&self.length.to_le_bytes())?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Stored<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(STORED_MAX)];
        let size = bytes.len() as u16;
        self.out.write_all(&[0])?;
        self.out.write_all(&size.to_le_bytes())?;
        self.out.write_all(&(!size).to_le_bytes())?;
        self.out.write_all(bytes)?;
        for byte in bytes {
            self.crc = self.table[((self.crc ^ u32::from(*byte)) & 0xff) as usize] ^ (self.crc >> 8);
        }
        self.length = self.length.wrapping_add(u32::from(size));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn table() -> [u32; 256] {
    std::array::from_fn(|byte| {
        (0..8).fold(byte as u32, |crc, _| if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 })
    })
}
