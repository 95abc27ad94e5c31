//! Whether a token's access covers what a request needs, read as core reads it: by project (A5).

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

use crate::words::{
    route::{Kind, Registry, project_of},
    scope::{Access, Scope},
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

/// The `from` of a cross-repository mount, as core reads it: Go's query, names and values decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mount<'a> {
    /// No mount.
    None,
    /// From this repository.
    From(Cow<'a, str>),
    /// Two readers could see different repositories, or one of them none.
    Unclear,
}

/// What core tells apart in a repository; `*` is all of them (T3).
const ACTIONS: [&str; 3] = ["pull", "push", "delete"];

/// What a request needs.
pub fn need<'a>(registry: &'a Registry<'_>, method: &Method, mount: &'a Mount<'_>) -> Need<'a> {
    let project = registry.project();
    let reads = method == Method::GET || method == Method::HEAD;
    let action = match registry.kind {
        Kind::Base => return Need::Identity,
        Kind::Catalog | Kind::Other => return Need::Everything,
        _ if method == Method::DELETE => "delete",
        Kind::UploadOpen | Kind::Upload => "push",
        _ if reads => "pull",
        _ => "push",
    };
    let mut actions = vec![(project, action)];
    match mount {
        Mount::Unclear => return Need::Everything,
        Mount::From(repository) => actions.push((project_of(repository), "pull")),
        Mount::None => {}
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

/// What a token of our own is good for (A11): the repositories' actions that were asked for, one entry a project,
/// because core reads a token by project and of several entries would keep the last. Harbor judges every use; this
/// only bounds what the credential is sent for.
pub fn asked(scopes: &[Scope]) -> Vec<Access> {
    let mut all: Vec<Access> = Vec::new();
    for scope in scopes.iter().filter(|scope| scope.kind == "repository" && scope.name.contains('/')) {
        let project = project_of(&scope.name);
        let known = all.iter().position(|access| project_of(&access.name) == project);
        let place = known.unwrap_or(all.len());
        if known.is_none() {
            all.push(Access { kind: scope.kind.clone(), name: scope.name.clone(), actions: Vec::new() });
        }
        let names = |action: &&str| scope.actions.iter().any(|asked| asked == "*" || asked == action);
        for action in ACTIONS.into_iter().filter(names) {
            if !all[place].grants(action) {
                all[place].actions.push(action.to_owned());
            }
        }
    }
    all
}

/// The mount that a query asks for. A name that is written with escapes could be `from` too, a semicolon parts
/// pairs for old readers only, and of two `from` each reader may take another.
pub fn mount(query: Option<&str>) -> Mount<'_> {
    let Some(query) = query else { return Mount::None };
    let mut found = Mount::None;
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if pair.contains(';') || name.contains(['%', '+']) {
            return Mount::Unclear;
        }
        if name == "from" {
            let Some(repository) = decoded(value) else { return Mount::Unclear };
            if found != Mount::None {
                return Mount::Unclear;
            }
            found = Mount::From(repository);
        }
    }
    found
}

/// A repository's name out of a query; `None` where it is none that every reader would read alike.
fn decoded(value: &str) -> Option<Cow<'_, str>> {
    let plain = percent_decode_str(value).decode_utf8().ok()?;
    let strange = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '%' | '+');
    (!plain.is_empty() && !plain.contains(strange)).then_some(plain)
}

#[cfg(test)]
mod tests;
