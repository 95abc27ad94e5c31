//! Endpoints that hold a key which we can't sign with: for `check`, and for the alarms of `status`. Pure.

use super::status::render::short;
use crate::{
    decisions::{
        plan::Held,
        ring::{Ring, State},
    },
    words::{clock::UnixTime, kid::Kid},
};

/// One held key that doesn't fit ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// The endpoint that holds it.
    pub endpoint: String,
    pub cause: String,
    pub remedy: &'static str,
}

/// All of them. Without any key nothing is amiss: such a set-up re-routes and replays, and means to sign nothing.
pub fn misfits<'a>(
    ring: &Ring,
    endpoints: impl IntoIterator<Item = (&'a str, &'a Held)>,
    now: UnixTime,
) -> Vec<Misfit> {
    if !ring.has_keys() {
        return Vec::new();
    }
    let of = |(name, held): (&'a str, &'a Held)| {
        held.kids().filter_map(move |kid| {
            let (cause, remedy) = misfit(ring, kid, now)?;
            Some(Misfit { endpoint: name.to_owned(), cause, remedy })
        })
    };
    endpoints.into_iter().flat_map(of).collect()
}

fn misfit(ring: &Ring, kid: &Kid, now: UnixTime) -> Option<(String, &'static str)> {
    let held = short(kid.as_str());
    match ring.find(kid.as_str()) {
        Some(entry) if entry.state(now) == State::Retired => Some((
            format!("it holds {held}, which is retired here: the tokens that it issues are refused"),
            "give core the key that follows",
        )),
        Some(entry) if entry.key().can_sign() => None,
        Some(_) => Some((
            format!(
                "it holds {held}, of which only the public half is here: no token can be signed again for it"
            ),
            "name core's private key file in keys.sources (--key), not its certificate",
        )),
        None => Some((
            format!("it holds {held}; no private key of ours is it, so tokens can't be signed again for it"),
            "is this the file that core reads? Name core's private key file in keys.sources (--key)",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decisions::{
        key::{self, Key, forge},
        ring::{Keeper, Listed, Listing, Overlap, Policy, SourceName},
    };

    const NOW: UnixTime = UnixTime(1_000_000);

    fn ring(sources: Vec<(Key, Option<Listed>)>) -> Ring {
        let lives = std::time::Duration::from_mins(30);
        let mut keeper = Keeper::new(Policy { overlap: Overlap::Auto, token_lifetime: lives, leeway: lives });
        for (place, (key, state)) in sources.into_iter().enumerate() {
            let name = SourceName::new(&format!("/{place}"));
            keeper.declare(&name, Listing { state, ..Listing::default() });
            keeper.observe(&name, Ok(vec![key]), NOW);
        }
        Ring::clone(keeper.ring())
    }

    fn public(which: usize) -> Key {
        key::parse(forge::rsa(which).public_pem().as_bytes()).expect("a key").remove(0)
    }

    #[test]
    fn a_held_key_that_we_cannot_sign_with_is_named_with_its_remedy() {
        let one = |which: usize| Held::One(forge::rsa(which).key().kid().clone());
        let several =
            Held::Several(vec![forge::rsa(0).key().kid().clone(), forge::rsa(1).key().kid().clone()]);
        let private = |which: usize| (forge::rsa(which).key(), None);
        let table = [
            (vec![], one(0), None, "without keys nothing is meant to be signed"),
            (vec![private(0)], one(0), None, "ours"),
            (vec![(forge::rsa(0).key(), Some(Listed::Announced))], one(0), None, "core may be ahead"),
            (vec![(forge::rsa(0).key(), Some(Listed::Verifying))], one(0), None, "or behind"),
            (vec![private(0)], Held::Unknown, None, "not asked yet"),
            (vec![private(0)], Held::CannotSign, None, "that is an alarm of its own"),
            (vec![private(0)], one(1), Some("no private key of ours"), "another file than core's"),
            (vec![private(0)], several, Some("no private key of ours"), "one of the replicas"),
            (vec![(public(0), None)], one(0), Some("only the public half"), "a certificate"),
            (vec![(forge::rsa(0).key(), Some(Listed::Retired))], one(0), Some("retired"), "still held"),
        ];
        for (sources, held, expected, why) in table {
            let found = misfits(&ring(sources), [("core", &held)], NOW);
            let causes: Vec<&str> = found.iter().map(|misfit| misfit.cause.as_str()).collect();
            match expected {
                None => assert!(causes.is_empty(), "{why}: {causes:?}"),
                Some(words) => assert!(causes.len() == 1 && causes[0].contains(words), "{why}: {causes:?}"),
            }
        }
    }
}
