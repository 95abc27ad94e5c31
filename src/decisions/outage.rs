//! Outages of core's database that look like Harbor's judgement (D1), told from judgements.

use http::{HeaderMap, StatusCode, header::WWW_AUTHENTICATE};

use crate::words::challenge::Challenge;

/// The question whose answer needs core's database: a read of a repository in a project that nobody has.
///
/// It goes up with a bearer that means nothing, so core looks for the project before anything else: where its database
/// answers it says that there is none (C8), where the database refuses it says so in the same 401 (D1), and where it
/// hangs it says nothing (D2). The other questions that need no secret tell less: an anonymous token has no actions
/// whether the project is private or the database gone, `/health` knows of a refusing database after 10 s and of a
/// hanging one never (F3), and pings, challenges and K11 need none.
pub const QUESTION: &str = "/v2/tidegate-asks/whether-the-database-answers/manifests/none";

/// What Harbor's own words with an empty challenge begin with (C3, C8). What a client writes stands behind them.
const JUDGEMENTS: [&str; 2] = ["project ", "un-recognized request"];

/// What errors of a database, or on the way to it, have in common.
const SIGNS: [&str; 16] = [
    "failed to connect",
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
    "sqlstate",
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
    SIGNS.iter().any(|sign| message.contains(sign)).then_some(true)
}

/// Whether an answer to [`QUESTION`] shows a database that answers. No answer in time shows none.
pub fn shows_a_database(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> bool {
    let outage = has_empty_challenge(status, headers) && told_by(body) == Some(true);
    !status.is_server_error() && !outage
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

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
    fn the_question_shows_a_database_wherever_it_is_judged() {
        let empty = HeaderMap::from_iter([(WWW_AUTHENTICATE, HeaderValue::from_static(""))]);
        let basic = HeaderMap::from_iter([(WWW_AUTHENTICATE, HeaderValue::from_static("Basic"))]);
        let table = [
            (401, &empty, body("project tidegate-asks not found"), true),
            (401, &basic, body("unauthorized"), true),
            (404, &basic, body("repository not found"), true),
            (401, &empty, body("failed to connect to `x`"), false),
            (500, &basic, body("internal server error"), false),
            (503, &basic, Vec::new(), false),
        ];
        for (status, headers, body, want) in table {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(shows_a_database(status, headers, &body), want, "{status}");
        }
    }
}
