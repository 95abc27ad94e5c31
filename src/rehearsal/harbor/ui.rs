//! `/c`: login and logout of the UI (S3), and what is none of core's paths.

use super::{
    cookies::sid_cookie,
    replica::Inner,
    times::http_date,
    who::Who,
    wire::{
        head::{Head, form},
        reply::Reply,
        request_body::RequestBody,
    },
};

const LONGEST_FORM: usize = 64 * 1024;

impl Inner {
    /// Answers what is neither registry, token service nor API.
    pub(super) async fn ui(&self, head: &Head, path: &str, body: &mut RequestBody<'_>) -> Reply {
        match (head.method.as_str(), path) {
            ("POST", "/c/login") => self.log_in(head, body).await,
            ("GET", "/c/log_out") => self.log_out(head),
            ("GET", "/c/oidc/login") => {
                let message = "auth mode: db_auth is not OIDC based";
                Reply::error(412, "PRECONDITION_FAILED", message)
            }
            _ => not_found(),
        }
    }

    async fn log_in(&self, head: &Head, body: &mut RequestBody<'_>) -> Reply {
        let Ok(Some(bytes)) = body.whole(LONGEST_FORM).await else { return Reply::new(400) };
        let text = String::from_utf8_lossy(&bytes);
        let field = |name| form(&text, name).into_iter().next().unwrap_or_default();
        match self.by_password(&field("principal"), &field("password")).await {
            Some(Who::User { name, .. }) => {
                if let Some(former) = head.cookie("sid") {
                    self.world.end_session(former);
                }
                let sid = self.world.new_session(Some(name));
                Reply::new(200).with("Set-Cookie", sid_cookie(&sid))
            }
            _ => Reply::new(401),
        }
    }

    fn log_out(&self, head: &Head) -> Reply {
        if let Some(sid) = head.cookie("sid") {
            self.world.end_session(sid);
        }
        let now = http_date(self.clock.now_precise());
        Reply::new(200).with("Set-Cookie", format!("sid=; Path=/; Expires={now}; Max-Age=0; HttpOnly"))
    }
}

fn not_found() -> Reply {
    const PAGE: &str = "<!DOCTYPE HTML>\n<html>\n<head>\n<meta charset=\"utf-8\">\n<title>404 - Page Not Found</title>\n</head>\n<body>404</body>\n</html>\n";
    Reply::new(404)
        .with("Content-Length", PAGE.len().to_string())
        .with("Content-Type", "text/html; charset=utf-8")
        .body(PAGE)
}
