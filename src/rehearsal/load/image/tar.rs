//! Tar as POSIX.1-1988 (ustar) has it: regular files alone, each below 8 GiB.

use bytes::{BufMut as _, Bytes, BytesMut};

const BLOCK: usize = 512;

/// An archive of these files; names beyond 100 bytes are cut.
pub(super) fn archive<'a>(files: impl IntoIterator<Item = (&'a str, Bytes)>) -> Bytes {
    let mut out = BytesMut::new();
    for (name, content) in files {
        out.put_slice(&header(name, content.len()));
        out.put_slice(&content);
        out.put_bytes(0, content.len().next_multiple_of(BLOCK) - content.len());
    }
    out.put_bytes(0, 2 * BLOCK);
    out.freeze()
}

fn header(name: &str, size: usize) -> Vec<u8> {
    // The sum is taken with its own field as spaces.
    let with_sum = |sum: &str| -> Vec<u8> {
        let text = format!(
            "{name:\0<100.100}{:07o}\0{:07o}\0{:07o}\0{size:011o}\0{:011o}\0{sum:<8.8}0{:\0<100}ustar\x0000",
            0o644, 0, 0, 0, "",
        );
        let mut block = text.into_bytes();
        block.resize(BLOCK, 0);
        block
    };
    let sum: u32 = with_sum("").iter().map(|byte| u32::from(*byte)).sum();
    with_sum(&format!("{sum:06o}\0 "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_its_fields_where_readers_look() {
        let tar = archive([("payload", Bytes::from_static(b"abc"))]);
        assert_eq!(tar.len(), 4 * BLOCK);
        assert_eq!(&tar[..8], b"payload\0");
        assert_eq!(&tar[100..108], b"0000644\0");
        assert_eq!(&tar[124..136], b"00000000003\0");
        assert_eq!((tar[156], &tar[257..265]), (b'0', b"ustar\x0000".as_slice()));
        assert_eq!(&tar[BLOCK..BLOCK + 4], b"abc\0");
        let sum: u32 = tar[..148].iter().chain(&tar[156..BLOCK]).map(|byte| u32::from(*byte)).sum();
        assert_eq!(&tar[148..156], format!("{:06o}\0 ", sum + 8 * u32::from(b' ')).as_bytes());
    }
}
