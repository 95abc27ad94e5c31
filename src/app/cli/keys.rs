//! `tidegate keys`: what an operator does with the keys of a running tidegate.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Subcommand;

use super::{
    Failure,
    archive::{BackUp, Restore},
    ask::{Which, block_on},
    output,
};
use crate::{
    app::{
        admin::{Added, AddedKey, Published, client::Client},
        config::moment::Moment,
        status,
    },
    decisions::key::{self, Key, KeyFault},
    edges::{small_file, whole_file},
    words::kid::Kid,
};

#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// All keys with their full ids and states
    List {
        #[command(flatten)]
        which: Which,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Let a key verify that core signed with before tidegate saw it, until its last token has ended
    ///
    /// Its public half alone is taken, and kept in the store. A key that core signs with, or will, belongs in
    /// keys.sources.
    Add {
        /// PEM (a private key, a public key, a certificate) or a JWKS
        file: PathBuf,
        /// When core signed with it last, such as 2026-12-01T20:00:00Z; else now
        #[arg(long, value_name = "DATE", value_parser = date)]
        signed_until: Option<Moment>,
        /// One more name by which tokens may name it
        #[arg(long, value_name = "NAME", value_parser = name)]
        alias: Option<Kid>,
        #[command(flatten)]
        which: Which,
    },
    /// End a key: its tokens are refused from the next request on. By themselves keys end with their window
    Retire {
        /// Its id as `keys list` shows it, or the beginning of it that no other key has
        kid: String,
        /// At once, whatever tokens of it still live; else it is retired only if none can
        #[arg(long)]
        now: bool,
        #[command(flatten)]
        which: Which,
    },
    /// Write the keys that verify for distribution, which reads them at its start
    Publish {
        /// For `auth.token.jwks` of distribution 3: each key by its libtrust id, its thumbprint and its aliases
        #[arg(long, value_name = "FILE", required_unless_present = "bundle")]
        jwks: Option<PathBuf>,
        /// For `auth.token.rootcertbundle` of distribution 2.8: a certificate of each
        #[arg(long, value_name = "FILE")]
        bundle: Option<PathBuf>,
        #[command(flatten)]
        which: Which,
    },
    /// Write an archive of all keys with their private halves, of what was retired and of open windows
    ///
    /// Run it where the key files are that tidegate reads, as a user who may read them.
    BackUp(BackUp),
    /// Put back what an archive holds: key files as they were, what was retired, windows
    ///
    /// A key that a file holds until then goes on verifying for its window, so that the tokens of both are good.
    /// What was retired at once, then or since, is never put back.
    ///
    /// Exit code: 0 where all of it is as it was, 1 where a file is left out because its key was retired at once.
    Restore(Restore),
}

impl Keys {
    pub(super) fn run(self) -> Result<u8, Failure> {
        match self {
            Self::List { which, json } => {
                let client = which.client()?;
                let keys: Vec<status::Key> = block_on(client.get("/v1/keys"))?;
                let json = json.then(|| serde_json::to_string(&keys)).transpose();
                let json = json.context("keys are no JSON")?.map(|text| text + "\n");
                Ok(output::print(&json.unwrap_or_else(|| status::render::key_list(&keys))))
            }
            Self::Add { file, signed_until, alias, which } => {
                let keys = public_halves(&file, alias)?;
                let added = Added {
                    keys: keys.iter().map(AddedKey::of).collect(),
                    signed_until: signed_until.map(|moment| moment.0.0),
                };
                let client = which.client()?;
                let keys: anyhow::Result<Vec<status::Key>> = block_on(client.post_json("/v1/keys", &added));
                Ok(show(&keys.with_context(|| nothing_added(&file))?))
            }
            Self::Retire { kid, now, which } => {
                let client = which.client()?;
                Ok(show(&retire(&client, &kid, now)?))
            }
            Self::BackUp(back_up) => back_up.run(),
            Self::Restore(restore) => restore.run(),
            Self::Publish { jwks, bundle, which } => {
                let client = which.client()?;
                let published: Published = block_on(client.get("/v1/keys/published"))?;
                if published.bundle.is_empty() {
                    Err(anyhow!("nothing was written: no key verifies (`tidegate keys list` shows all)"))?;
                }
                let files = [(jwks, published.jwks + "\n"), (bundle, published.bundle)];
                let written = files.into_iter().filter_map(|(path, text)| Some((path?, text)));
                let said = written.map(|(path, text)| publish(&path, &text));
                Ok(output::print(&said.collect::<anyhow::Result<String>>()?))
            }
        }
    }
}

fn show(keys: &[status::Key]) -> u8 {
    output::print(&status::render::key_list(keys))
}

fn date(text: &str) -> Result<Moment, &'static str> {
    Moment::read(text).ok_or("a date and a time with a zone, such as 2026-12-01T20:00:00Z")
}

fn name(text: &str) -> Result<Kid, &'static str> {
    Kid::parse(text).ok_or("a name of visible ASCII characters")
}

fn nothing_added(file: &Path) -> String {
    format!("nothing of {} was added", file.display())
}

/// Private halves stay here.
fn public_halves(file: &Path, alias: Option<Kid>) -> anyhow::Result<Vec<Key>> {
    let of = |fault: KeyFault| anyhow!("{}: {fault}; {}", file.display(), fault.remedy());
    let read = small_file::read(file).map_err(|fault| of(fault.into()))?;
    let keys = key::parse(&read.bytes).map_err(of)?;
    match alias {
        None => Ok(keys),
        Some(_) if keys.len() > 1 => Err(of(KeyFault::AliasOfMany)),
        Some(alias) => Ok(keys.into_iter().map(|key| key.with_alias(alias.clone())).collect()),
    }
}

fn retire(client: &Client, kid: &str, at_once: bool) -> anyhow::Result<Vec<status::Key>> {
    let encoded = percent_encoding::utf8_percent_encode(kid, percent_encoding::NON_ALPHANUMERIC);
    let unless = if at_once { "" } else { "?unless=alive" };
    let retired = block_on(client.post(&format!("/v1/keys/{encoded}/retire{unless}")));
    retired.with_context(|| format!("{kid} was not retired"))
}

/// A file that says the same already is left alone, so that nobody reads it anew.
fn publish(path: &Path, text: &str) -> anyhow::Result<String> {
    let shown = path.display();
    if small_file::read(path).is_ok_and(|read| *read.bytes == *text.as_bytes()) {
        return Ok(format!("{shown} says this already\n"));
    }
    // What a link leads to is replaced, not the link.
    let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    whole_file::replace_as_ours(&target, text.as_bytes(), 0o644).with_context(|| {
        format!("{shown} was not written: name a file in a folder that this user may write to")
    })?;
    Ok(format!("{shown} is written\n"))
}
