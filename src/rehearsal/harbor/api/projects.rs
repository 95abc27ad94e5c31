//! Projects and their members.

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::{Call, done, forbidden, json_reply, not_found};
use crate::rehearsal::harbor::{
    replica::Inner,
    times::rfc3339_millis,
    who::Who,
    wire::reply::Reply,
    world::{Action, Member, Project, Role},
};

impl Inner {
    pub(super) fn projects(&self, call: &Call<'_>) -> Reply {
        let method = call.head.method.as_str();
        let (named, below) = match &call.segments[1..] {
            [] if method == "POST" => return self.make_project(call),
            [] if method == "GET" => {
                let tables = self.world.tables();
                let seen = tables.projects.iter().filter(|project| call.who.can(Action::Pull, project));
                return json_reply(200, &seen.map(shown).collect());
            }
            [named, below @ ..] => (*named, below),
            [] => return not_found("project"),
        };
        let Some(project) = self.project_named(named) else {
            return Reply::error(404, "NOT_FOUND", &format!("project {named} not found"));
        };
        if !call.who.can(Action::Pull, &project) {
            return forbidden();
        }
        match (method, below) {
            ("GET", []) => json_reply(200, &shown(&project)),
            ("DELETE", ["repositories", name]) => self.delete_repository(call, &project, name),
            _ if !governs(call.who, &project) => forbidden(),
            ("DELETE", []) => self.delete_project(&project),
            ("PUT", []) => {
                if let Some(public) = is_public(&call.sent) {
                    self.world.add_project(&project.name, public);
                }
                Reply::new(200)
            }
            (_, ["members", rest @ ..]) => self.members(call, &project, rest),
            _ => not_found("project"),
        }
    }

    fn members(&self, call: &Call<'_>, project: &Project, rest: &[&str]) -> Reply {
        match (call.head.method.as_str(), rest) {
            ("GET", []) => json_reply(200, &project.members.iter().map(member).collect()),
            ("POST", []) => {
                let role = call.sent["role_id"].as_u64().and_then(Role::by_id);
                let user = call.text("/member_user/username");
                let (Some(role), Some(_)) = (role, self.world.user(user)) else {
                    return Reply::error(400, "BAD_REQUEST", "invalid role or user");
                };
                let id = self.world.add_member(&project.name, user, role).unwrap_or_default();
                Reply::new(201).with("Location", format!("/api/v2.0/projects/{}/members/{id}", project.id))
            }
            ("DELETE", [id]) => {
                let found = project.members.iter().find(|member| member.id.to_string() == *id);
                let removed =
                    found.is_some_and(|member| self.world.remove_member(&project.name, &member.user));
                done(removed, "project member")
            }
            _ => not_found("project member"),
        }
    }

    fn make_project(&self, call: &Call<'_>) -> Reply {
        let name = call.text("/project_name");
        if self.world.project(name).is_some() {
            return Reply::error(409, "CONFLICT", &format!("The project named {name} already exists"));
        }
        let id = self.world.add_project(name, is_public(&call.sent).unwrap_or(false));
        self.world.add_member(name, call.who.name(), Role::ProjectAdmin);
        Reply::new(201).with("Location", format!("/api/v2.0/projects/{id}"))
    }

    fn delete_project(&self, project: &Project) -> Reply {
        let of_it = format!("{}/", project.name);
        if self.world.tables().repositories.iter().any(|repository| repository.starts_with(&of_it)) {
            let message = format!("the project {} contains repositories, can not be deleted", project.name);
            return Reply::error(412, "PRECONDITION_FAILED", &message);
        }
        done(self.world.remove_project(&project.name), "project")
    }

    /// A name with slashes comes encoded twice; the first layer is off by now.
    fn delete_repository(&self, call: &Call<'_>, project: &Project, name: &str) -> Reply {
        if !call.who.can(Action::Delete, project) {
            return forbidden();
        }
        let repository = format!("{}/{}", project.name, percent_decode_str(name).decode_utf8_lossy());
        done(self.world.forget_repository(&repository), &format!("repository {repository}"))
    }

    fn project_named(&self, named: &str) -> Option<Project> {
        let by_id = named.parse::<u64>().ok();
        let tables = self.world.tables();
        tables.projects.iter().find(|project| Some(project.id) == by_id || project.name == named).cloned()
    }
}

fn governs(who: &Who, project: &Project) -> bool {
    let rules = |member: &Member| member.user == who.name() && member.role == Role::ProjectAdmin;
    who.is_admin() || project.members.iter().any(rules)
}

fn is_public(sent: &Value) -> Option<bool> {
    let by_metadata = sent.pointer("/metadata/public").and_then(Value::as_str).map(|text| text == "true");
    by_metadata.or_else(|| sent["public"].as_bool())
}

fn shown(project: &Project) -> Value {
    json!({
        "creation_time": rfc3339_millis(project.created),
        "metadata": {"public": project.public.to_string()},
        "name": project.name,
        "project_id": project.id,
    })
}

fn member(member: &Member) -> Value {
    json!({
        "entity_name": member.user,
        "entity_type": "u",
        "id": member.id,
        "role_id": member.role.id(),
        "role_name": member.role.name(),
    })
}
