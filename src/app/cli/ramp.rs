//! `tidegate ramp`: the move to the endpoints with `side = "next"`, step by step.

use clap::Subcommand;

use super::{
    Failure,
    ask::{Which, block_on},
    output,
};
use crate::app::{
    ramp::Steer,
    status::{self, render},
};

#[derive(Debug, Subcommand)]
pub(super) enum Ramp {
    /// How it stands: its share, its next step, what failed
    Show {
        #[command(flatten)]
        which: Which,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Send so many percent of clients to the next side, whatever the plan says, until the process ends or its `[ramp]`
    /// changes
    Set {
        /// 0 to 100
        #[arg(value_parser = clap::value_parser!(u8).range(0..=100))]
        share: u8,
        #[command(flatten)]
        which: Which,
    },
    /// Send everything to the current side, until `resume` or `set`
    Stop {
        #[command(flatten)]
        which: Which,
    },
    /// Go on as planned, after a stop or `set`
    Resume {
        #[command(flatten)]
        which: Which,
    },
}

impl Ramp {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let (which, json, how) = match self {
            Self::Show { which, json } => (which, json, None),
            Self::Set { share, which } => (which, false, Some(Steer::Set(share))),
            Self::Stop { which } => (which, false, Some(Steer::Stop)),
            Self::Resume { which } => (which, false, Some(Steer::Resume)),
        };
        let client = which.client()?;
        let ramp: status::Ramp = match how {
            None => block_on(client.get("/v1/ramp"))?,
            Some(how) => block_on(client.post_json("/v1/ramp", &how))?,
        };
        let text = if json {
            serde_json::to_string(&ramp).map_err(anyhow::Error::from)? + "\n"
        } else {
            render::ramp_screen(&ramp)
        };
        Ok(output::print(&text))
    }
}
