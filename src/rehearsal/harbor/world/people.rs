//! Users and robots.

use std::time::Duration;

use subtle::ConstantTimeEq as _;

use super::{World, projects::Action};

/// A local user.
#[derive(Clone, Debug)]
pub(in super::super) struct User {
    pub(in super::super) id: u64,
    pub(in super::super) name: String,
    password: String,
    pub(in super::super) admin: bool,
    pub(in super::super) created: Duration,
}

/// A robot and where it may pull and push.
#[derive(Clone, Debug)]
pub(in super::super) struct Robot {
    pub(in super::super) id: u64,
    /// With its prefix, as `robot$ci`.
    pub(in super::super) name: String,
    secret: String,
    pub(in super::super) projects: Vec<(String, Vec<Action>)>,
    pub(in super::super) disabled: bool,
}

impl World {
    /// Adds a local user or replaces the one of that name; gives the id.
    pub fn add_user(&self, name: &str, password: &str, admin: bool) -> u64 {
        let created = self.now();
        let mut tables = self.tables();
        tables.users.retain(|user| user.name != name);
        let id = tables.next_id();
        tables.users.push(User { id, name: name.into(), password: password.into(), admin, created });
        id
    }

    /// Changes a user's password; false where there is no such user.
    pub fn set_password(&self, name: &str, password: &str) -> bool {
        let mut tables = self.tables();
        let user = tables.users.iter_mut().find(|user| user.name == name);
        user.map(|user| password.clone_into(&mut user.password)).is_some()
    }

    /// Removes a user; false where there is no such user.
    pub fn remove_user(&self, name: &str) -> bool {
        let mut tables = self.tables();
        let before = tables.users.len();
        tables.users.retain(|user| user.name != name);
        tables.users.len() < before
    }

    /// Adds a robot (full name, as `robot$ci`) that pulls from and pushes to these projects; gives the id.
    pub fn add_robot(&self, name: &str, secret: &str, projects: &[&str]) -> u64 {
        let pull_push = vec![Action::Pull, Action::Push];
        let projects = projects.iter().map(|&project| (project.to_owned(), pull_push.clone())).collect();
        self.add_robot_with(name, secret, projects)
    }

    pub(in super::super) fn add_robot_with(
        &self,
        name: &str,
        secret: &str,
        projects: Vec<(String, Vec<Action>)>,
    ) -> u64 {
        let mut tables = self.tables();
        tables.robots.retain(|robot| robot.name != name);
        let id = tables.next_id();
        let (name, secret) = (name.to_owned(), secret.to_owned());
        tables.robots.push(Robot { id, name, secret, projects, disabled: false });
        id
    }

    /// Changes a robot's secret; false where there is no such robot.
    pub fn set_robot_secret(&self, name: &str, secret: &str) -> bool {
        let mut tables = self.tables();
        let robot = tables.robots.iter_mut().find(|robot| robot.name == name);
        robot.map(|robot| secret.clone_into(&mut robot.secret)).is_some()
    }

    /// Switches a robot off or on; false where there is no such robot.
    pub fn set_robot_disabled(&self, name: &str, disabled: bool) -> bool {
        let mut tables = self.tables();
        let robot = tables.robots.iter_mut().find(|robot| robot.name == name);
        robot.map(|robot| robot.disabled = disabled).is_some()
    }

    /// Removes a robot; false where there is no such robot.
    pub fn remove_robot(&self, name: &str) -> bool {
        let mut tables = self.tables();
        let before = tables.robots.len();
        tables.robots.retain(|robot| robot.name != name);
        tables.robots.len() < before
    }

    /// The user whose name and password these are.
    pub(in super::super) fn user_by_password(&self, name: &str, password: &str) -> Option<User> {
        let tables = self.tables();
        let user = tables.users.iter().find(|user| user.name == name)?;
        same(&user.password, password).then(|| user.clone())
    }

    /// The robot whose name and secret these are.
    pub(in super::super) fn robot_by_secret(&self, name: &str, secret: &str) -> Option<Robot> {
        let tables = self.tables();
        let robot = tables.robots.iter().find(|robot| robot.name == name && !robot.disabled)?;
        same(&robot.secret, secret).then(|| robot.clone())
    }

    pub(in super::super) fn user(&self, name: &str) -> Option<User> {
        self.tables().users.iter().find(|user| user.name == name).cloned()
    }

    pub(in super::super) fn user_by_id(&self, id: u64) -> Option<User> {
        self.tables().users.iter().find(|user| user.id == id).cloned()
    }

    pub(in super::super) fn robot_by_id(&self, id: u64) -> Option<Robot> {
        self.tables().robots.iter().find(|robot| robot.id == id).cloned()
    }
}

fn same(kept: &str, presented: &str) -> bool {
    kept.as_bytes().ct_eq(presented.as_bytes()).into()
}
