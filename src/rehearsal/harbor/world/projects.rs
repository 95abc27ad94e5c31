//! Projects, their members, and what a role may do with a project's repositories.

use std::time::Duration;

use super::World;

/// What one does with a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in super::super) enum Action {
    Pull,
    Push,
    Delete,
}

impl Action {
    pub(in super::super) const ALL: [Self; 3] = [Self::Pull, Self::Push, Self::Delete];

    pub(in super::super) fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
        }
    }

    pub(in super::super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }
}

/// The database can't be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct DatabaseDown;

/// A member's role in a project, by Harbor's ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// 1
    ProjectAdmin,
    /// 2
    Developer,
    /// 3
    Guest,
    /// 4
    Maintainer,
    /// 5
    LimitedGuest,
}

impl Role {
    pub(in super::super) fn id(self) -> u64 {
        match self {
            Self::ProjectAdmin => 1,
            Self::Developer => 2,
            Self::Guest => 3,
            Self::Maintainer => 4,
            Self::LimitedGuest => 5,
        }
    }

    pub(in super::super) fn by_id(id: u64) -> Option<Self> {
        [Self::ProjectAdmin, Self::Developer, Self::Guest, Self::Maintainer, Self::LimitedGuest]
            .into_iter()
            .find(|role| role.id() == id)
    }

    pub(in super::super) fn name(self) -> &'static str {
        match self {
            Self::ProjectAdmin => "projectAdmin",
            Self::Developer => "developer",
            Self::Guest => "guest",
            Self::Maintainer => "maintainer",
            Self::LimitedGuest => "limitedGuest",
        }
    }

    pub(in super::super) fn allows(self, action: Action) -> bool {
        match self {
            Self::ProjectAdmin | Self::Maintainer => true,
            Self::Developer => action != Action::Delete,
            Self::Guest | Self::LimitedGuest => action == Action::Pull,
        }
    }
}

/// A project.
#[derive(Clone, Debug)]
pub(in super::super) struct Project {
    pub(in super::super) id: u64,
    pub(in super::super) name: String,
    pub(in super::super) public: bool,
    pub(in super::super) created: Duration,
    pub(in super::super) members: Vec<Member>,
}

/// A user's membership.
#[derive(Clone, Debug)]
pub(in super::super) struct Member {
    pub(in super::super) id: u64,
    pub(in super::super) user: String,
    pub(in super::super) role: Role,
}

impl World {
    /// Adds a project, or makes an existing one public or private; gives the id.
    pub fn add_project(&self, name: &str, public: bool) -> u64 {
        let created = self.now();
        let mut tables = self.tables();
        if let Some(project) = tables.projects.iter_mut().find(|project| project.name == name) {
            project.public = public;
            return project.id;
        }
        let id = tables.next_id();
        tables.projects.push(Project { id, name: name.into(), public, created, members: Vec::new() });
        id
    }

    /// Moves a project's creation (seconds since 1970), for V9.
    pub fn date_project(&self, name: &str, created: Duration) {
        let mut tables = self.tables();
        if let Some(project) = tables.projects.iter_mut().find(|project| project.name == name) {
            project.created = created;
        }
    }

    /// Removes a project with its memberships; false where there is no such project.
    pub fn remove_project(&self, name: &str) -> bool {
        let mut tables = self.tables();
        let before = tables.projects.len();
        tables.projects.retain(|project| project.name != name);
        let of_it = format!("{name}/");
        tables.repositories.retain(|repository| !repository.starts_with(&of_it));
        tables.projects.len() < before
    }

    /// Gives a user a role in a project; the membership's id, `None` without such a project.
    pub fn add_member(&self, project: &str, user: &str, role: Role) -> Option<u64> {
        let mut tables = self.tables();
        let id = tables.next_id();
        let project = tables.projects.iter_mut().find(|p| p.name == project)?;
        project.members.retain(|member| member.user != user);
        project.members.push(Member { id, user: user.to_owned(), role });
        Some(id)
    }

    /// Ends a membership; false where there is none.
    pub fn remove_member(&self, project: &str, user: &str) -> bool {
        let mut tables = self.tables();
        let Some(project) = tables.projects.iter_mut().find(|p| p.name == project) else { return false };
        let before = project.members.len();
        project.members.retain(|member| member.user != user);
        project.members.len() < before
    }

    /// The same as core asks for it while it judges a request (D1).
    pub(in super::super) fn look_up_project(&self, name: &str) -> Result<Option<Project>, DatabaseDown> {
        if self.database_answers() { Ok(self.project(name)) } else { Err(DatabaseDown) }
    }

    pub(in super::super) fn project(&self, name: &str) -> Option<Project> {
        self.tables().projects.iter().find(|project| project.name == name).cloned()
    }
}
