//! The record of what a process ended: a write or a refusal that ends grants, and answers to token requests, on all
//! replicas, and grants after a restart too.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::{
    decisions::grace::ends::{End, ProcessId, Whose},
    words::clock::UnixTime,
};

/// The format that this version writes.
const VERSION: u32 = 1;

/// It is no end that this version knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no record of an end that this version knows")]
pub struct NoEnd;

#[derive(Deserialize, Serialize)]
struct Written {
    v: u32,
    by: String,
    number: u64,
    at: i64,
    of: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    project: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    credential: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
}

pub fn write(end: &End) -> Vec<u8> {
    let (mut project, mut credential, mut subject) = (None, None, None);
    let of = match &end.whose {
        Whose::All => "all",
        Whose::Project(name) => {
            project = Some(name.to_string());
            "project"
        }
        Whose::Credential(secret) => {
            credential = Some(STANDARD.encode(secret));
            "credential"
        }
        Whose::Subject(name) => {
            subject = Some(name.to_string());
            "subject"
        }
        Whose::Answers { replays: false } => "answers",
        Whose::Answers { replays: true } => "replays",
    };
    let End { by, number, at, .. } = end;
    let (by, of) = (by.to_string(), of.to_owned());
    let written = Written { v: VERSION, by, number: *number, at: at.0, of, project, credential, subject };
    // Texts and numbers alone: this can't fail.
    serde_json::to_vec(&written).unwrap_or_default()
}

pub fn read(text: &[u8]) -> Result<End, NoEnd> {
    parse(text).ok_or(NoEnd)
}

fn parse(text: &[u8]) -> Option<End> {
    let written: Written = serde_json::from_slice(text).ok()?;
    let whose = match &*written.of {
        "all" => Whose::All,
        "project" => Whose::Project(written.project?.into()),
        "credential" => Whose::Credential(STANDARD.decode(written.credential?).ok()?.try_into().ok()?),
        "subject" => Whose::Subject(written.subject?.into()),
        "answers" => Whose::Answers { replays: false },
        "replays" => Whose::Answers { replays: true },
        _ => return None,
    };
    let by = ProcessId::parse(&written.by)?;
    Some(End { by, number: written.number, at: UnixTime(written.at), whose })
}

/// A process alone writes its records: of two of one place the one of the higher number is the later one.
pub(super) fn merge(present: &[u8], ours: &[u8]) -> Vec<u8> {
    let number = |text| read(text).map_or(0, |end| end.number);
    if number(present) > number(ours) { present.to_vec() } else { ours.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(number: u64, whose: Whose) -> End {
        End { by: ProcessId(0xab), number, at: UnixTime(7), whose }
    }

    #[test]
    fn an_end_is_read_as_it_was_written_and_unknown_ones_are_refused() {
        let of_users = [Whose::Credential([3; 32]), Whose::Subject("dev".into())];
        let of_grants = of_users.into_iter().chain([Whose::All, Whose::Project("mine".into())]);
        let of_answers = [false, true].map(|replays| Whose::Answers { replays });
        for whose in of_grants.chain(of_answers) {
            assert_eq!(read(&write(&end(9, whose.clone()))), Ok(end(9, whose)));
        }
        let mut other: serde_json::Value = serde_json::from_slice(&write(&end(9, Whose::All))).expect("JSON");
        other["colour"] = "green".into();
        assert_eq!(read(other.to_string().as_bytes()), Ok(end(9, Whose::All)));
        other["of"] = "moon".into();
        assert_eq!(read(other.to_string().as_bytes()), Err(NoEnd));
    }

    #[test]
    fn the_later_one_counts() {
        let written = |number| write(&end(number, Whose::All));
        for (present, ours, want) in [(1, 2, 2), (2, 1, 2)] {
            assert_eq!(merge(&written(present), &written(ours)), written(want));
        }
        assert_eq!(merge(b"torn", &written(1)), written(1));
    }
}
