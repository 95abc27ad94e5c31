//! What an operator should mend while serving goes on.

use std::error::Error;

use crate::words::clock::UnixTime;

/// One fault of a file, with its place, cause and remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    pub path: String,
    pub cause: String,
    pub remedy: &'static str,
    pub since: UnixTime,
    /// A warning leaves the file in use; an alarm means that what it held before is in use.
    pub is_warning: bool,
    /// At the start nothing may be served with it: Harbor's published default key.
    pub forbids_start: bool,
}

/// An error with all that led to it: "no TLS" alone doesn't tell an operator which certificate to mend.
pub fn cause(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        // hyper and std print their source themselves now and then.
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Outer(&'static str, #[source] io::Error);

    #[test]
    fn a_cause_names_every_source_once() {
        let error = |text| Outer(text, io::Error::other("unknown issuer"));
        assert_eq!(cause(&error("no TLS")), "no TLS: unknown issuer");
        assert_eq!(cause(&error("no TLS: unknown issuer")), "no TLS: unknown issuer");
    }
}
