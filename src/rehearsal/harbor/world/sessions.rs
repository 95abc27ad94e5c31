//! UI sessions by `sid`, as Harbor keeps them in Redis (S1).

use std::collections::{HashMap, VecDeque};

use super::World;
use crate::rehearsal::harbor::random;

/// Harbor's Redis forgets a session after an hour; here the oldest go when there are too many.
const MOST_SESSIONS: usize = 200_000;

/// Session ids and who is logged in there.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    users: HashMap<String, Option<String>>,
    oldest_first: VecDeque<String>,
}

impl World {
    /// A new session of a user, or of nobody; gives its `sid`. Without Redis it is kept nowhere (D3).
    pub(in super::super) fn new_session(&self, user: Option<String>) -> String {
        let sid = random::hex(16);
        if !self.redis_answers() {
            return sid;
        }
        let mut sessions = self.sessions();
        sessions.users.insert(sid.clone(), user);
        sessions.oldest_first.push_back(sid.clone());
        if sessions.oldest_first.len() > MOST_SESSIONS
            && let Some(oldest) = sessions.oldest_first.pop_front()
        {
            sessions.users.remove(&oldest);
        }
        sid
    }

    /// Whether a `sid` is known.
    pub(in super::super) fn knows_session(&self, sid: &str) -> bool {
        self.redis_answers() && self.sessions().users.contains_key(sid)
    }

    /// Who is logged in under a `sid`.
    pub(in super::super) fn session_user(&self, sid: &str) -> Option<String> {
        if !self.redis_answers() {
            return None;
        }
        self.sessions().users.get(sid).cloned().flatten()
    }

    /// Ends a session.
    pub(in super::super) fn end_session(&self, sid: &str) {
        if self.redis_answers() {
            self.sessions().users.remove(sid);
        }
    }

    /// Forgets all sessions, as an emptied Redis does (D5).
    pub fn forget_sessions(&self) {
        *self.sessions() = Sessions::default();
    }

    /// How many sessions are kept (T15).
    pub fn session_count(&self) -> usize {
        self.sessions().users.len()
    }
}
