//! The record of what one process saw of keys' tokens: each replica has its own, and all are joined by who reads them.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::{
    decisions::evidence::{Count, Evidence, Seen, WORDS},
    words::{clock::UnixTime, kid::Kid},
};

/// The format that this version writes.
const VERSION: u32 = 1;

/// It is no record of evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no record of evidence that this version knows")]
pub struct NoEvidence;

#[derive(Deserialize, Serialize)]
struct Written {
    v: u32,
    keys: Vec<WrittenKey>,
}

#[derive(Deserialize, Serialize)]
struct WrittenKey {
    kid: String,
    last: i64,
    latest_exp: i64,
    principals: String,
    clients: String,
}

impl Evidence {
    pub fn write(&self) -> Vec<u8> {
        let key = |(kid, seen): (&Kid, &Seen)| WrittenKey {
            kid: kid.to_string(),
            last: seen.last.0,
            latest_exp: seen.latest_exp.0,
            principals: text(&seen.principals),
            clients: text(&seen.clients),
        };
        let written = Written { v: VERSION, keys: self.keys().map(key).collect() };
        // Texts and numbers alone: this can't fail.
        serde_json::to_vec(&written).unwrap_or_default()
    }

    pub fn read(record: &[u8]) -> Result<Self, NoEvidence> {
        let written: Written = serde_json::from_slice(record).map_err(|_| NoEvidence)?;
        let key = |written: &WrittenKey| {
            let seen = Seen {
                last: UnixTime(written.last),
                latest_exp: UnixTime(written.latest_exp),
                principals: count(&written.principals)?,
                clients: count(&written.clients)?,
            };
            Some((Kid::parse(&written.kid)?, seen))
        };
        let keys = written.keys.iter().map(key).collect::<Option<Vec<_>>>().ok_or(NoEvidence)?;
        Ok(Self::of(keys.into_iter()))
    }
}

fn text(count: &Count) -> String {
    STANDARD.encode(count.words().iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>())
}

fn count(text: &str) -> Option<Count> {
    let bytes = STANDARD.decode(text).ok().filter(|bytes| bytes.len() == WORDS * 8)?;
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_be_bytes(bytes.try_into().ok()?);
    }
    Some(Count::of_words(&words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_read_as_it_was_written_and_holds_no_name() {
        let mut evidence = Evidence::default();
        let (kid, client) = (Kid::parse("K").expect("a name"), [10, 0, 0, 1].into());
        evidence.note(&kid, ("robot$ci", client), UnixTime(9), UnixTime(7));
        let written = evidence.write();
        assert_eq!(Evidence::read(&written), Ok(evidence));
        let text = String::from_utf8(written).expect("text");
        assert!(!text.contains("robot") && !text.contains("10.0.0"), "{text}");
        let later = text.replacen(r#"{"v":1"#, r#"{"colour":"green","v":2"#, 1);
        assert!(Evidence::read(later.as_bytes()).is_ok());
        for bad in ["{}", &text.replace(r#""principals":""#, r#""principals":"AAAA"#)] {
            assert_eq!(Evidence::read(bad.as_bytes()), Err(NoEvidence), "{bad}");
        }
    }
}
