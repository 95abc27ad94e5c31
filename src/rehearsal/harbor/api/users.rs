//! Users: who am I, and what ends a password.

use serde_json::{Value, json};

use super::{Call, done, forbidden, json_reply, not_found};
use crate::rehearsal::harbor::{replica::Inner, times::rfc3339_millis, wire::reply::Reply, world::User};

impl Inner {
    pub(super) fn users(&self, call: &Call<'_>) -> Reply {
        let admin = call.who.is_admin();
        match (call.head.method.as_str(), &call.segments[1..]) {
            ("GET", ["current"]) => match self.world.user(call.who.name()) {
                Some(user) => json_reply(200, &shown(&user)),
                None => Reply::error(401, "UNAUTHORIZED", "unauthorized"),
            },
            ("PUT", [id, "password"]) => self.change_password(call, id),
            _ if !admin => forbidden(),
            ("GET", []) => {
                let users: Vec<Value> = self.world.tables().users.iter().map(shown).collect();
                json_reply(200, &Value::from(users))
            }
            ("POST", []) => {
                let name = call.text("/username");
                if self.world.user(name).is_some() {
                    return Reply::error(409, "CONFLICT", &format!("user {name} already exists"));
                }
                let id = self.world.add_user(name, call.text("/password"), false);
                Reply::new(201).with("Location", format!("/api/v2.0/users/{id}"))
            }
            (method, [id]) => match id.parse().ok().and_then(|id| self.world.user_by_id(id)) {
                Some(user) if method == "GET" => json_reply(200, &shown(&user)),
                Some(user) if method == "DELETE" => done(self.world.remove_user(&user.name), "user"),
                _ => not_found("user"),
            },
            _ => not_found("user"),
        }
    }

    /// Users change their own with the present one, an administrator anybody's without.
    fn change_password(&self, call: &Call<'_>, id: &str) -> Reply {
        let Some(user) = id.parse().ok().and_then(|id| self.world.user_by_id(id)) else {
            return not_found("user");
        };
        let own = user.name == call.who.name();
        if !own && !call.who.is_admin() {
            return forbidden();
        }
        let present = self.world.user_by_password(&user.name, call.text("/old_password"));
        if own && present.is_none() {
            return Reply::error(403, "FORBIDDEN", "Current password is incorrect");
        }
        done(self.world.set_password(&user.name, call.text("/new_password")), "user")
    }
}

fn shown(user: &User) -> Value {
    let created = rfc3339_millis(user.created);
    let mut shown = json!({"admin_role_in_auth": false});
    if user.admin {
        shown["comment"] = json!("admin user");
    }
    shown["creation_time"] = json!(created);
    if user.admin {
        shown["realname"] = json!("system admin");
    } else {
        shown["email"] = json!(format!("{}@example.test", user.name));
        shown["realname"] = json!(user.name);
    }
    shown["sysadmin_flag"] = json!(user.admin);
    shown["update_time"] = json!(created);
    shown["user_id"] = json!(user.id);
    shown["username"] = json!(user.name);
    shown
}
