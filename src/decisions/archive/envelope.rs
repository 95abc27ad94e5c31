//! The envelope of an archive: `head, nonce, ciphertext, tag, checksum`. The head says what opens it and is bound to
//! what is sealed; the checksum, which anybody can make, tells damage from a wrong secret before either is tried.

use std::num::NonZeroU32;

use aws_lc_rs::{
    digest::{SHA256, digest},
    pbkdf2,
};
use zeroize::Zeroizing;

use crate::decisions::record::seal::{KEY, SealKey};

const MAGIC: &[u8] = b"tidegate keys\n";
/// The version that is written, and the only one so far.
pub const VERSION: u8 = 1;
/// Of the random part of a passphrase's key, in bytes.
pub const SALT: usize = 16;
/// What the whole head takes: magic, version, kind, salt, iterations.
const HEAD: usize = MAGIC.len() + 2 + SALT + 4;
const CHECKSUM: usize = 32;
/// PBKDF2-HMAC-SHA-256 as OWASP's cheat sheet of 2023 has it: about a quarter of a second.
pub const ITERATIONS: u32 = 600_000;
/// More would hold up whoever opens a forged archive.
const MOST_ITERATIONS: u32 = 10_000_000;
/// A shorter passphrase is guessed sooner than it is stretched.
pub const SHORTEST_PASSPHRASE: usize = 12;

/// What seals and opens.
#[derive(Debug)]
pub enum Secret {
    Key(SealKey),
    Passphrase(Passphrase),
}

/// Text that a person chose.
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase")
    }
}

impl Passphrase {
    /// From a file's text: white space around it doesn't count. `None` where it is too short.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = text.trim_ascii();
        (text.len() >= SHORTEST_PASSPHRASE).then(|| Self(Zeroizing::new(text.to_vec())))
    }

    fn stretched(&self, salt: &[u8], iterations: u32) -> Result<SealKey, EnvelopeFault> {
        let iterations = NonZeroU32::new(iterations).ok_or(EnvelopeFault::Damaged)?;
        let mut key = Zeroizing::new([0; KEY]);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, &self.0, &mut *key);
        SealKey::new(&key).map_err(|_| EnvelopeFault::Damaged)
    }
}

/// Why an envelope doesn't open. Whichever byte of an archive was flipped, and wherever it was cut, is
/// [`Self::Damaged`]: nothing else is looked at before the checksum fits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeFault {
    /// It never was one.
    #[error("it is no archive of tidegate's keys")]
    Foreign,
    #[error("it is damaged or not whole: its checksum doesn't fit")]
    Damaged,
    #[error("it is of a later version of tidegate")]
    Later,
    #[error("it was sealed with a passphrase")]
    WantsPassphrase,
    #[error("it was sealed with a key, by the id {0}")]
    WantsKey(String),
    #[error("it was sealed with another key, by the id {0}")]
    OtherKey(String),
    #[error("the passphrase is not the one that it was sealed with")]
    OtherPassphrase,
    #[error("its seal is broken though its checksum fits: somebody changed it")]
    Forged,
}

impl EnvelopeFault {
    /// What mends it, in words for the operator.
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Foreign => "name a file that `tidegate keys back-up` made",
            Self::Damaged => "take another copy of it",
            Self::Later => "restore it with the tidegate that made it, or a later one",
            Self::WantsPassphrase | Self::OtherPassphrase => "name its file with --passphrase-file",
            Self::WantsKey(_) | Self::OtherKey(_) => "name the file of that key with --key-file",
            Self::Forged => "take a copy from a place that only you can write to",
        }
    }
}

/// The archive could not be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the archive can't be sealed: there is no randomness")]
pub struct NotSealed;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Key = 1,
    Passphrase = 2,
}

/// Seals with `secret`; `salt` is random and new each time, `iterations` is [`ITERATIONS`] but in tests.
pub fn seal(plain: &[u8], secret: &Secret, salt: [u8; SALT], iterations: u32) -> Result<Vec<u8>, NotSealed> {
    let stretched;
    let (kind, salt, iterations, key) = match secret {
        Secret::Key(key) => (Kind::Key, named(key), 0, key),
        Secret::Passphrase(passphrase) => {
            stretched = passphrase.stretched(&salt, iterations).map_err(|_| NotSealed)?;
            (Kind::Passphrase, salt, iterations, &stretched)
        }
    };
    let head = [MAGIC, &[VERSION, kind as u8], &salt, &iterations.to_be_bytes()].concat();
    let sealed = key.seal_bound(&head, plain).map_err(|_| NotSealed)?;
    let mut whole = [head, sealed].concat();
    let checksum = digest(&SHA256, &whole);
    whole.extend_from_slice(checksum.as_ref());
    Ok(whole)
}

/// What was sealed.
pub fn open(whole: &[u8], secret: &Secret) -> Result<Zeroizing<Vec<u8>>, EnvelopeFault> {
    if !began_as_one(whole) {
        return Err(EnvelopeFault::Foreign);
    }
    let (content, checksum) = whole.split_last_chunk::<CHECKSUM>().ok_or(EnvelopeFault::Damaged)?;
    if digest(&SHA256, content).as_ref() != checksum {
        return Err(EnvelopeFault::Damaged);
    }
    let (head, sealed) = content.split_at_checked(HEAD).ok_or(EnvelopeFault::Damaged)?;
    let (version, kind, salt, iterations) = parts(head).ok_or(EnvelopeFault::Damaged)?;
    let kind = match (version, kind) {
        (VERSION, 1) => Kind::Key,
        (VERSION, 2) => Kind::Passphrase,
        _ => return Err(EnvelopeFault::Later),
    };
    match (kind, secret) {
        (Kind::Key, Secret::Passphrase(_)) => Err(EnvelopeFault::WantsKey(hexadecimal(salt))),
        (Kind::Passphrase, Secret::Key(_)) => Err(EnvelopeFault::WantsPassphrase),
        (Kind::Key, Secret::Key(key)) if named(key) != salt => {
            Err(EnvelopeFault::OtherKey(hexadecimal(salt)))
        }
        (Kind::Key, Secret::Key(key)) => key.open_bound(head, sealed).map_err(|_| EnvelopeFault::Forged),
        (Kind::Passphrase, Secret::Passphrase(_)) if iterations > MOST_ITERATIONS => {
            Err(EnvelopeFault::Forged)
        }
        (Kind::Passphrase, Secret::Passphrase(passphrase)) => {
            let key = passphrase.stretched(salt, iterations)?;
            key.open_bound(head, sealed).map_err(|_| EnvelopeFault::OtherPassphrase)
        }
    }
}

/// Whether at least half of a file's beginning, as far as it goes, is an archive's: one that was damaged there, or cut
/// to nothing, is still no stranger's.
fn began_as_one(whole: &[u8]) -> bool {
    let there = whole.len().min(MAGIC.len());
    whole.iter().zip(MAGIC).filter(|(found, ours)| found == ours).count() >= there.div_ceil(2)
}

/// Version, kind, salt, iterations.
fn parts(head: &[u8]) -> Option<(u8, u8, &[u8], u32)> {
    let (&[version, kind], rest) = head.get(MAGIC.len()..)?.split_first_chunk::<2>()?;
    let (salt, iterations) = rest.split_at_checked(SALT)?;
    Some((version, kind, salt, u32::from_be_bytes(iterations.try_into().ok()?)))
}

/// The id of the key, in the place of a salt.
fn named(key: &SealKey) -> [u8; SALT] {
    let mut name = [0; SALT];
    for (to, from) in name.iter_mut().zip(key.id().bytes()) {
        *to = from;
    }
    name
}

/// As the id of a sealing key is written.
fn hexadecimal(name: &[u8]) -> String {
    use std::fmt::Write as _;
    name.iter().take(SALT / 2).fold(String::new(), |mut text, byte| {
        // Writing to a text can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> Secret {
        Secret::Key(SealKey::new(&[n; KEY]).expect("a key"))
    }

    fn passphrase(text: &str) -> Secret {
        Secret::Passphrase(Passphrase::parse(text.as_bytes()).expect("long enough"))
    }

    fn sealed(secret: &Secret) -> Vec<u8> {
        seal(b"keys of a deployment", secret, [3; SALT], 10).expect("sealed")
    }

    #[test]
    fn what_is_sealed_opens_with_its_secret_alone() {
        for secret in [key(1), passphrase("twelve words, or so")] {
            let whole = sealed(&secret);
            assert!(!whole.windows(10).any(|part| part == b"deployment"));
            assert_eq!(open(&whole, &secret).expect("open").as_slice(), b"keys of a deployment");
        }
        let Secret::Key(first) = key(1) else { return };
        let id = first.id().to_string();
        for (whole, secret, fault) in [
            (sealed(&key(1)), key(2), EnvelopeFault::OtherKey(id.clone())),
            (sealed(&key(1)), passphrase("twelve words, or so"), EnvelopeFault::WantsKey(id)),
            (sealed(&passphrase("twelve words, or so")), key(1), EnvelopeFault::WantsPassphrase),
            (
                sealed(&passphrase("twelve words, or so")),
                passphrase("twelve other words"),
                EnvelopeFault::OtherPassphrase,
            ),
        ] {
            assert_eq!(open(&whole, &secret).map(|_| ()), Err(fault));
        }
        assert!(Passphrase::parse(b"  too short \n").is_none());
    }

    #[test]
    fn a_flipped_byte_a_cut_and_a_rest_have_one_reason() {
        for secret in [key(1), passphrase("twelve words, or so")] {
            let whole = sealed(&secret);
            let damaged = |bytes: &[u8], what: &str| {
                assert_eq!(open(bytes, &secret).map(|_| ()), Err(EnvelopeFault::Damaged), "{what}");
            };
            for at in 0..whole.len() {
                for flip in [1, 0x80, 0xff] {
                    let mut flipped = whole.clone();
                    flipped[at] ^= flip;
                    damaged(&flipped, &format!("byte {at} by {flip}"));
                }
                damaged(&whole[..at], &format!("cut at {at}"));
            }
            for rest in [&[0][..], b"\n", &whole] {
                damaged(&[&whole, rest].concat(), "a rest");
            }
        }
    }

    #[test]
    fn what_never_was_an_archive_is_told_from_a_damaged_one() {
        let zeros = vec![0; 5_000];
        for foreign in [&b"-----BEGIN RSA PRIVATE KEY-----\n"[..], b"x", b"{\"v\":1}", &zeros] {
            assert_eq!(open(foreign, &key(1)).map(|_| ()), Err(EnvelopeFault::Foreign), "{foreign:?}");
        }
    }

    #[test]
    fn who_makes_the_checksum_anew_gets_no_further() {
        let forge = |secret: &Secret, at: usize, byte: u8| {
            let mut whole = sealed(secret);
            whole.truncate(whole.len() - CHECKSUM);
            whole[at] ^= byte;
            whole.extend_from_slice(digest(&SHA256, &whole).as_ref());
            open(&whole, secret).map(|_| ())
        };
        let long = passphrase("twelve words, or so");
        assert_eq!(forge(&key(1), HEAD + 20, 1), Err(EnvelopeFault::Forged));
        assert_eq!(forge(&key(1), MAGIC.len(), 3), Err(EnvelopeFault::Later));
        assert_eq!(forge(&key(1), MAGIC.len() + 1, 7), Err(EnvelopeFault::Later));
        assert_eq!(forge(&key(1), HEAD - 1, 1), Err(EnvelopeFault::Forged), "the head is bound");
        assert_eq!(forge(&long, HEAD - 4, 0xff), Err(EnvelopeFault::Forged), "billions of rounds");
        assert_eq!(forge(&long, HEAD - 1, 1), Err(EnvelopeFault::OtherPassphrase));
    }
}
