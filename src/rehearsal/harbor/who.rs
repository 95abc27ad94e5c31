//! Who a request comes from, in the order in which core asks: registry token, robot, local user, session.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    replica::Inner,
    repository_path::RepositoryPath,
    token::{self, Accepted},
    wire::head::Head,
    world::{Action, Project, Robot},
};

/// Core sleeps that long after a wrong password and locks the name for as long (T8, C6).
const FROZEN: Duration = Duration::from_millis(1500);

/// Core takes a token that is older than its project by no more than this (V9).
const PROJECT_LEEWAY: f64 = 60.0;

/// A request's security context.
#[derive(Debug)]
pub(super) enum Who {
    Nobody,
    User { name: String, admin: bool },
    Robot(Robot),
    Token { subject: String, allowed: HashMap<String, Vec<Action>> },
}

impl Who {
    /// The name that goes into a token's `sub`.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Nobody => "",
            Self::User { name, .. } => name,
            Self::Robot(robot) => &robot.name,
            Self::Token { subject, .. } => subject,
        }
    }

    /// C14: a token without `sub` is nobody's.
    pub(super) fn is_authenticated(&self) -> bool {
        !self.name().is_empty()
    }

    pub(super) fn is_admin(&self) -> bool {
        matches!(self, Self::User { admin: true, .. })
    }

    /// Whether one may do this in a project. A token allows what it says and nothing more, public or not.
    pub(super) fn can(&self, action: Action, project: &Project) -> bool {
        let public = project.public && action == Action::Pull;
        match self {
            Self::Nobody => public,
            Self::User { name, admin } => {
                let member = project.members.iter().find(|member| member.user == *name);
                *admin || public || member.is_some_and(|member| member.role.allows(action))
            }
            Self::Robot(robot) => {
                let granted = robot.projects.iter().find(|(name, _)| *name == project.name);
                public || granted.is_some_and(|(_, actions)| actions.contains(&action))
            }
            Self::Token { allowed, .. } => {
                allowed.get(&project.name).is_some_and(|actions| actions.contains(&action))
            }
        }
    }

    /// Core keeps the last entry of each project, whatever repository it names.
    fn by_token(accepted: Accepted) -> Self {
        let mut allowed = HashMap::new();
        for entry in accepted.access.iter().filter(|entry| entry.kind == "repository") {
            let project = entry.name.split('/').next().unwrap_or_default().to_owned();
            let all = entry.actions.iter().any(|action| action == "*");
            let named = entry.actions.iter().filter_map(|action| Action::parse(action));
            allowed.insert(project, if all { Action::ALL.to_vec() } else { named.collect() });
        }
        Self::Token { subject: accepted.subject, allowed }
    }
}

/// Core's own reading: what follows the word, wherever it stands, where it stands once.
fn bearer_in(authorization: &str) -> Option<&str> {
    let (_, bearer) = authorization.split_once("Bearer")?;
    (!bearer.contains("Bearer")).then_some(bearer)
}

impl Inner {
    /// Finds out who asks; costs 1.5 s where a password is wrong.
    pub(super) async fn identify(&self, head: &Head, path: &str) -> Who {
        let authorization = head.header("authorization").unwrap_or_default();
        if path.starts_with("/v2")
            && let Some(bearer) = bearer_in(authorization)
            && let Some(accepted) = self.accept(bearer.trim(), path).await
        {
            return Who::by_token(accepted);
        }
        if let Some((name, password)) = basic(authorization)
            && let Some(who) = self.by_password(&name, &password).await
        {
            return who;
        }
        self.by_session(head)
    }

    /// Robot, then local user; a wrong one freezes the name.
    pub(super) async fn by_password(&self, name: &str, password: &str) -> Option<Who> {
        self.latency.password().await;
        // D1: nobody is known, and nobody's name is frozen for it.
        if !self.world.database_answers() {
            return None;
        }
        if name.starts_with("robot$")
            && let Some(robot) = self.world.robot_by_secret(name, password)
        {
            return Some(Who::Robot(robot));
        }
        if self.is_frozen(name) {
            return None;
        }
        if let Some(user) = self.world.user_by_password(name, password) {
            return Some(Who::User { name: user.name, admin: user.admin });
        }
        self.frozen().insert(name.to_owned(), Instant::now() + FROZEN);
        tokio::time::sleep(FROZEN).await;
        None
    }

    async fn accept(&self, bearer: &str, path: &str) -> Option<Accepted> {
        if bearer.is_empty() {
            return None;
        }
        self.latency.bearer().await;
        let accepted = token::accept(bearer, &self.key_file, self.version, self.clock.now_precise())?;
        self.is_young_enough(&accepted, path).then_some(accepted)
    }

    /// V9, and C8 where there is no such project.
    fn is_young_enough(&self, accepted: &Accepted, path: &str) -> bool {
        if !self.version.judges_iat_by_project() {
            return true;
        }
        let Some(path) = RepositoryPath::parse(path) else { return true };
        let Ok(Some(project)) = self.world.look_up_project(path.project()) else { return false };
        accepted.issued_at.is_some_and(|iat| iat + PROJECT_LEEWAY >= project.created.as_secs_f64())
    }

    fn by_session(&self, head: &Head) -> Who {
        let user = head.cookie("sid").and_then(|sid| self.world.session_user(sid));
        match user.and_then(|name| self.world.user(&name)) {
            Some(user) => Who::User { name: user.name, admin: user.admin },
            None => Who::Nobody,
        }
    }

    fn is_frozen(&self, name: &str) -> bool {
        let mut frozen = self.frozen();
        frozen.retain(|_, until| Instant::now() < *until);
        frozen.contains_key(name)
    }
}

/// Name and password of a Basic credential, as Go reads it.
pub(super) fn basic(authorization: &str) -> Option<(String, String)> {
    let (scheme, encoded) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("basic").then_some(())?;
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}
