//! Outages of core's database that look like Harbor's judgement (D1), told from judgements.

use std::fmt;

use http::{HeaderMap, Method, StatusCode, header::WWW_AUTHENTICATE};

use super::plan::Standing;
use crate::words::{challenge::Challenge, route::Kind};

/// The question whose answer needs core's database: a read of a repository in a project that nobody has.
///
/// It goes up with a bearer that means nothing, so core looks for the project before anything else: where its database
/// answers it says that there is none (C8), where the database refuses it says so in the same 401 (D1), and where it
/// hangs it says nothing (D2). The other questions that need no secret tell less: an anonymous token has no actions
/// whether the project is private or the database gone, `/health` knows of a refusing database after 10 s and of a
/// hanging one never (F3), and pings, challenges and K11 need none.
///
/// Nobody may answer it but core: the path is one that core's routes take for a repository's (distribution's names allow
/// two dashes side by side), and Harbor makes no project of that name (`[a-z0-9]+(?:[._-][a-z0-9]+)*`).
pub const QUESTION: &str = "/v2/tidegate--asks/whether-the-database-answers/manifests/none";

/// What Harbor's own words with an empty challenge begin with (C3, C8). What a client writes stands behind them.
const JUDGEMENTS: [&str; 2] = ["project ", "un-recognized request"];

/// What a driver begins with that got no connection. What a client writes stands behind it.
const NO_CONNECTION: &str = "failed to connect";

/// How a driver tells of an error of the database's own, with its code behind it, at the message's end.
const CODE: &str = "sqlstate ";

/// Classes of codes (PostgreSQL, appendix A) that tell of the database itself: no connection, no room, an operator who
/// stops it. Others tell of the statement, in which a client's words may be.
const OF_AN_OUTAGE: [&str; 3] = ["08", "53", "57p"];

/// What errors on the way to a database have in common.
const SIGNS: [&str; 14] = [
    "dial error",
    "dial tcp",
    "connection refused",
    "connection reset",
    "broken pipe",
    "i/o timeout",
    "no such host",
    "no route to host",
    "context deadline exceeded",
    "bad connection",
    "conn closed",
    "closed network connection",
    "unexpected eof",
    "fatal:",
];

/// Whether a 401 has the empty challenge that judgements about projects and outages share.
pub fn has_empty_challenge(status: StatusCode, headers: &HeaderMap) -> bool {
    let challenge = headers.get(WWW_AUTHENTICATE);
    status == StatusCode::UNAUTHORIZED
        && challenge.is_some_and(|value| Challenge::of(value) == Challenge::Empty)
}

#[derive(serde::Deserialize)]
struct Body {
    errors: Vec<Error>,
}

#[derive(serde::Deserialize)]
struct Error {
    #[serde(default)]
    message: String,
}

/// Whether the body of such a 401 tells of an outage; `None` where it says nothing that is known.
pub fn told_by(body: &[u8]) -> Option<bool> {
    let message = match serde_json::from_slice::<Body>(body) {
        Ok(body) => body.errors.into_iter().next().map(|error| error.message).unwrap_or_default(),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    if JUDGEMENTS.iter().any(|judgement| message.starts_with(judgement)) {
        return Some(false);
    }
    let message = message.to_ascii_lowercase();
    if message.starts_with(NO_CONNECTION) {
        return Some(true);
    }
    // Harbor may say its message twice.
    let outage = match message.rsplit_once(CODE) {
        Some((_, code)) => OF_AN_OUTAGE.iter().any(|class| code.starts_with(class)),
        None => SIGNS.iter().any(|sign| message.contains(sign)),
    };
    outage.then_some(true)
}

/// Whether an answer to [`QUESTION`] shows a database that answers: one that judges does, whatever it says; only where
/// [`has_empty_challenge`] its body matters. No answer in time shows none.
pub fn shows_a_database(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> bool {
    let outage = has_empty_challenge(status, headers) && told_by(body) == Some(true);
    !status.is_server_error() && !outage
}

/// What our own question has found at an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Its database answers.
    Well,
    /// It says itself that its database does not (D1), or fails.
    Refusing,
    /// It says nothing.
    Silent(Silence),
    /// It can't be reached, or breaks off: that shows without any question.
    Gone,
}

/// How much of a core hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// What needs the database (D2).
    Database,
    /// Everything (D4).
    Core,
}

impl Found {
    /// What it means that the question got no answer, where `key`: one that needs no database did (K11).
    pub fn no_answer(key: bool) -> Self {
        Self::Silent(if key { Silence::Database } else { Silence::Core })
    }

    /// What an endpoint is passed by for; `None` where nothing speaks against it.
    pub fn trouble(self) -> Option<Trouble> {
        match self {
            Self::Silent(silence) => Some(Trouble::Hangs(silence)),
            Self::Refusing => Some(Trouble::Refuses),
            Self::Well | Self::Gone => None,
        }
    }
}

/// What the matter is with an endpoint that can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It fails what needs its database, at once.
    Refuses,
    /// It hangs.
    Hangs(Silence),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refuses => "it fails what needs its database, and says so itself",
            Self::Hangs(Silence::Database) => "it gives no answer to what needs its database",
            Self::Hangs(Silence::Core) => "it takes requests and answers none",
        })
    }
}

/// What core can't answer a request without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nobody asks: it goes up whatever hangs.
    Nothing,
    /// Core alone.
    Core,
    /// Core and its database.
    Database,
}

impl Need {
    /// Of a request to the registry: core challenges a read without `Authorization` before it looks anything up (C1, C2),
    /// and looks for no project on `/v2/` itself.
    pub fn of_registry(kind: Kind, method: &Method, authorized: bool, basic: bool) -> Self {
        let reads = matches!(*method, Method::GET | Method::HEAD);
        let looks_up = if kind == Kind::Base { basic } else { authorized || !reads };
        if looks_up { Self::Database } else { Self::Core }
    }

    /// Of a token request: users and projects are looked up.
    pub fn of_token(authorized: bool, names_repositories: bool) -> Self {
        if authorized || names_repositories { Self::Database } else { Self::Core }
    }

    /// Whether a request would fail with such an endpoint.
    pub fn fails_with(self, trouble: Trouble) -> bool {
        match self {
            Self::Nothing => false,
            Self::Core => trouble == Trouble::Hangs(Silence::Core),
            Self::Database => true,
        }
    }
}

/// What a request sees of an endpoint when it chooses one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Whether it takes requests.
    pub standing: Standing,
    /// What it would fail with there.
    pub trouble: Option<Trouble>,
    /// Whether the request has failed there already.
    pub avoided: bool,
}

/// Whether a request waits for an endpoint's database in the place of going up: one hangs, and no other takes it. Where
/// one only refuses, that costs it nothing, and its answer may be another one now.
pub fn waits(endpoints: &[Choice]) -> bool {
    let takes = |it: &Choice| it.standing == Standing::Healthy && it.trouble.is_none() && !it.avoided;
    let hangs = |it: &Choice| matches!(it.trouble, Some(Trouble::Hangs(_)));
    endpoints.iter().any(hangs) && !endpoints.iter().any(takes)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::words::route::Route;

    fn body(message: &str) -> Vec<u8> {
        serde_json::json!({"errors": [{"code": "UNAUTHORIZED", "message": message}]}).to_string().into_bytes()
    }

    #[test]
    fn outages_are_told_from_judgements_whatever_a_client_writes_into_them() {
        let table = [
            (
                "failed to connect to `host=10.0.0.5 user=postgres database=registry`: dial error (dial tcp 10.0.0.5:5432: connect: connection refused)",
                Some(true),
            ),
            (
                "failed to connect to `user=postgres database=registry`: 10.0.0.5:5432 (db): dial error: dial tcp 10.0.0.5:5432: i/o timeout",
                Some(true),
            ),
            ("FATAL: terminating connection due to administrator command (SQLSTATE 57P01)", Some(true)),
            ("FATAL: the database system is starting up (SQLSTATE 57P03)", Some(true)),
            ("driver: bad connection", Some(true)),
            (
                "failed to connect to `host=db`: server error (FATAL: password authentication failed (SQLSTATE 28P01))",
                Some(true),
            ),
            ("FATAL: sorry, too many clients already (SQLSTATE 53300): FATAL: (SQLSTATE 53300)", Some(true)),
            ("ERROR: invalid byte sequence for encoding \"UTF8\": 0x00 (SQLSTATE 22021)", None),
            (
                "ERROR: invalid input syntax for type bigint: \"dial tcp SQLSTATE 57P01\" (SQLSTATE 22P02)",
                None,
            ),
            ("ERROR: canceling statement due to user request (SQLSTATE 57014)", None),
            ("project nobody not found: project nobody not found", Some(false)),
            ("project fatal: not found", Some(false)),
            ("un-recognized request: GET /v2/dial tcp", Some(false)),
            ("something else", None),
            ("", None),
        ];
        for (message, want) in table {
            assert_eq!(told_by(&body(message)), want, "{message}");
        }
        assert_eq!(told_by(b"dial tcp 10.0.0.5:5432: connection refused"), Some(true), "in whatever shape");
        assert_eq!(told_by(b""), None, "as after a HEAD");
    }

    #[test]
    fn only_an_empty_challenge_is_shared_with_outages() {
        let of = |status: u16, challenge: Option<&'static str>| {
            let challenge = challenge.map(|text| (WWW_AUTHENTICATE, HeaderValue::from_static(text)));
            let status = StatusCode::from_u16(status).expect("a status");
            has_empty_challenge(status, &challenge.into_iter().collect())
        };
        assert!(of(401, Some("")));
        assert!(!of(401, Some("Basic realm=\"harbor\"")) && !of(401, None) && !of(403, Some("")));
    }

    #[test]
    fn nobody_can_make_a_project_that_answers_the_question() {
        let Route::Registry(asks) = Route::of(QUESTION) else { panic!("no route of the registry's") };
        assert_eq!(asks.kind, Kind::Manifest);
        let plain = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        let is_project = |name: &str| name.split(['.', '_', '-']).all(plain);
        assert!(is_project("priv") && is_project("a-b.c_d") && !is_project(asks.project()));
        let between_dashes = |part: &str| part.split('-').filter(|part| !part.is_empty()).all(plain);
        let is_name = |part: &str| !part.starts_with('-') && !part.ends_with('-') && between_dashes(part);
        assert!(asks.repository.split('/').all(is_name), "{} is no name for distribution", asks.repository);
    }

    #[test]
    fn the_question_shows_a_database_wherever_it_is_judged() {
        let empty = HeaderMap::from_iter([(WWW_AUTHENTICATE, HeaderValue::from_static(""))]);
        let basic = HeaderMap::from_iter([(WWW_AUTHENTICATE, HeaderValue::from_static("Basic"))]);
        let table = [
            (401, &empty, body("project tidegate--asks not found"), true),
            (401, &basic, body("unauthorized"), true),
            (404, &basic, body("repository not found"), true),
            (401, &empty, body("failed to connect to `x`"), false),
            (401, &empty, Vec::new(), true),
            (200, &basic, body("failed to connect to `x`"), true),
            (500, &basic, body("internal server error"), false),
            (503, &basic, Vec::new(), false),
        ];
        for (status, headers, body, want) in table {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(shows_a_database(status, headers, &body), want, "{status}");
        }
    }

    #[test]
    fn what_looks_nothing_up_goes_up_while_only_the_database_hangs() {
        let of =
            |kind, method: Method, authorized, basic| Need::of_registry(kind, &method, authorized, basic);
        let table = [
            ("challenge", of(Kind::Base, Method::GET, false, false), Need::Core),
            ("bearer on /v2/", of(Kind::Base, Method::GET, true, false), Need::Core),
            ("password on /v2/", of(Kind::Base, Method::GET, true, true), Need::Database),
            ("challenge of a read", of(Kind::Manifest, Method::HEAD, false, false), Need::Core),
            ("read", of(Kind::Blob, Method::GET, true, false), Need::Database),
            ("write without a credential", of(Kind::UploadOpen, Method::POST, false, false), Need::Database),
            ("nobody's token", Need::of_token(false, true), Need::Database),
            ("login", Need::of_token(true, false), Need::Database),
            ("K11", Need::of_token(false, false), Need::Core),
        ];
        for (name, found, want) in table {
            assert_eq!(found, want, "{name}");
        }
        let all =
            [Found::Well, Found::Gone, Found::Refusing, Found::no_answer(true), Found::no_answer(false)];
        let fails = |need: Need| all.map(|found| found.trouble().is_some_and(|it| need.fails_with(it)));
        assert_eq!(fails(Need::Nothing), [false; 5]);
        assert_eq!(fails(Need::Core), [false, false, false, false, true]);
        assert_eq!(fails(Need::Database), [false, false, true, true, true]);
    }

    #[test]
    fn a_request_waits_where_one_endpoint_hangs_and_no_other_takes_it() {
        let well = Choice { standing: Standing::Healthy, trouble: None, avoided: false };
        let silence = Some(Trouble::Hangs(Silence::Database));
        let (hangs, avoided) = (Choice { trouble: silence, ..well }, Choice { avoided: true, ..well });
        let gone = Choice { standing: Standing::Ejected, ..well };
        let refuses = Choice { trouble: Some(Trouble::Refuses), ..well };
        let table: [(&str, &[Choice], bool); 10] = [
            ("all is well", &[well, well], false),
            ("none hangs", &[gone], false),
            ("the only one hangs", &[hangs], true),
            ("another is well", &[hangs, well], false),
            ("the other is gone", &[gone, hangs], true),
            ("it failed at the other", &[hangs, avoided], true),
            ("all hang", &[hangs, hangs], true),
            ("it hangs and is gone", &[Choice { trouble: silence, ..gone }], true),
            ("the only one refuses", &[refuses], false),
            ("one hangs, one refuses", &[hangs, refuses], true),
        ];
        for (name, endpoints, want) in table {
            assert_eq!(waits(endpoints), want, "{name}");
        }
    }
}
