//! The two cookies of the UI: `sid` (S1) and gorilla's CSRF cookie with its masked token (S2).

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign, verify};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};

use super::{random, replica::Inner, times::http_date, wire::head::Head, wire::reply::Reply};

const CSRF_COOKIE: &str = "_gorilla_csrf";
/// The header that carries the masked token both ways, as Go writes its name.
const CSRF_HEADER: &str = "X-Harbor-Csrf-Token";
const CSRF_COOKIE_SECONDS: u64 = 43_200;
const TOKEN: usize = 32;

/// What the CSRF middleware adds to an answer.
#[derive(Debug, Default)]
pub(super) struct Csrf {
    set_cookie: Option<String>,
    masked: Option<String>,
}

impl Inner {
    /// Runs the CSRF check where core runs it: `Err` is the refusal.
    pub(super) fn check_csrf(&self, head: &Head, path: &str) -> Result<Csrf, Reply> {
        let for_clients =
            ["/v2/", "/api/", "/chartrepo/", "/service/"].iter().any(|start| path.starts_with(start));
        if for_clients && head.cookie("sid").is_none() {
            return Ok(Csrf::default());
        }
        let known = head.cookie(CSRF_COOKIE).and_then(|cookie| self.csrf_token(cookie));
        let token = known.clone().unwrap_or_else(|| random::bytes(TOKEN));
        let set_cookie = known.is_none().then(|| self.csrf_cookie(&token));
        let csrf = Csrf { set_cookie, masked: Some(mask(&token)) };
        let safe = matches!(head.method.as_str(), "GET" | "HEAD" | "OPTIONS" | "TRACE");
        let sent = head.header(CSRF_HEADER).and_then(unmask);
        if safe || (known.is_some() && sent == known) {
            return Ok(csrf);
        }
        let refusal = Reply::error(403, "FORBIDDEN", self.version.csrf_refusal());
        Err(csrf.attach(refusal))
    }

    fn csrf_cookie(&self, token: &[u8]) -> String {
        let tag = sign(&Key::new(HMAC_SHA256, &self.world.csrf_key), token);
        let value = URL_SAFE_NO_PAD.encode([token, tag.as_ref()].concat());
        let expires = self.clock.now_precise() + std::time::Duration::from_secs(CSRF_COOKIE_SECONDS);
        format!(
            "{CSRF_COOKIE}={value}; Path=/; Expires={}; Max-Age={CSRF_COOKIE_SECONDS}; HttpOnly; SameSite=Strict",
            http_date(expires)
        )
    }

    /// The token that a cookie of ours (of any replica) holds.
    fn csrf_token(&self, cookie: &str) -> Option<Vec<u8>> {
        let bytes = URL_SAFE_NO_PAD.decode(cookie).ok()?;
        let (token, tag) = bytes.split_at_checked(TOKEN)?;
        verify(&Key::new(HMAC_SHA256, &self.world.csrf_key), token, tag).ok()?;
        Some(token.to_vec())
    }

    /// Sets a fresh `sid` where the request came without a known one (T15, S1).
    pub(super) fn attach_session(&self, head: &Head, reply: Reply) -> Reply {
        let known = head.cookie("sid").is_some_and(|sid| self.world.knows_session(sid));
        let set = reply.headers.iter().any(|(n, value)| n == "Set-Cookie" && value.starts_with("sid="));
        if known || set { reply } else { reply.with("Set-Cookie", sid_cookie(&self.world.new_session(None))) }
    }
}

impl Csrf {
    /// Adds cookie and token to an answer.
    pub(super) fn attach(self, mut reply: Reply) -> Reply {
        if let Some(masked) = self.masked {
            reply = reply.with(CSRF_HEADER, masked);
        }
        if let Some(cookie) = self.set_cookie {
            // gorilla's cookie comes first on the wire.
            reply.headers.insert(0, ("Set-Cookie".to_owned(), cookie));
        }
        reply
    }

    /// Adds `Vary` too, as on every answer that got past the check.
    pub(super) fn attach_passed(self, reply: Reply) -> Reply {
        let ran = self.masked.is_some();
        let reply = self.attach(reply);
        if ran { reply.with("Vary", "Cookie") } else { reply }
    }
}

/// A `sid` cookie as Harbor sets it.
pub(super) fn sid_cookie(sid: &str) -> String {
    format!("sid={sid}; Path=/; HttpOnly")
}

/// gorilla's masked token: a one-time pad, then pad xor token.
fn mask(token: &[u8]) -> String {
    let pad = random::bytes(TOKEN);
    let masked: Vec<u8> = pad.iter().zip(token).map(|(a, b)| a ^ b).collect();
    STANDARD.encode([pad, masked].concat())
}

fn unmask(sent: &str) -> Option<Vec<u8>> {
    let bytes = STANDARD.decode(sent).ok()?;
    let (pad, masked) = bytes.split_at_checked(TOKEN)?;
    (masked.len() == TOKEN).then(|| pad.iter().zip(masked).map(|(a, b)| a ^ b).collect())
}
