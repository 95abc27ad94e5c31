//! A robot's former secret as it is kept: the argon2id hash of it, in PHC's form (A29). Pure, and dear: some 20 ms and
//! 19 MiB each.

use std::fmt;

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};

/// A hash that a secret can be held against.
#[derive(Clone, PartialEq, Eq)]
pub struct FormerHash(String);

/// Why a text is no such hash. None of them says what it is: it may be the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashFault {
    /// Nothing.
    #[error("the file is empty")]
    Empty,
    /// A secret as it is, or another hash.
    #[error("it is no argon2id hash in PHC's form; is it the secret itself?")]
    Plain,
    /// Cut, or written anew.
    #[error("it begins as an argon2id hash and can't be read as one")]
    Broken,
    /// Whoever tries a secret would hold up others.
    #[error("its cost is beyond what is taken: 64 MiB, 10 passes, 4 lanes")]
    TooDear,
}

impl HashFault {
    /// What mends it.
    pub fn remedy(self) -> &'static str {
        "write one: tidegate hash-secret < FORMER > FILE"
    }
}

/// KiB, passes and lanes of what we make: the second choice of OWASP's cheat sheet of 2023.
const COST: (u32, u32, u32) = (19_456, 2, 1);
/// The same of what is taken.
const MOST: (u32, u32, u32) = (65_536, 10, 4);
/// Bytes of a salt.
pub const SALT: usize = 16;

impl fmt::Debug for FormerHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FormerHash")
    }
}

impl FormerHash {
    /// Reads what [`hash`] wrote, or another program for argon2id.
    pub fn parse(text: &str) -> Result<Self, HashFault> {
        let text = text.trim();
        if text.is_empty() {
            return Err(HashFault::Empty);
        }
        if !text.starts_with("$argon2id$") {
            return Err(HashFault::Plain);
        }
        let read = PasswordHash::new(text).map_err(|_| HashFault::Broken)?;
        let params = Params::try_from(&read).map_err(|_| HashFault::Broken)?;
        if read.salt.is_none() || read.hash.is_none() {
            return Err(HashFault::Broken);
        }
        let (memory, passes, lanes) = MOST;
        if params.m_cost() > memory || params.t_cost() > passes || params.p_cost() > lanes {
            return Err(HashFault::TooDear);
        }
        Ok(Self(text.to_owned()))
    }

    /// Whether it is this secret's.
    pub fn is_of(&self, secret: &[u8]) -> bool {
        PasswordHash::new(&self.0).is_ok_and(|hash| Argon2::default().verify_password(secret, &hash).is_ok())
    }

    /// What tells it from others.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// The hash of a secret, in PHC's form; `None` for a secret that argon2 doesn't take.
pub fn hash(secret: &[u8], salt: &[u8; SALT]) -> Option<String> {
    let (memory, passes, lanes) = COST;
    let params = Params::new(memory, passes, lanes, None).ok()?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password_with_salt(secret, salt).ok().map(|hash| hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a29_a_hash_is_of_its_secret_alone_and_a_plain_secret_is_none() {
        let text = hash(b"former", &[7; SALT]).expect("a hash");
        assert!(text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
        let read = FormerHash::parse(&format!("{text}\n")).expect("a hash");
        assert!(read.is_of(b"former") && !read.is_of(b"former ") && !read.is_of(b""));
        assert_eq!(format!("{read:?}"), "FormerHash");
        let argon2i = text.replace("argon2id", "argon2i");
        let dear = text.replace("m=19456", "m=1000000");
        let table = [
            ("", HashFault::Empty),
            (" \n", HashFault::Empty),
            ("Harbor12345", HashFault::Plain),
            (&argon2i, HashFault::Plain),
            ("$2b$12$abcdefghijklmnopqrstuv", HashFault::Plain),
            ("$argon2id$v=19$m=19456,t=2,p=1", HashFault::Broken),
            ("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ", HashFault::Broken),
            (&text[..40], HashFault::Broken),
            (&dear, HashFault::TooDear),
            (&text.replace("t=2", "t=11"), HashFault::TooDear),
        ];
        for (text, want) in table {
            assert_eq!(FormerHash::parse(text), Err(want), "{text:?}");
        }
    }

    #[test]
    fn another_programs_hash_is_read_as_well() {
        // The reference implementation's own: argon2 somesalt -id -t 2 -m 16 -p 1, of "password".
        let theirs = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let read = FormerHash::parse(theirs).expect("a hash");
        assert!(read.is_of(b"password") && !read.is_of(b"Password"));
    }
}
