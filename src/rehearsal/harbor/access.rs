//! Who may do what below `/v2/`, and the challenges (C, F1).

use super::{
    replica::Inner,
    repository_path::{RepositoryPath, What},
    token::REGISTRY,
    who::Who,
    wire::{head::Head, reply::Reply},
    world::{Action, DatabaseDown},
};

impl Inner {
    /// Core's `v2auth`: the refusal, or nothing.
    pub(super) fn refuse(&self, head: &Head, path: &str, who: &Who) -> Option<Reply> {
        let needed = Needed::of(head, path);
        let refusal = |message: &str| Some(unauthorized(&self.challenge(head, path, &needed), message));
        match &needed {
            Needed::Login if !who.is_authenticated() => refusal("unauthorized"),
            Needed::Catalog if !who.is_admin() => refusal("unauthorized to list catalog"),
            Needed::Login | Needed::Catalog => None,
            Needed::Unknown => {
                Some(unauthorized("", &format!("un-recognized request: {} {path}", head.method)))
            }
            Needed::Repositories(list) => list.iter().find_map(|(repository, action)| {
                let reads = matches!(head.method.as_str(), "GET" | "HEAD");
                if reads && head.header("authorization").unwrap_or_default().is_empty() {
                    return refusal("authorize header needed to send HEAD to repository");
                }
                let name = repository.split('/').next().unwrap_or_default();
                let project = match self.world.look_up_project(name) {
                    Ok(Some(project)) => project,
                    Ok(None) => return Some(unauthorized("", &format!("project {name} not found"))),
                    Err(DatabaseDown) => return Some(unauthorized("", self.version.database_refusal())),
                };
                let action_name = action.name();
                (!who.can(*action, &project)).then(|| {
                    refusal(&format!(
                        "unauthorized to access repository: {repository}, action: {action_name}"
                    ))
                })?
            }),
        }
    }

    fn challenge(&self, head: &Head, path: &str, needed: &Needed) -> String {
        let authorized = head.header("authorization").is_some_and(|value| !value.is_empty());
        if authorized || path.starts_with("/v2/_catalog") {
            return r#"Basic realm="harbor""#.to_owned();
        }
        let realm = self.endpoint_for(head);
        let bearer = format!(r#"Bearer realm="{realm}/service/token",service="{REGISTRY}""#);
        match needed {
            Needed::Repositories(list) => format!(r#"{bearer},scope="{}""#, scopes(list)),
            _ => bearer,
        }
    }

    /// F1: where the token service is, as this version tells it.
    fn endpoint_for(&self, head: &Head) -> String {
        let host = head.header("host").unwrap_or_default();
        let internal = self.core_url_host.as_deref().is_some_and(|internal| internal == host);
        if internal {
            return format!("http://{host}");
        }
        let external = self.ext_endpoint.trim_end_matches('/');
        match external.split_once("://") {
            Some((scheme, _)) if self.version.realm_follows_host() && !host.is_empty() => {
                format!("{scheme}://{host}")
            }
            _ => external.to_owned(),
        }
    }
}

enum Needed {
    Login,
    Catalog,
    Repositories(Vec<(String, Action)>),
    Unknown,
}

impl Needed {
    fn of(head: &Head, path: &str) -> Self {
        if path == "/v2/" {
            return Self::Login;
        }
        if path == "/v2/_catalog" || path.starts_with("/v2/_catalog/") {
            return Self::Catalog;
        }
        let action = match head.method.as_str() {
            "GET" | "HEAD" => Action::Pull,
            "POST" | "PATCH" | "PUT" => Action::Push,
            "DELETE" => Action::Delete,
            _ => return Self::Unknown,
        };
        let Some(asked) = RepositoryPath::parse(path) else { return Self::Unknown };
        let mut list = vec![(asked.repository.clone(), action)];
        if let (What::Upload(_), "POST") = (&asked.what, head.method.as_str()) {
            let from = head.query("from").into_iter().next().filter(|from| !from.is_empty());
            list.extend(from.map(|from| (from, Action::Pull)));
        }
        Self::Repositories(list)
    }
}

fn scopes(list: &[(String, Action)]) -> String {
    let scope = |(repository, action): &(String, Action)| {
        let actions = match action {
            Action::Pull => "pull",
            Action::Push => "pull,push",
            Action::Delete => "delete",
        };
        format!("repository:{repository}:{actions}")
    };
    list.iter().map(scope).collect::<Vec<_>>().join(" ")
}

/// Harbor says its message twice.
fn unauthorized(challenge: &str, message: &str) -> Reply {
    Reply::error(401, "UNAUTHORIZED", &format!("{message}: {message}"))
        .with("Docker-Distribution-Api-Version", "registry/2.0")
        .with("Www-Authenticate", challenge)
}
