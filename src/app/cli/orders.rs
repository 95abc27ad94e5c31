//! `tidegate window` and `tidegate revoke`.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use serde::Deserialize;

use super::{
    Failure,
    ask::{Which, block_on},
    output,
};
use crate::{
    app::{
        admin::{Done, OpenWindow, Revoke},
        config::{amounts::Span, written::Written as _},
        status::{self, WindowReport},
    },
    decisions::{revoked::digest_of, token::claims},
    edges::small_file,
    flow::own_token,
};

#[derive(Debug, Subcommand)]
pub(super) enum Window {
    /// Open it for so long from now on, or give the one that is open another end
    Open {
        /// How long, such as 2h; at most 168h
        #[arg(long = "for", value_name = "TIME", value_parser = duration)]
        length: Duration,
        #[command(flatten)]
        which: Which,
    },
    /// What is open or listed, and which keys may be retired
    Show {
        #[command(flatten)]
        which: Which,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Close what was opened by command, and say which keys may be retired, and who uses the others
    Close {
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Debug, Args)]
pub(super) struct RevokeArguments {
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// All that this user or robot was given up to now, by the name that it has in Harbor
    #[arg(long, value_name = "NAME")]
    subject: Option<String>,
    /// The token in this file
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    Span::read(text).map(Span::duration).ok_or("a whole number and s, m or h, such as 2h")
}

impl Window {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let (report, json): (WindowReport, bool) = match self {
            Self::Open { length, which } => {
                let asked = OpenWindow { for_seconds: length.as_secs() };
                (block_on(which.client()?.post_json("/v1/window", &asked))?, false)
            }
            Self::Show { which, json } => (block_on(which.client()?.get("/v1/window"))?, json),
            Self::Close { which } => (block_on(which.client()?.post("/v1/window/close"))?, false),
        };
        let json = json.then(|| serde_json::to_string(&report)).transpose();
        let json = json.context("the window is no JSON")?.map(|text| text + "\n");
        Ok(output::print(&json.unwrap_or_else(|| status::render::window_report(&report))))
    }
}

/// The token in a file: by itself, behind `Bearer`, or in the answer to a token request.
fn token_in(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        token: String,
    }
    let text = std::str::from_utf8(bytes).ok()?.trim();
    let token = match serde_json::from_str::<Answer>(text) {
        Ok(answer) => answer.token,
        Err(_) => text.strip_prefix("Bearer ").unwrap_or(text).trim_start().to_owned(),
    };
    (own_token::claims_to_be_one(token.as_bytes()) || claims::read(&token).is_ok()).then_some(token)
}

impl RevokeArguments {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let asked = match (self.what.subject, self.what.token_file) {
            (Some(name), _) => Revoke::Subject(name),
            (None, Some(path)) => {
                let read = small_file::read(&path)
                    .map_err(|fault| anyhow!("{}: {fault}; {}", path.display(), fault.remedy()))?;
                let token = token_in(&read.bytes).ok_or_else(|| {
                    anyhow!("{}: it holds no token; give the token alone, or the answer to a token request as it is", path.display())
                })?;
                Revoke::token(digest_of(token.as_bytes()))
            }
            (None, None) => return Err(anyhow!("--subject or --token-file").into()),
        };
        let Done { .. } = block_on(self.which.client()?.post_json("/v1/revoke", &asked))?;
        Ok(output::print("revoked, on all replicas\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decisions::token::forge::Draft;

    #[test]
    fn a_file_holds_a_token_or_it_is_refused() {
        let token = Draft::of(0).with_signature(|_| vec![0; 3]);
        let table = [
            (token.clone(), Some(&*token)),
            (format!("\n {token}\r\n"), Some(&*token)),
            (format!("Bearer {token}\n"), Some(&*token)),
            (format!(r#"{{"token":"{token}","access_token":"","expires_in":1800}}"#), Some(&*token)),
            ("tidegate1_AAAA".to_owned(), Some("tidegate1_AAAA")),
            (String::new(), None),
            ("a-host-name\n".to_owned(), None),
            ("a.b.c".to_owned(), None),
            (r#"{"access_token":"x"}"#.to_owned(), None),
        ];
        for (text, want) in table {
            assert_eq!(token_in(text.as_bytes()).as_deref(), want, "{text}");
        }
        assert_eq!(token_in(&[0xff]), None);
    }
}
