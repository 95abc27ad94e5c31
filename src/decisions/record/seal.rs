//! Seals of records (A21): AES-256-GCM-SIV under a ring of keys of its own. The first key seals, any opens. What a
//! record is bound to is its deployment, its place, its generation and its end, so that one that was moved, put back
//! after it was replaced, or prolonged doesn't open in its place.
//!
//! One that was removed and is put back opens, as long as its end is to come: nobody could tell it from one that
//! another process wrote anew. So nothing is ended by removing its record: that takes a record of its own
//! ([`super::revocation`]), which stays.

use std::fmt;

use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, Nonce, RandomizedNonceKey},
    digest::{SHA256, digest},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::Place;
use crate::words::clock::UnixTime;

/// First byte of every sealed record: the envelope's version.
pub const VERSION: u8 = 2;
/// The one whose seal didn't hold the record's end.
const WITHOUT_END: u8 = 1;
/// All that are read. Each has its fixtures, for ever.
pub const VERSIONS: [u8; 2] = [WITHOUT_END, VERSION];
const ID: usize = 8;
const NONCE: usize = 12;
/// Bytes of a key.
pub const KEY: usize = 32;

/// Which key sealed a record: the beginning of a digest of the key. No secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealId([u8; ID]);

impl SealId {
    pub fn bytes(self) -> [u8; ID] {
        self.0
    }

    /// Whether a text is one as it is written.
    pub fn is_written(text: &str) -> bool {
        let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        text.len() == 2 * ID && text.bytes().all(digit)
    }
}

impl fmt::Display for SealId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One key that seals.
pub struct SealKey {
    id: SealId,
    key: RandomizedNonceKey,
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealKey({})", self.id)
    }
}

/// Why a text is no sealing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no key of 32 bytes in base64 or hexadecimal digits")]
pub struct NoSealKey;

impl SealKey {
    /// From a file's text: 32 bytes in base64, or as 64 hexadecimal digits, and white space around them.
    pub fn parse(text: &[u8]) -> Result<Self, NoSealKey> {
        let text = text.trim_ascii();
        let bytes = Zeroizing::new(if text.len() == 2 * KEY { unhex(text)? } else { unbase64(text)? });
        let key = <&[u8; KEY]>::try_from(bytes.as_slice()).map_err(|_| NoSealKey)?;
        Self::new(key)
    }

    /// From the bytes themselves.
    pub fn new(bytes: &[u8; KEY]) -> Result<Self, NoSealKey> {
        let whole = Zeroizing::new([b"tidegate seal key id".as_slice(), bytes].concat());
        let mut id = [0; ID];
        id.copy_from_slice(&digest(&SHA256, &whole).as_ref()[..ID]);
        let key = RandomizedNonceKey::new(&AES_256_GCM_SIV, bytes).map_err(|_| NoSealKey)?;
        Ok(Self { id: SealId(id), key })
    }

    pub fn id(&self) -> SealId {
        self.id
    }

    /// `nonce, ciphertext, tag`, bound to `to`.
    pub(in crate::decisions) fn seal_bound(&self, to: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealFault> {
        // With room for the tag: no copy of what is plain stays behind.
        let mut sealed = Vec::with_capacity(plain.len() + AES_256_GCM_SIV.tag_len());
        sealed.extend_from_slice(plain);
        let nonce = self.key.seal_in_place_append_tag(Aad::from(to), &mut sealed).map_err(|_| SealFault)?;
        Ok([nonce.as_ref().as_slice(), &sealed].concat())
    }

    /// What [`Self::seal_bound`] sealed, bound to the same.
    pub(in crate::decisions) fn open_bound(
        &self,
        to: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenFault> {
        let (nonce, envelope) = sealed.split_first_chunk::<NONCE>().ok_or(OpenFault::Format)?;
        let mut plain = Zeroizing::new(envelope.to_vec());
        let opened = self.key.open_in_place(Nonce::from(nonce), Aad::from(to), &mut plain);
        let length = opened.map_err(|_| OpenFault::Broken)?.len();
        plain.truncate(length);
        Ok(plain)
    }
}

/// A key as its file holds it.
pub fn written(bytes: &[u8; KEY]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(STANDARD.encode(bytes));
    text.push('\n');
    text
}

fn unhex(text: &[u8]) -> Result<Vec<u8>, NoSealKey> {
    let digit = |b: &u8| char::from(*b).to_digit(16).ok_or(NoSealKey);
    text.chunks_exact(2)
        .map(|pair| match pair {
            [high, low] => Ok((digit(high)? << 4 | digit(low)?) as u8),
            _ => Err(NoSealKey),
        })
        .collect()
}

fn unbase64(text: &[u8]) -> Result<Vec<u8>, NoSealKey> {
    STANDARD.decode(text).map_err(|_| NoSealKey)
}

/// All sealing keys of one deployment.
#[derive(Debug)]
pub struct SealRing {
    deployment: String,
    first: SealKey,
    others: Vec<SealKey>,
}

/// A record as it was before it was sealed.
#[derive(Debug)]
pub struct Opened {
    pub plain: Zeroizing<Vec<u8>>,
    /// Whether the key that seals now sealed it; if not, it should be sealed again.
    pub by_first: bool,
}

/// Why a record doesn't open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenFault {
    #[error("it is no sealed record of a version that is known here")]
    Format,
    #[error("none of the sealing keys is {0}, which sealed it")]
    UnknownKey(SealId),
    #[error("its seal is broken: it was changed, moved, put back, or belongs to another deployment")]
    Broken,
}

/// There is no randomness, or the record is longer than any that can be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record can't be sealed")]
pub struct SealFault;

impl SealRing {
    pub fn new(deployment: &str, first: SealKey, others: Vec<SealKey>) -> Self {
        Self { deployment: deployment.to_owned(), first, others }
    }

    /// The key that seals now.
    pub fn first(&self) -> SealId {
        self.first.id
    }

    /// `version, key id, nonce, ciphertext, tag`.
    pub fn seal(
        &self,
        place: &Place,
        generation: u64,
        expires: Option<UnixTime>,
        plain: &[u8],
    ) -> Result<Vec<u8>, SealFault> {
        let bound = self.bound_to(VERSION, place, generation, expires);
        let sealed = self.first.seal_bound(&bound, plain)?;
        Ok([&[VERSION], self.first.id.0.as_slice(), &sealed].concat())
    }

    pub fn open(
        &self,
        place: &Place,
        generation: u64,
        expires: Option<UnixTime>,
        sealed: &[u8],
    ) -> Result<Opened, OpenFault> {
        let (version, rest) = sealed.split_first().ok_or(OpenFault::Format)?;
        if !VERSIONS.contains(version) {
            return Err(OpenFault::Format);
        }
        let (id, rest) = rest.split_first_chunk::<ID>().ok_or(OpenFault::Format)?;
        let by_first = *id == self.first.id.0;
        let known = std::iter::once(&self.first).chain(&self.others).find(|key| key.id.0 == *id);
        let key = known.ok_or(OpenFault::UnknownKey(SealId(*id)))?;
        let plain = key.open_bound(&self.bound_to(*version, place, generation, expires), rest)?;
        Ok(Opened { plain, by_first })
    }

    /// Each part with its length before it, so that no two places look alike.
    fn bound_to(&self, version: u8, place: &Place, generation: u64, expires: Option<UnixTime>) -> Vec<u8> {
        let generation = generation.to_be_bytes();
        let expires = expires.map(|at| at.0.to_be_bytes());
        let end = expires.as_ref().map_or(&[][..], |at| at);
        let parts = [
            self.deployment.as_bytes(),
            place.kind.name().as_bytes(),
            place.key.as_bytes(),
            &generation,
            end,
        ];
        let count = if version == WITHOUT_END { 4 } else { parts.len() };
        let with_length = |part: &[u8]| [&(part.len() as u64).to_be_bytes(), part].concat();
        let parts = parts.into_iter().take(count).flat_map(with_length);
        b"tidegate record".iter().copied().chain([version]).chain(parts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decisions::record::Kind;

    fn key(n: u8) -> SealKey {
        SealKey::new(&[n; KEY]).expect("a key")
    }

    fn place(key: &str) -> Place {
        Place::new(Kind::Key, key)
    }

    #[test]
    fn a21_a_record_opens_only_where_and_as_it_was_sealed() {
        let ring = SealRing::new("d", key(1), vec![]);
        let sealed = ring.seal(&place("a"), 7, None, b"plain").expect("sealed");
        assert!(!sealed.windows(5).any(|part| part == b"plain"));
        assert_eq!(ring.open(&place("a"), 7, None, &sealed).expect("open").plain.as_slice(), b"plain");
        let other = Place::new(Kind::Window, "a");
        for (place, generation, why) in
            [(&place("b"), 7, "moved"), (&place("a"), 6, "put back"), (&other, 7, "another kind")]
        {
            assert_eq!(
                ring.open(place, generation, None, &sealed).map(|_| ()),
                Err(OpenFault::Broken),
                "{why}"
            );
        }
        let elsewhere = SealRing::new("e", key(1), vec![]);
        assert_eq!(elsewhere.open(&place("a"), 7, None, &sealed).map(|_| ()), Err(OpenFault::Broken));
    }

    #[test]
    fn a21_a_record_doesnt_open_with_another_end() {
        let ring = SealRing::new("d", key(1), vec![]);
        for end in [None, Some(UnixTime(7))] {
            let sealed = ring.seal(&place("a"), 1, end, b"plain").expect("sealed");
            for given in [None, Some(UnixTime(0)), Some(UnixTime(7)), Some(UnixTime(8))] {
                let opens = ring.open(&place("a"), 1, given, &sealed).is_ok();
                assert_eq!(opens, given == end, "{end:?} {given:?}");
            }
            let mut former = sealed;
            former[0] = WITHOUT_END;
            assert!(ring.open(&place("a"), 1, end, &former).is_err(), "nor as what had none in its seal");
        }
    }

    #[test]
    fn a21_a_record_with_any_byte_changed_or_cut_doesnt_open() {
        let ring = SealRing::new("d", key(1), vec![]);
        let sealed = ring.seal(&place("a"), 1, None, b"plain").expect("sealed");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(ring.open(&place("a"), 1, None, &changed).is_err(), "byte {at}");
            assert!(ring.open(&place("a"), 1, None, &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn the_first_key_seals_and_any_opens() {
        let former = SealRing::new("d", key(1), vec![]).seal(&place("a"), 1, None, b"x").expect("sealed");
        let ring = SealRing::new("d", key(2), vec![key(1)]);
        assert!(!ring.open(&place("a"), 1, None, &former).expect("open").by_first);
        let again = ring.seal(&place("a"), 2, None, b"x").expect("sealed");
        assert!(ring.open(&place("a"), 2, None, &again).expect("open").by_first);
        let without = SealRing::new("d", key(2), vec![]).open(&place("a"), 1, None, &former);
        assert_eq!(without.map(|_| ()), Err(OpenFault::UnknownKey(key(1).id())));
    }

    #[test]
    fn a_key_is_32_bytes_in_base64_or_hexadecimal() {
        let ids = [written(&[9; KEY]).to_string(), format!(" {}\n", "09".repeat(KEY)), "09".repeat(KEY)]
            .map(|text| SealKey::parse(text.as_bytes()).map(|key| key.id()));
        assert_eq!(ids, [Ok(key(9).id()); 3]);
        for text in
            ["", "short", "09", &"0g".repeat(KEY), &STANDARD.encode([0; 31]), &STANDARD.encode([0; 33])]
        {
            assert!(SealKey::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
