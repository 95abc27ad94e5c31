//! `tidegate hash-secret`: what `former_hash_file` holds. The secret comes by a file or a pipe, never as an argument, which
//! every process of the machine could read.

use std::{
    io::{self, IsTerminal as _, Read as _},
    path::PathBuf,
};

use anyhow::{Context as _, anyhow};
use aws_lc_rs::rand;
use clap::Args;
use zeroize::Zeroizing;

use super::{Failure, output};
use crate::{
    decisions::former::{self, SALT},
    edges::small_file,
};

/// No secret of Harbor's is longer.
const LONGEST: u64 = 64 * 1024;

#[derive(Debug, Args)]
pub(super) struct HashSecret {
    /// The file with the secret; else standard input
    file: Option<PathBuf>,
}

impl HashSecret {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let read = match &self.file {
            Some(path) => {
                small_file::read(path)
                    .map_err(|fault| anyhow!("{}: {fault}; {}", path.display(), fault.remedy()))?
                    .bytes
            }
            None => from_standard_input()?,
        };
        let secret = read.strip_suffix(b"\n").unwrap_or(&read);
        let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
        if secret.is_empty() {
            Err(anyhow!("there is no secret: tidegate hash-secret < FILE"))?;
        }
        let mut salt = [0; SALT];
        rand::fill(&mut salt).ok().context("no randomness")?;
        let hash = former::hash(secret, &salt).context("the secret can't be hashed")?;
        Ok(output::print(&(hash + "\n")))
    }
}

fn from_standard_input() -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let input = io::stdin();
    if input.is_terminal() {
        return Err(anyhow!("a terminal would show the secret: tidegate hash-secret < FILE"));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST as usize));
    input.lock().take(LONGEST).read_to_end(&mut bytes).context("standard input can't be read")?;
    Ok(bytes)
}
