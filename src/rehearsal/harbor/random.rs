//! Random texts as Harbor makes them.

use std::fmt::Write as _;

/// `length` letters and digits, as a token's `jti`.
pub(super) fn alphanumeric(length: usize) -> String {
    const ALPHABET: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    bytes(length).iter().map(|&b| char::from(ALPHABET[usize::from(b) % ALPHABET.len()])).collect()
}

/// `length` random bytes in hexadecimal, as a `sid`.
pub(super) fn hex(length: usize) -> String {
    to_hex(&bytes(length))
}

/// Bytes in hexadecimal.
pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, b| {
        _ = write!(text, "{b:02x}");
        text
    })
}

/// A random UUID (RFC 9562, version 4), as request ids and upload ids.
pub fn uuid() -> String {
    let mut bits = bytes(16);
    bits[6] = bits[6] & 0x0f | 0x40;
    bits[8] = bits[8] & 0x3f | 0x80;
    let text = to_hex(&bits);
    format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
}

/// `length` random bytes.
pub(super) fn bytes(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    // A source that fails leaves zeros: the stand-in guards nothing.
    _ = aws_lc_rs::rand::fill(&mut bytes);
    bytes
}
