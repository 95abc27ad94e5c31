//! Whether a token's access covers what a request needs, read as core reads it: by project (A5).

use http::Method;

use crate::words::{
    route::{Kind, Registry, project_of},
    scope::Access,
};

/// What core will ask of a token for one registry request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need<'a> {
    /// Nothing but being somebody: `/v2/`.
    Identity,
    /// These actions on these projects.
    Actions(Vec<(&'a str, &'static str)>),
    /// More than any token gives: `_catalog` is Basic's alone (C10), and what we can't read we don't widen.
    Everything,
}

/// What a request needs. `mount_from` is the `from` of a cross-repository mount, still encoded.
pub fn need<'a>(registry: &'a Registry<'_>, method: &Method, mount_from: Option<&'a str>) -> Need<'a> {
    let project = registry.project();
    let reads = method == Method::GET || method == Method::HEAD;
    let action = match registry.kind {
        Kind::Base => return Need::Identity,
        Kind::Catalog | Kind::Other => return Need::Everything,
        Kind::UploadOpen | Kind::Upload => "push",
        _ if reads => "pull",
        _ if method == Method::DELETE => "delete",
        _ => "push",
    };
    let mut actions = vec![(project, action)];
    match mount_from {
        Some(from) if from.contains('%') || from.contains('+') => return Need::Everything,
        Some(from) => actions.push((project_of(from), "pull")),
        None => {}
    }
    Need::Actions(actions)
}

/// Whether `access` covers `need`.
pub fn covers(access: &[Access], need: &Need<'_>) -> bool {
    // Of several entries of one project core keeps the last.
    let granted = |project: &str, action: &str| {
        let of_project = |a: &&Access| a.kind == "repository" && project_of(&a.name) == project;
        access.iter().rev().find(of_project).is_some_and(|a| a.grants(action))
    };
    match need {
        Need::Identity => true,
        Need::Everything => false,
        Need::Actions(actions) => actions.iter().all(|(project, action)| granted(project, action)),
    }
}

/// The `from` of a mount in a query, still encoded; the last one where there are several can't be told, so
/// it is read as one that covers nothing.
pub fn mount_from(query: Option<&str>) -> Option<&str> {
    let mut found = query?.split('&').filter_map(|pair| pair.strip_prefix("from="));
    let first = found.next()?;
    Some(if found.next().is_some() { "%" } else { first })
}
