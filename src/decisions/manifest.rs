//! Whether a manifest whose PUT was cut has been taken, by what its repository shows afterwards (A22).

/// What a `HEAD` on a manifest showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// There is none: 404.
    Absent,
    /// 200, with this `Docker-Content-Digest`.
    Digest(Box<str>),
    /// Anything else.
    Unclear,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The reference names it: the PUT was done.
    Taken,
    /// It was not done: it may be sent again.
    NotTaken,
    /// It may have been done and undone by another client since.
    Unclear,
}

/// The fate of the manifest `own`, where its reference shows `by_reference` and its own digest `by_digest`.
///
/// A reference that names another manifest proves nothing while ours is in the repository: another client may have
/// moved the tag after us, and sending it again would undo that.
pub fn fate(own: &str, by_reference: &Seen, by_digest: &Seen) -> Fate {
    match (by_reference, by_digest) {
        (Seen::Digest(digest), _) if **digest == *own => Fate::Taken,
        (Seen::Absent | Seen::Digest(_), Seen::Absent) | (Seen::Absent, Seen::Digest(_)) => Fate::NotTaken,
        (Seen::Unclear, _) | (_, Seen::Unclear) | (Seen::Digest(_), Seen::Digest(_)) => Fate::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a22_a_manifest_goes_up_again_only_where_it_can_not_have_been_taken() {
        let own = || Seen::Digest("sha256:own".into());
        let other = || Seen::Digest("sha256:other".into());
        for (by_reference, by_digest, expected) in [
            (own(), own(), Fate::Taken),
            (own(), Seen::Unclear, Fate::Taken),
            (Seen::Absent, Seen::Absent, Fate::NotTaken),
            (Seen::Absent, own(), Fate::NotTaken),
            (other(), Seen::Absent, Fate::NotTaken),
            (other(), own(), Fate::Unclear),
            (other(), Seen::Unclear, Fate::Unclear),
            (Seen::Absent, Seen::Unclear, Fate::Unclear),
            (Seen::Unclear, Seen::Absent, Fate::Unclear),
        ] {
            let case = format!("{by_reference:?} {by_digest:?}");
            assert_eq!(fate("sha256:own", &by_reference, &by_digest), expected, "{case}");
        }
    }
}
