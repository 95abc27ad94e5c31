//! What ended grants before their time: a write, a refusal or an operator's word (A2, A15, A20). A grant counts only where whoever asked for it
//! knew of all that concerns it when it asked, so that of two replicas no clock decides whose word came later.
//!
//! Each process of a deployment numbers what it ends. What a process knows at one moment is the last number of each
//! ([`Seen`]); a grant carries what its process knew, and is over where some end of another number concerns it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    hash::Hash,
    sync::Arc,
};

use super::LONGEST;
use crate::words::{clock::UnixTime, route::project_of, scope::Access};

/// One process of a deployment, from its start to its end: a number that nobody else has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub u64);

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl ProcessId {
    /// As it is written.
    pub fn parse(text: &str) -> Option<Self> {
        u64::from_str_radix(text, 16).ok().filter(|_| text.len() == 16).map(Self)
    }
}

/// A keyed hash of a credential.
pub type Secret = [u8; 32];

/// Whose grants end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Everybody's.
    All,
    /// What was granted in this project, and log-ins of its robots.
    Project(Box<str>),
    /// This credential's.
    Credential(Secret),
    /// All that was granted to this user, by the name that Harbor's tokens have in `sub`.
    Subject(Box<str>),
    /// Nobody's: a write went through that may have changed what a credential may do, so that answers to token requests
    /// that are kept mean nothing, and where `replays`, credentials for replay neither (A2).
    Answers { replays: bool },
}

/// One end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Who saw it.
    pub by: ProcessId,
    /// Its number there.
    pub number: u64,
    /// When.
    pub at: UnixTime,
    pub whose: Whose,
}

impl End {
    /// From then on no grant is left that it could end.
    pub fn over(&self) -> UnixTime {
        self.at.plus(LONGEST)
    }
}

/// What was known at one moment: the last number of each process that has ended anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(Arc<[(ProcessId, u64)]>);

impl Seen {
    fn of(&self, by: ProcessId) -> u64 {
        self.0.iter().find(|(process, _)| *process == by).map_or(0, |(_, number)| *number)
    }

    pub fn iter(&self) -> impl Iterator<Item = (ProcessId, u64)> {
        self.0.iter().copied()
    }
}

impl FromIterator<(ProcessId, u64)> for Seen {
    fn from_iter<T: IntoIterator<Item = (ProcessId, u64)>>(all: T) -> Self {
        Self(all.into_iter().collect())
    }
}

/// Projects, credentials and users, whose last end is remembered; with one more, everybody's grants end.
const PROJECTS: usize = 4_096;
const SUBJECTS: usize = 4_096;
const CREDENTIALS: usize = 65_536;

#[derive(Clone, Copy, Debug)]
struct Mark {
    by: ProcessId,
    number: u64,
    at: UnixTime,
}

/// The last end of each process.
type Marks = Vec<Mark>;

/// All that is known to have ended.
#[derive(Debug, Default)]
pub struct Ends {
    own: ProcessId,
    /// The last number that was given here, whosoever grants it ended.
    last: u64,
    numbers: BTreeMap<ProcessId, u64>,
    seen: Seen,
    of_all: Marks,
    of_project: HashMap<Box<str>, Marks>,
    of_credential: HashMap<Secret, Marks>,
    of_subject: HashMap<Box<str>, Marks>,
    /// Writes that ended answers; apart, those that ended replays too.
    of_answers: BTreeMap<bool, Marks>,
}

impl Ends {
    /// Nothing has ended; `own` = who numbers what is added.
    pub fn new(own: ProcessId) -> Self {
        Self { own, ..Self::default() }
    }

    /// Who numbers what is added.
    pub fn own(&self) -> ProcessId {
        self.own
    }

    /// What is known now.
    pub fn seen(&self) -> Seen {
        self.seen.clone()
    }

    /// Something ends here and now. Where there is no room to remember whose, everybody's.
    pub fn add(&mut self, whose: Whose, at: UnixTime) -> End {
        self.last += 1;
        let end = End { by: self.own, number: self.last, at, whose };
        self.take(end)
    }

    /// Another process has seen this end; whether it is one of answers that wasn't known.
    pub fn learn(&mut self, end: End) -> bool {
        let is_news = match end.whose {
            Whose::Answers { replays } => {
                let known =
                    self.of_answers.get(&replays).into_iter().flatten().find(|mark| mark.by == end.by);
                end.by != self.own && known.is_none_or(|known| known.number < end.number)
            }
            Whose::All | Whose::Project(_) | Whose::Credential(_) | Whose::Subject(_) => false,
        };
        self.take(end);
        is_news
    }

    fn take(&mut self, mut end: End) -> End {
        let End { by, number, at, .. } = end;
        let mark = Mark { by, number, at };
        if !self.has_room(&end.whose) {
            end.whose = Whose::All;
        }
        match &end.whose {
            Whose::All => {
                // What it ended of one alone is among it.
                drop_until(&mut self.of_project, mark);
                drop_until(&mut self.of_credential, mark);
                drop_until(&mut self.of_subject, mark);
                set(&mut self.of_all, mark);
            }
            Whose::Project(name) => set(self.of_project.entry(name.clone()).or_default(), mark),
            Whose::Credential(secret) => set(self.of_credential.entry(*secret).or_default(), mark),
            Whose::Subject(name) => set(self.of_subject.entry(name.clone()).or_default(), mark),
            Whose::Answers { replays } => {
                // No grant needs to know of it.
                set(self.of_answers.entry(*replays).or_default(), mark);
                return end;
            }
        }
        let known = self.numbers.entry(by).or_default();
        if number > *known {
            *known = number;
            self.seen = self.numbers.iter().map(|(by, number)| (*by, *number)).collect();
        }
        end
    }

    fn has_room(&self, whose: &Whose) -> bool {
        match whose {
            Whose::All | Whose::Answers { .. } => true,
            Whose::Project(name) => self.of_project.len() < PROJECTS || self.of_project.contains_key(name),
            Whose::Subject(name) => self.of_subject.len() < SUBJECTS || self.of_subject.contains_key(name),
            Whose::Credential(secret) => {
                self.of_credential.len() < CREDENTIALS || self.of_credential.contains_key(secret)
            }
        }
    }

    /// Whether what `subject` asked for, who knew as much as `seen` then, has ended. What names no repository is a
    /// log-in: of a project's writes only those to its own robots concern one.
    pub fn has_ended(&self, seen: &Seen, secret: &Secret, subject: &str, access: &[Access]) -> bool {
        let mut marks = self.marks(secret, subject, access);
        marks.any(|mark| seen.of(mark.by) < mark.number)
    }

    /// What of `seen` [`Self::has_ended`] looks at by what is known now. Of what isn't known yet the rest would say less
    /// than it might: whoever passes it on errs on the side of an end.
    pub fn concerning(&self, seen: &Seen, secret: &Secret, subject: &str, access: &[Access]) -> Seen {
        let marks: BTreeSet<ProcessId> = self.marks(secret, subject, access).map(|mark| mark.by).collect();
        seen.iter().filter(|(by, _)| marks.contains(by)).collect()
    }

    fn marks<'a>(
        &'a self,
        secret: &Secret,
        subject: &'a str,
        access: &'a [Access],
    ) -> impl Iterator<Item = &'a Mark> {
        let projects = access.iter().filter(|it| it.kind == "repository").map(|it| project_of(&it.name));
        let of_projects = projects.chain(owners_of(subject)).filter_map(|name| self.of_project.get(name));
        let of_user = self.of_credential.get(secret).into_iter().chain(self.of_subject.get(subject));
        self.of_all.iter().chain(of_user.chain(of_projects).flatten())
    }

    /// Forgets what no grant is old enough for; gives back what of it was ended here.
    pub fn forget_over(&mut self, now: UnixTime) -> Vec<Whose> {
        let own = self.own;
        let mut gone = Vec::new();
        let mut forget = |marks: &mut Marks, whose: &dyn Fn() -> Whose| {
            marks.retain(|mark| {
                let is_over = mark.at.plus(LONGEST) <= now;
                if is_over && mark.by == own {
                    gone.push(whose());
                }
                !is_over
            });
            !marks.is_empty()
        };
        forget(&mut self.of_all, &|| Whose::All);
        self.of_answers.retain(|replays, marks| forget(marks, &|| Whose::Answers { replays: *replays }));
        self.of_project.retain(|name, marks| forget(marks, &|| Whose::Project(name.clone())));
        self.of_credential.retain(|secret, marks| forget(marks, &|| Whose::Credential(*secret)));
        self.of_subject.retain(|name, marks| forget(marks, &|| Whose::Subject(name.clone())));
        let of_users = self.of_credential.values().chain(self.of_subject.values());
        let marks = self.of_project.values().chain(of_users).flatten().chain(&self.of_all);
        let left: BTreeSet<ProcessId> = marks.map(|mark| mark.by).chain([own]).collect();
        self.numbers.retain(|by, _| left.contains(by));
        self.seen = self.numbers.iter().map(|(by, number)| (*by, *number)).collect();
        gone
    }
}

fn set(marks: &mut Marks, mark: Mark) {
    match marks.iter_mut().find(|known| known.by == mark.by) {
        Some(known) if known.number < mark.number => *known = mark,
        Some(_) => {}
        None => marks.push(mark),
    }
}

/// Ends are learned in any order: what came later stands.
fn drop_until<K: Hash + Eq>(all: &mut HashMap<K, Marks>, last: Mark) {
    all.retain(|_, marks| {
        marks.retain(|mark| mark.by != last.by || mark.number > last.number);
        !marks.is_empty()
    });
}

/// What may be the project of a robot: Harbor calls it `robot$project+name`, with any prefix in the place of `robot$`.
fn owners_of(subject: &str) -> impl Iterator<Item = &str> {
    let owner = subject.split_once('+').map_or("", |(owner, _)| owner);
    owner.char_indices().map(|(at, _)| &owner[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: Secret = [1; 32];
    const NOW: UnixTime = UnixTime(1_000_000);

    fn process(n: u64) -> Ends {
        Ends::new(ProcessId(n))
    }

    fn project(name: &str) -> Whose {
        Whose::Project(name.into())
    }

    fn access(name: &str) -> Vec<Access> {
        let actions = vec!["pull".into()];
        if name.is_empty() {
            Vec::new()
        } else {
            vec![Access { kind: "repository".into(), name: name.into(), actions }]
        }
    }

    #[test]
    fn a15_an_end_concerns_what_was_asked_for_without_knowing_of_it() {
        let table = [
            (Whose::All, "dev", "mine/a", true),
            (Whose::All, "dev", "", true),
            (project("mine"), "dev", "mine/a", true),
            (project("mine"), "dev", "other/a", false),
            (project("mine"), "dev", "", false),
            (project("mine"), "robot$mine+ci", "", true),
            (project("mine"), "bot-mine+ci", "", true),
            (project("mine"), "robot$other+ci", "", false),
            (project("mine"), "robot$ci", "", false),
            (Whose::Credential(SECRET), "dev", "mine/a", true),
            (Whose::Credential([2; 32]), "dev", "mine/a", false),
            (Whose::Subject("dev".into()), "dev", "mine/a", true),
            (Whose::Subject("dev".into()), "dev", "", true),
            (Whose::Subject("dev".into()), "Dev", "mine/a", false),
        ];
        for (whose, subject, name, want) in table {
            let mut ends = process(1);
            let before = ends.seen();
            ends.add(whose.clone(), NOW);
            let ended = |seen: &Seen| ends.has_ended(seen, &SECRET, subject, &access(name));
            assert_eq!((ended(&before), ended(&ends.seen())), (want, false), "{whose:?} {subject} {name}");
        }
    }

    #[test]
    fn a20_what_one_process_ended_is_over_for_all_who_asked_without_knowing_whatever_their_clocks_say() {
        let (mut one, mut two, mut three) = (process(1), process(2), process(3));
        let asked = two.seen();
        let first = one.add(project("mine"), NOW);
        let over = |ends: &Ends, seen: &Seen| ends.has_ended(seen, &SECRET, "dev", &access("mine/a"));
        assert!(!over(&two, &asked), "it has not heard of it");
        two.learn(first.clone());
        assert!(over(&two, &asked));
        let again = two.seen();
        assert!(!over(&two, &again) && !over(&one, &again), "asked by who knew");
        // The same number by another process is another end, though its clock is behind.
        let other = three.add(project("mine"), UnixTime(1));
        assert_eq!((first.number, other.number), (1, 1));
        two.learn(other);
        assert!(over(&two, &again));
        two.learn(first);
        assert!(!over(&two, &two.seen()), "what is told twice ends nothing twice");
    }

    #[test]
    fn a15_an_end_of_all_that_is_learned_late_leaves_later_ends_of_one_in_force() {
        let (mut one, mut two) = (process(1), process(2));
        let of_all = one.add(Whose::All, NOW);
        let asked = one.seen();
        let of_some = [Whose::Credential(SECRET), project("mine"), Whose::Subject("ci".into())];
        let of_one = of_some.map(|whose| one.add(whose, NOW));
        for end in of_one {
            two.learn(end);
        }
        two.learn(of_all);
        assert!(two.has_ended(&asked, &SECRET, "dev", &access("")), "the credential's");
        assert!(two.has_ended(&asked, &[2; 32], "dev", &access("mine/a")), "the project's");
        assert!(two.has_ended(&asked, &[2; 32], "ci", &access("")), "the user's");
        assert!(!two.has_ended(&asked, &[2; 32], "dev", &access("")));
    }

    #[test]
    fn of_what_was_known_only_what_concerns_a_grant_is_passed_on() {
        let mut ends = process(1);
        let whose = [
            Whose::All,
            project("mine"),
            project("other"),
            Whose::Credential(SECRET),
            Whose::Subject("dev".into()),
        ];
        for (by, whose) in (2..).map(ProcessId).zip(whose) {
            ends.learn(End { by, number: 9, at: NOW, whose });
        }
        let seen = ends.seen();
        let concerning = ends.concerning(&seen, &SECRET, "dev", &access("mine/a"));
        assert_eq!(concerning.iter().collect::<Vec<_>>(), [2, 3, 5, 6].map(|by| (ProcessId(by), 9)));
        let ended = |ends: &Ends| ends.has_ended(&concerning, &SECRET, "dev", &access("mine/a"));
        assert!(!ended(&ends));
        // What that process ends next ends it, of which nothing was said as well.
        ends.learn(End { by: ProcessId(4), number: 10, at: NOW, whose: project("mine") });
        assert!(ended(&ends));
    }

    #[test]
    fn a2_what_another_process_says_of_answers_is_told_once_and_ends_no_grant() {
        let (mut one, mut two) = (process(1), process(2));
        let asked = two.seen();
        let of = |replays| Whose::Answers { replays };
        let [first, second, third] = [false, false, true].map(|replays| one.add(of(replays), NOW));
        assert!(two.learn(second.clone()));
        for known in [first, second.clone()] {
            assert!(!two.learn(known));
        }
        assert!(two.learn(third), "replays too");
        assert!(!one.learn(second), "its own word");
        assert!(!two.has_ended(&asked, &SECRET, "dev", &access("mine/a")));
        assert_eq!(two.seen(), asked, "no grant carries it");
        let end = one.add(Whose::All, NOW);
        assert_eq!(end.number, 4, "no number twice");
        assert!(!two.learn(end));
        assert!(two.has_ended(&asked, &SECRET, "dev", &access("mine/a")));
    }

    #[test]
    fn what_is_not_remembered_of_each_counts_for_all() {
        let mut ends = process(1);
        let whose = |n: usize| project(&n.to_string());
        (0..PROJECTS).for_each(|n| drop(ends.add(whose(n), NOW)));
        let seen = ends.seen();
        ends.add(whose(0), NOW);
        assert!(!ends.has_ended(&seen, &SECRET, "dev", &access("mine/a")), "it was remembered");
        assert_eq!(ends.add(whose(PROJECTS), NOW).whose, Whose::All);
        assert!(ends.has_ended(&seen, &SECRET, "dev", &access("mine/a")));
        assert_eq!(ends.add(whose(PROJECTS), NOW).whose, whose(PROJECTS), "there is room again");
    }

    #[test]
    fn what_is_older_than_any_grant_is_forgotten() {
        let (mut ends, mut other) = (process(1), process(2));
        ends.learn(other.add(project("mine"), NOW));
        ends.add(Whose::Credential(SECRET), NOW);
        ends.add(Whose::All, NOW.plus(LONGEST));
        assert_eq!(ends.forget_over(UnixTime(NOW.plus(LONGEST).0 - 1)), []);
        assert_eq!(ends.seen().iter().count(), 2);
        // What it ended of one was among what it ended of all.
        assert_eq!(ends.forget_over(NOW.plus(LONGEST)), []);
        assert_eq!(ends.seen().iter().collect::<Vec<_>>(), [(ProcessId(1), 2)]);
        assert_eq!(ends.forget_over(NOW.plus(LONGEST).plus(LONGEST)), [Whose::All]);
        assert_eq!(ends.seen().iter().collect::<Vec<_>>(), [(ProcessId(1), 2)], "its numbers go on");
    }
}
