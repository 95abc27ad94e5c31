//! `/api`: what tells of health and version (F3), and the changes that end what a credential may do.

mod projects;
mod robots;
mod users;

use std::time::Instant;

use serde_json::{Value, json};

use super::{
    outage::internal_error,
    replica::Inner,
    times::rfc3339_millis,
    version::Version,
    who::Who,
    wire::{head::Head, reply::Reply, request_body::RequestBody},
    world::Backend,
};

const LONGEST_BODY: usize = 1 << 20;

/// A call of the API, taken apart.
struct Call<'a> {
    head: &'a Head,
    who: &'a Who,
    /// Below `/api/v2.0/`, by slashes.
    segments: Vec<&'a str>,
    /// The JSON sent, or null.
    sent: Value,
}

impl Call<'_> {
    /// A text of the JSON sent; empty where there is none.
    fn text(&self, pointer: &str) -> &str {
        self.sent.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }
}

impl Inner {
    /// Answers an identified request below `/api/`.
    pub(super) async fn api(&self, head: &Head, path: &str, who: &Who, body: &mut RequestBody<'_>) -> Reply {
        let Some(below) = path.strip_prefix("/api/v2.0/") else {
            return if path == "/api/version" {
                Reply::new(200).body("{\"version\":\"v2.0\"}\n")
            } else {
                not_found(path)
            };
        };
        let Ok(Some(bytes)) = body.whole(LONGEST_BODY).await else {
            return Reply::error(400, "BAD_REQUEST", "bad request");
        };
        let sent = serde_json::from_slice(&bytes).unwrap_or_default();
        let call = Call { head, who, segments: below.trim_end_matches('/').split('/').collect(), sent };
        self.open_to_all(&call).unwrap_or_else(|| self.of_the_authenticated(&call, path))
    }

    fn open_to_all(&self, call: &Call<'_>) -> Option<Reply> {
        Some(match (call.head.method.as_str(), call.segments.as_slice()) {
            ("GET", ["ping"]) => Reply::new(200).with("Content-Type", "text/plain").body("Pong"),
            ("GET", ["health"]) => self.health(),
            ("GET", ["systeminfo"]) => self.system_info(call.who),
            (method, ["ping" | "health" | "systeminfo"]) => {
                let message = format!("method {method} is not allowed, but [GET] are");
                Reply::error(405, "METHOD_NOT_ALLOWED", &message)
            }
            ("GET", ["systeminfo", "getcert"]) => {
                let message = "resource not found: cert not found in path: /etc/core/ca/ca.crt";
                Reply::error(404, "NOT_FOUND", message)
            }
            _ => return None,
        })
    }

    fn of_the_authenticated(&self, call: &Call<'_>, path: &str) -> Reply {
        match (call.head.method.as_str(), call.segments.as_slice()) {
            _ if !call.who.is_authenticated() => Reply::error(401, "UNAUTHORIZED", "unauthorized"),
            // A live session needs no database, what it asks for does.
            _ if !self.world.database_answers() => internal_error(),
            ("POST", ["labels"]) => {
                let id = self.world.tables().next_id();
                Reply::new(201).with("Location", format!("/api/v2.0/labels/{id}"))
            }
            ("GET", ["configurations"]) if call.who.is_admin() => {
                json_reply(200, &json!({"auth_mode": {"editable": false, "value": "db_auth"}}))
            }
            (_, ["configurations"]) => forbidden(),
            (_, ["users", ..]) => self.users(call),
            (_, ["robots", ..]) => self.robots(call),
            (_, ["projects", ..]) => self.projects(call),
            _ => not_found(path),
        }
    }

    /// F3: what the last look at each component found, and 200 whatever that was.
    fn health(&self) -> Reply {
        let (backends, now) = (self.world.backends(), Instant::now());
        let shown = |backend: Backend| backend.is_shown_healthy(now, backends.times.health_check);
        let database = format!("failed to run SQL \"SELECT 1\": {}", self.version.database_refusal());
        let redis = "dial tcp 127.0.0.1:6379: connect: connection refused".to_owned();
        let components = [
            ("core", None),
            ("database", (!shown(backends.database)).then_some(database)),
            ("jobservice", None),
            ("portal", None),
            ("redis", (!shown(backends.redis)).then_some(redis)),
            ("registry", None),
            ("registryctl", None),
        ];
        let well = components.iter().all(|(_, error)| error.is_none());
        let told = components.map(|(name, error)| match error {
            None => json!({"name": name, "status": "healthy"}),
            Some(error) => json!({"error": error, "name": name, "status": "unhealthy"}),
        });
        let status = if well { "healthy" } else { "unhealthy" };
        json_reply(200, &json!({"components": told, "status": status}))
    }

    fn system_info(&self, who: &Who) -> Reply {
        if self.world.backends().lost_the_configuration(Instant::now()) {
            return internal_error();
        }
        let known = who.is_authenticated();
        let later = self.version > Version::V2_8_4;
        let number = known || self.version.tells_its_number_to_anyone();
        let host = self.ext_endpoint.split_once("://").map_or("", |(_, host)| host);
        let entries = [
            (true, "auth_mode", json!("db_auth")),
            (later, "banner_message", json!("")),
            (known, "current_time", json!(rfc3339_millis(self.clock.now_precise()))),
            (known, "external_url", json!(self.ext_endpoint)),
            (number, "harbor_version", json!(self.version.build())),
            (known, "has_ca_root", json!(false)),
            (known, "notification_enable", json!(true)),
            (later, "oidc_provider_name", json!("")),
            (true, "primary_auth_mode", json!(false)),
            (known, "project_creation_restriction", json!("everyone")),
            (known, "read_only", json!(false)),
            (known, "registry_storage_provider_name", json!("filesystem")),
            (known, "registry_url", json!(host)),
            (true, "self_registration", json!(false)),
            (known && !later, "with_notary", json!(false)),
        ];
        let shown = entries.into_iter().filter(|(show, ..)| *show);
        json_reply(200, &shown.map(|(_, name, value)| (name.to_owned(), value)).collect::<Value>())
    }
}

/// A JSON answer as go-swagger writes it.
fn json_reply(status: u16, value: &Value) -> Reply {
    Reply::new(status).with("Content-Type", "application/json").body(value.to_string() + "\n")
}

fn forbidden() -> Reply {
    Reply::error(403, "FORBIDDEN", "forbidden")
}

fn not_found(what: &str) -> Reply {
    Reply::error(404, "NOT_FOUND", &format!("{what} not found"))
}

/// 200 where something was there to change, else 404.
fn done(changed: bool, what: &str) -> Reply {
    if changed { Reply::new(200) } else { not_found(what) }
}
