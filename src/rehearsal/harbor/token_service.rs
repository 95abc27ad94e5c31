//! `/service/token` (T).

use serde_json::json;

use super::{
    random,
    replica::Inner,
    times::rfc3339,
    token::{self, Access, Order, REGISTRY},
    version::Version,
    who::Who,
    wire::{head::Head, reply::Reply},
    world::Action,
};

const NOTARY: &str = "harbor-notary";

impl Inner {
    /// Answers a request that was already identified.
    pub(super) async fn token(&self, head: &Head, who: &Who) -> Reply {
        if !head.is("GET") {
            return Reply::new(405)
                .with("Content-Type", "text/plain; charset=utf-8")
                .with("X-Content-Type-Options", "nosniff")
                .body("Method Not Allowed\n");
        }
        let service = head.query("service").into_iter().next().unwrap_or_default();
        if service != REGISTRY && !(service == NOTARY && self.version.serves_notary()) {
            return Reply::new(400).body(format!("Unable to handle service: {service}"));
        }
        let scopes: Vec<String> = head
            .query("scope")
            .iter()
            .flat_map(|scope| scope.split(' '))
            .filter(|scope| !scope.is_empty())
            .map(str::to_owned)
            .collect();
        if scopes.is_empty() && !who.is_authenticated() {
            return Reply::new(401);
        }
        self.latency.token().await;
        match self.grant(&scopes, &service, who) {
            Some(answer) => answer,
            None => Reply::new(500),
        }
    }

    fn grant(&self, scopes: &[String], service: &str, who: &Who) -> Option<Reply> {
        let access: Option<Vec<Access>> =
            scopes.iter().map(|scope| self.filter(entry(scope), service, who)).collect();
        let (access, now) = (access?, self.clock.now_precise());
        let order = Order {
            subject: who.name(),
            service,
            access: (!access.is_empty()).then_some(access.as_slice()),
            now,
            lifetime: self.token_expiration,
        };
        let token = token::issue(&order, &self.key_file, self.version)?;
        let body = json!({
            "token": token,
            "access_token": "",
            "expires_in": self.token_expiration.as_secs(),
            "issued_at": rfc3339(now),
        })
        .to_string();
        Some(
            Reply::new(200)
                .with("Content-Length", body.len().to_string())
                .with("Content-Type", "application/json; charset=utf-8")
                .body(body),
        )
    }

    /// Puts what `who` really may do in the place of what was asked for (T3); `None` is core's 500.
    fn filter(&self, mut entry: Access, service: &str, who: &Who) -> Option<Access> {
        match entry.kind.as_str() {
            // Notary's names begin with Harbor's host, as no client's do today: nothing is granted (T10).
            "repository" if service == NOTARY => entry.actions.clear(),
            "repository" => {
                let (project, _) = entry.name.split_once('/')?;
                entry.actions = self.actions(project, who);
            }
            "registry" if entry.name != "catalog" => return None,
            "registry" if who.is_admin() => {}
            _ => entry.actions.clear(),
        }
        Some(entry)
    }

    fn actions(&self, project: &str, who: &Who) -> Vec<String> {
        // A database that is down leaves nothing, not even what is public (D1).
        let Ok(Some(project)) = self.world.look_up_project(project) else { return Vec::new() };
        let allowed = Action::ALL.into_iter().filter(|&action| who.can(action, &project));
        let mut names: Vec<String> = allowed.map(|action| action.name().to_owned()).collect();
        if names.len() == Action::ALL.len() && self.version.grants_star() {
            names.push("*".to_owned());
        }
        // Go's maps have no order: neither has the token.
        if !names.is_empty() {
            let turn = usize::from(random::bytes(1)[0]) % names.len();
            names.rotate_left(turn);
        }
        names
    }
}

/// One scope as core splits it.
fn entry(scope: &str) -> Access {
    let parts: Vec<&str> = scope.split(':').collect();
    let (kind, name, actions) = match parts.as_slice() {
        [kind] => (*kind, String::new(), ""),
        [kind, name] => (*kind, (*name).to_owned(), ""),
        [kind, name @ .., actions] => (*kind, name.join(":"), *actions),
        [] => ("", String::new(), ""),
    };
    let actions = actions.split(',').filter(|action| !action.is_empty()).map(str::to_owned).collect();
    Access { kind: kind.to_owned(), name, actions }
}

impl Version {
    /// The text of `harbor_version` in a build of one's own, as the recorded ones were.
    pub(super) fn build(self) -> String {
        format!("v{}-local", self.number())
    }
}
