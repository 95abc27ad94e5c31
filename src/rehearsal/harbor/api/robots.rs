//! Robots: made, given another secret, removed.

use serde_json::{Value, json};

use super::{Call, done, forbidden, json_reply, not_found};
use crate::rehearsal::harbor::{
    random,
    replica::Inner,
    wire::reply::Reply,
    world::{Action, Robot},
};

impl Inner {
    pub(super) fn robots(&self, call: &Call<'_>) -> Reply {
        if !call.who.is_admin() {
            return forbidden();
        }
        let method = call.head.method.as_str();
        let id = match &call.segments[1..] {
            [] if method == "POST" => return self.make_robot(call),
            [] if method == "GET" => {
                let robots: Vec<Value> = self.world.tables().robots.iter().map(shown).collect();
                return json_reply(200, &Value::from(robots));
            }
            [id] => id.parse().ok(),
            _ => None,
        };
        let Some(robot) = id.and_then(|id| self.world.robot_by_id(id)) else { return not_found("robot") };
        match method {
            "GET" => json_reply(200, &shown(&robot)),
            "PATCH" => {
                let secret = given_or_new(call.text("/secret"));
                self.world.set_robot_secret(&robot.name, &secret);
                json_reply(200, &json!({"secret": secret}))
            }
            "PUT" => {
                let disabled = call.sent["disable"].as_bool().unwrap_or(robot.disabled);
                done(self.world.set_robot_disabled(&robot.name, disabled), "robot")
            }
            "DELETE" => done(self.world.remove_robot(&robot.name), "robot"),
            _ => not_found("robot"),
        }
    }

    fn make_robot(&self, call: &Call<'_>) -> Reply {
        let name = format!("robot${}", call.text("/name"));
        let secret = given_or_new(call.text("/secret"));
        let permissions = call.sent["permissions"].as_array().cloned().unwrap_or_default();
        let projects = permissions.iter().filter_map(permission).collect();
        let id = self.world.add_robot_with(&name, &secret, projects);
        json_reply(201, &json!({"expires_at": -1, "id": id, "name": name, "secret": secret}))
            .with("Location", format!("/api/v2.0/robots/{id}"))
    }
}

/// Project and repository actions of one entry of a robot's `permissions`.
fn permission(entry: &Value) -> Option<(String, Vec<Action>)> {
    let project = entry["namespace"].as_str()?.to_owned();
    let access = entry["access"].as_array()?;
    let of_repositories = access.iter().filter(|one| one["resource"] == "repository");
    let actions = of_repositories.filter_map(|one| Action::parse(one["action"].as_str()?));
    Some((project, actions.collect()))
}

fn given_or_new(secret: &str) -> String {
    if secret.is_empty() { random::alphanumeric(32) } else { secret.to_owned() }
}

fn shown(robot: &Robot) -> Value {
    let permission = |(project, actions): &(String, Vec<Action>)| {
        let access: Vec<Value> =
            actions.iter().map(|action| json!({"action": action.name(), "resource": "repository"})).collect();
        json!({"access": access, "kind": "project", "namespace": project})
    };
    let permissions: Vec<Value> = robot.projects.iter().map(permission).collect();
    json!({
        "disable": robot.disabled,
        "id": robot.id,
        "level": "system",
        "name": robot.name,
        "permissions": permissions,
    })
}
