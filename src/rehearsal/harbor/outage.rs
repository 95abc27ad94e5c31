//! What a request meets while core's database or Redis is down (D1 to D4), by version.
//!
//! What the database is needed for, and when: Harbor's transaction around each write comes before everything else, then
//! the password, then the project. A refusing database fails each of these in its own way, where they are; a hanging
//! one holds the whole request, so that it makes no difference which of them it was, and all waiting is here.

use std::time::{Duration, Instant};

use super::{
    replica::Inner,
    repository_path::{RepositoryPath, What},
    version::Version,
    who::basic,
    wire::{head::Head, reply::Reply, request_body::RequestBody},
    world::{Backends, Health},
};

/// How a request comes through an outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endured {
    /// Core goes on with it, and finds what is still missing.
    Served,
    /// Redis is gone, and this version can't do without (D3).
    Unavailable,
    /// Its client left while it hung.
    Left,
}

impl Inner {
    /// Waits for what the request needs, as long as core would; at once where all is up.
    pub(super) async fn endure(&self, head: &Head, path: &str, body: &mut RequestBody<'_>) -> Endured {
        if self.world.backends().are_up() {
            return Endured::Served;
        }
        Box::pin(self.endure_outage(head, path, body)).await
    }

    async fn endure_outage(&self, head: &Head, path: &str, body: &mut RequestBody<'_>) -> Endured {
        // The session in Redis comes first.
        let endured = self.endure_redis(head, path, body).await;
        if endured != Endured::Served {
            return endured;
        }
        let backends = self.world.backends();
        let hangs = backends.database.health == Health::Hanging;
        if hangs && self.needs_the_database(head, path, &backends) {
            tokio::select! {
                () = self.world.goes_on(|all| all.database.health) => {}
                () = body.client_left() => return Endured::Left,
            }
        }
        Endured::Served
    }

    async fn endure_redis(&self, head: &Head, path: &str, body: &mut RequestBody<'_>) -> Endured {
        let backends = self.world.backends();
        let asked = Asked::of(path);
        let down = backends.redis.lasts(Instant::now());
        let (cost, hangs) = match backends.redis.health {
            Health::Up => return Endured::Served,
            Health::Refusing => (Some(slowness(self.version, asked, is_local_user(head), down)), false),
            Health::Hanging => (patience(self.version, asked, head, backends.times.redis_use), true),
        };
        let cost = async {
            match cost {
                Some(cost) => tokio::time::sleep(cost).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.world.goes_on(|all| all.redis.health), if hangs => return Endured::Served,
            () = cost => {}
            () = body.client_left() => return Endured::Left,
        }
        if self.version.needs_redis() { Endured::Unavailable } else { Endured::Served }
    }

    fn needs_the_database(&self, head: &Head, path: &str, backends: &Backends) -> bool {
        let logged_in = || head.cookie("sid").and_then(|sid| self.world.session_user(sid)).is_some();
        match path {
            // It skips identification, too.
            "/api/v2.0/ping" => false,
            _ if writes_in_a_transaction(head, path) => true,
            _ if basic(head.header("authorization").unwrap_or_default()).is_some() => true,
            "/api/v2.0/health" => false,
            "/api/v2.0/systeminfo" => logged_in() || backends.lost_the_configuration(Instant::now()),
            "/service/token" => names_a_repository(head),
            _ if path.starts_with("/v2") => {
                // A read without a credential is challenged before anything is looked up (C2).
                let written = !matches!(head.method.as_str(), "GET" | "HEAD");
                let authorized = head.header("authorization").is_some_and(|value| !value.is_empty());
                RepositoryPath::parse(path).is_some() && (written || authorized)
            }
            _ => path.starts_with("/api/") && logged_in(),
        }
    }

    /// Whether core fails this request before it looks at anything else: it begins a transaction for each write but those
    /// that send an upload's bytes.
    pub(super) fn has_no_transaction(&self, head: &Head, path: &str) -> bool {
        writes_in_a_transaction(head, path) && !self.world.database_answers()
    }
}

fn writes_in_a_transaction(head: &Head, path: &str) -> bool {
    match head.method.as_str() {
        "GET" | "HEAD" | "OPTIONS" => false,
        "PATCH" | "PUT" => {
            let upload = RepositoryPath::parse(path).map(|path| path.what);
            !matches!(upload, Some(What::Upload(id)) if !id.is_empty())
        }
        _ => true,
    }
}

fn names_a_repository(head: &Head) -> bool {
    let scopes = head.query("scope");
    scopes.iter().flat_map(|scope| scope.split(' ')).any(|scope| scope.starts_with("repository:"))
}

/// Robots cost no more than tokens: their secrets are in no cache.
fn is_local_user(head: &Head) -> bool {
    basic(head.header("authorization").unwrap_or_default())
        .is_some_and(|(name, _)| !name.starts_with("robot$"))
}

/// Requests by how much they ask of Redis, as far as the recordings tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Ping,
    Login,
    Token,
    Repository,
    Other,
}

impl Asked {
    fn of(path: &str) -> Self {
        match path {
            "/api/v2.0/ping" => Self::Ping,
            "/v2" | "/v2/" => Self::Login,
            "/service/token" => Self::Token,
            _ if path.starts_with("/v2/") => Self::Repository,
            _ => Self::Other,
        }
    }
}

/// How much slower core is while Redis refuses (D3): what it tries again at each use. 2.15.2 has the most patience with
/// the first connections that fail.
fn slowness(version: Version, asked: Asked, local_user: bool, down: Duration) -> Duration {
    const FIRST: Duration = Duration::from_secs(5);
    let later = Duration::from_millis(match asked {
        Asked::Ping => 150,
        Asked::Login => 600,
        Asked::Token => 1_100,
        Asked::Repository => 1_600,
        Asked::Other => 2_200,
    });
    let user = Duration::from_millis(if local_user { 1_600 } else { 0 });
    if version == Version::V2_15_2 && down < FIRST {
        return Duration::from_millis(3_400) + user / 2;
    }
    later + user
}

/// How long core waits for a Redis that hangs (D4); `None` where it was still waiting after 30 s, when the recording ended.
fn patience(version: Version, asked: Asked, head: &Head, one_use: Duration) -> Option<Duration> {
    let bearer = head.header("authorization").is_some_and(|value| value.starts_with("Bearer "));
    match (version, asked) {
        (Version::V2_10_2, Asked::Ping) => Some(one_use * 2),
        (_, Asked::Ping) => Some(one_use),
        // A good one after 15 s. The dead one's 27 s aren't told apart here.
        (Version::V2_15_2, Asked::Login) if bearer => Some(one_use * 5 / 4),
        _ => None,
    }
}

/// The page of Harbor's web framework for 503.
pub(super) fn unavailable() -> Reply {
    const PAGE: &str = "<!DOCTYPE html>\n<html lang=\"en\">\n\t<head>\n\t\t<meta http-equiv=\"Content-Type\" content=\"text/html; charset=UTF-8\">\n\t\t<title>Service Unavailable</title>\n\t</head>\n\t<body>503</body>\n</html>\n";
    Reply::new(503).with("Content-Type", "text/html; charset=utf-8").body(PAGE)
}

/// What core says where it fails without a word of its own.
pub(super) fn internal_error() -> Reply {
    Reply::error(500, "UNKNOWN", "internal server error")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, target: &str, authorization: &str) -> Head {
        let headers = vec![("Authorization".to_owned(), authorization.as_bytes().to_vec())];
        Head { method: method.to_owned(), target: target.to_owned(), headers, minor: 1 }
    }

    #[test]
    fn writes_but_those_of_an_uploads_bytes_begin_with_the_database() {
        for (method, path, expected) in [
            ("POST", "/v2/priv/x/blobs/uploads/", true),
            ("PATCH", "/v2/priv/x/blobs/uploads/id", false),
            ("PUT", "/v2/priv/x/blobs/uploads/id", false),
            ("DELETE", "/v2/priv/x/blobs/uploads/id", true),
            ("PUT", "/v2/priv/x/manifests/v1", true),
            ("GET", "/v2/priv/x/manifests/v1", false),
            ("POST", "/c/login", true),
            ("HEAD", "/api/v2.0/ping", false),
        ] {
            assert_eq!(writes_in_a_transaction(&head(method, path, ""), path), expected, "{method} {path}");
        }
    }

    #[test]
    fn d3_slowness_lies_within_what_was_recorded() {
        use Asked::{Login, Other, Ping, Repository, Token};
        let (soon, late) = (Duration::from_secs(1), Duration::from_secs(9));
        // Milliseconds of the fastest and the slowest.
        for (version, asked, user, down, fastest, slowest) in [
            (Version::V2_8_4, Ping, false, soon, 60, 200),
            (Version::V2_10_2, Login, false, soon, 530, 880),
            (Version::V2_10_2, Login, true, late, 1_490, 2_330),
            (Version::V2_10_2, Token, false, late, 980, 1_410),
            (Version::V2_10_2, Token, true, late, 2_660, 2_730),
            (Version::V2_10_2, Repository, false, soon, 1_420, 1_930),
            (Version::V2_10_2, Other, false, late, 1_910, 2_680),
            (Version::V2_15_2, Ping, false, soon, 3_240, 3_960),
            (Version::V2_15_2, Login, true, soon, 4_030, 4_360),
            (Version::V2_15_2, Ping, false, late, 130, 200),
        ] {
            let found = slowness(version, asked, user, down).as_millis();
            assert!((fastest..=slowest).contains(&found), "{version} {asked:?} {user}: {found} ms");
        }
    }

    #[test]
    fn d4_a_ping_and_a_bearer_of_2_15_end_and_all_else_hangs() {
        let one = Duration::from_secs(12);
        let of = |version, asked| patience(version, asked, &head("GET", "/", "Bearer x"), one);
        assert_eq!(of(Version::V2_8_4, Asked::Ping), Some(Duration::from_secs(12)));
        assert_eq!(of(Version::V2_10_2, Asked::Ping), Some(Duration::from_secs(24)));
        assert_eq!(of(Version::V2_15_2, Asked::Ping), Some(Duration::from_secs(12)));
        assert_eq!(of(Version::V2_15_2, Asked::Login), Some(Duration::from_secs(15)));
        assert_eq!(of(Version::V2_10_2, Asked::Login), None);
        assert_eq!(of(Version::V2_15_2, Asked::Token), None);
    }
}
