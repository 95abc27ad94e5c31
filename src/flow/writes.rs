//! What a write that Harbor took may have ended. Pure, but for what hears of it.

pub mod heard;

use http::Method;

/// What is to be forgotten, each with all before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ended {
    /// Nothing.
    Nothing,
    /// Token answers: what some credential may do has changed (A2).
    Answers,
    /// Credentials for replay as well: some may not be its user's any more.
    Credentials,
}

/// Parts of the API whose writes change what a credential may do (A2).
const RIGHTS: [&str; 8] =
    ["users", "robots", "projects", "usergroups", "configurations", "ldap", "system", "internalconfig"];
/// Parts whose changes may end a credential itself.
const CREDENTIALS: [&str; 3] = ["users", "robots", "usergroups"];
/// The same, whatever the method: a setting may be written by any.
const SETTINGS: [&str; 3] = ["configurations", "ldap", "internalconfig"];

/// What a successful request of this method to this path has ended.
///
/// Replays end late rather than early: Harbor judges each use by the rights of its moment and refuses what is over
/// (A4, A5), so a change of members or of a project ends none. Else whoever may make a project would end the rescue
/// of all pushes at will. What is made anew, by POST, ends nobody's credential either.
pub fn ended_by(method: &Method, path: &str) -> Ended {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) || path.contains("/repositories/") {
        return Ended::Nothing;
    }
    let Some(rest) = path.strip_prefix("/api/") else {
        // `/c/oidc/onboard`, `/c/reset` and the like: users. Whether one exists may be asked by anybody.
        let writes = path.starts_with("/c/") && !path.starts_with("/c/log") && path != "/c/userExists";
        return if writes { Ended::Credentials } else { Ended::Nothing };
    };
    let mut parts = rest.strip_prefix("v2.0/").unwrap_or(rest).split('/');
    let Some(part) = parts.next().filter(|part| RIGHTS.contains(part)) else { return Ended::Nothing };
    let of_project = if part == "projects" { parts.nth(1).unwrap_or_default() } else { "" };
    let changes = *method != Method::POST && (CREDENTIALS.contains(&part) || of_project == "robots");
    if changes || SETTINGS.contains(&part) { Ended::Credentials } else { Ended::Answers }
}

/// Whose grace a write has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedGrace<'a> {
    /// Nobody's.
    Nobodys,
    /// What was granted in this project.
    Of(&'a str),
    /// Everybody's: it can't be told whom it concerns, paths name users and robots by numbers.
    Everybodys,
}

/// Parts of a project whose writes change nothing that a credential may do.
const HARMLESS: [&str; 6] = ["labels", "webhook", "immutabletagrules", "preheat", "scanner", "scanners"];

/// Whose grace a successful request of this method to this path has ended.
///
/// Grace is there for an outage that nobody sees coming: what only adds, or concerns no credential, leaves it alone, else
/// a Harbor in which somebody always makes a project, a robot or a garbage collection would never have any. What may
/// take something from somebody ends his, and that of all whom it might concern.
pub fn grace_ended_by<'a>(method: &Method, path: &'a str) -> EndedGrace<'a> {
    if ended_by(method, path) == Ended::Nothing {
        return EndedGrace::Nobodys;
    }
    let Some(rest) = path.strip_prefix("/api/") else { return EndedGrace::Everybodys };
    let mut parts = rest.strip_prefix("v2.0/").unwrap_or(rest).split('/');
    let (part, name, of_project) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
    let adds = *method == Method::POST;
    match (part, name.filter(|name| !name.is_empty())) {
        (Some("system"), _) => EndedGrace::Nobodys,
        (Some("users" | "robots" | "usergroups" | "projects"), None) if adds => EndedGrace::Nobodys,
        (Some("projects"), Some(_)) if HARMLESS.contains(&of_project) => EndedGrace::Nobodys,
        (Some("projects"), Some(_)) if adds && ["members", "robots"].contains(&of_project) => {
            EndedGrace::Nobodys
        }
        // A name of digits is read as the project's number.
        (Some("projects"), Some(name)) if !name.bytes().all(|b| b.is_ascii_digit()) => EndedGrace::Of(name),
        _ => EndedGrace::Everybodys,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_take_something_from_somebody_ends_the_grace_of_all_whom_it_may_concern() {
        use EndedGrace::{Everybodys, Nobodys, Of};
        let table = [
            ("GET", "/api/v2.0/users", Nobodys),
            ("POST", "/c/login", Nobodys),
            ("PUT", "/v2/p/r/manifests/v1", Nobodys),
            ("DELETE", "/api/v2.0/projects/mine/repositories/r", Nobodys),
            ("POST", "/api/v2.0/projects", Nobodys),
            ("POST", "/api/v2.0/users", Nobodys),
            ("POST", "/api/v2.0/robots", Nobodys),
            ("POST", "/api/v2.0/projects/mine/robots", Nobodys),
            ("POST", "/api/v2.0/projects/mine/members", Nobodys),
            ("PUT", "/api/v2.0/system/gc/schedule", Nobodys),
            ("POST", "/api/v2.0/projects/mine/immutabletagrules", Nobodys),
            ("PUT", "/api/v2.0/projects/mine", Of("mine")),
            ("DELETE", "/api/v2.0/projects/mine", Of("mine")),
            ("POST", "/api/v2.0/projects/mine/metadatas/", Of("mine")),
            ("PUT", "/api/v2.0/projects/mine/members/3", Of("mine")),
            ("DELETE", "/api/v2.0/projects/mine/robots/3", Of("mine")),
            ("DELETE", "/api/v2.0/projects/mine/what-comes-later", Of("mine")),
            ("DELETE", "/api/v2.0/projects/17/members/3", Everybodys),
            ("DELETE", "/api/v2.0/users/3", Everybodys),
            ("PUT", "/api/v2.0/users/3/password", Everybodys),
            ("POST", "/api/v2.0/users/3/what-comes-later", Everybodys),
            ("PATCH", "/api/v2.0/robots/3", Everybodys),
            ("PUT", "/api/robots/3", Everybodys),
            ("DELETE", "/api/v2.0/usergroups/3", Everybodys),
            ("PUT", "/api/v2.0/configurations", Everybodys),
            ("POST", "/api/v2.0/ldap/users/import", Everybodys),
            ("POST", "/c/oidc/onboard", Everybodys),
        ];
        for (method, path, want) in table {
            let method = method.parse().expect("a method");
            assert_eq!(grace_ended_by(&method, path), want, "{method} {path}");
        }
    }

    #[test]
    fn a2_a_write_ends_answers_and_a4_credentials_only_where_it_may_change_one() {
        use Ended::{Answers, Credentials, Nothing};
        let table = [
            ("GET", "/api/v2.0/users", Nothing),
            ("PUT", "/api/v2.0/labels/1", Nothing),
            ("PUT", "/api/v2.0/projects/p/repositories/r", Nothing),
            ("PUT", "/v2/p/r/manifests/v1", Nothing),
            ("POST", "/c/login", Nothing),
            ("POST", "/c/userExists", Nothing),
            ("POST", "/api/v2.0/projects", Answers),
            ("PUT", "/api/v2.0/projects/mine", Answers),
            ("DELETE", "/api/v2.0/projects/mine/members/3", Answers),
            ("PUT", "/api/v2.0/system/gc/schedule", Answers),
            ("POST", "/api/v2.0/users", Answers),
            ("POST", "/api/v2.0/robots", Answers),
            ("POST", "/api/v2.0/projects/mine/robots", Answers),
            ("PUT", "/api/v2.0/users/3/password", Credentials),
            ("DELETE", "/api/v2.0/users/3", Credentials),
            ("PATCH", "/api/v2.0/robots/3", Credentials),
            ("DELETE", "/api/v2.0/projects/mine/robots/3", Credentials),
            ("PUT", "/api/robots/3", Credentials),
            ("DELETE", "/api/v2.0/usergroups/3", Credentials),
            ("PUT", "/api/v2.0/configurations", Credentials),
            ("POST", "/api/v2.0/ldap/users/import", Credentials),
            ("POST", "/c/oidc/onboard", Credentials),
        ];
        for (method, path, want) in table {
            let method = method.parse().expect("a method");
            assert_eq!(ended_by(&method, path), want, "{method} {path}");
        }
    }
}
