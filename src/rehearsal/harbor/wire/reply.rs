//! An answer, written as Go's `net/http` writes it: the handler's headers sorted by name, then `Date`, `Content-Length`,
//! `Content-Type` and `Connection` where the handler set none.

use std::{fmt::Write as _, io};

use bytes::Bytes;
use serde_json::json;

use super::{request_body::RequestBody, transfer::Transfer};
use crate::rehearsal::harbor::{
    registry_client::Answer,
    times::http_date,
    world::deeds::{Begun, Place},
};

/// An answer before it is written.
#[derive(Debug)]
pub(in super::super) struct Reply {
    pub(in super::super) status: u16,
    pub(in super::super) headers: Vec<(String, String)>,
    pub(in super::super) body: ReplyBody,
    /// U6: a `100 Continue` with these headers goes first, and 200 takes the status's place.
    pub(in super::super) spoilt_by_expect: bool,
    /// What it tells of, where that changed something and somebody watches.
    pub(in super::super) deed: Option<Place>,
}

/// Where an answer's bytes come from.
#[derive(Debug)]
pub(in super::super) enum ReplyBody {
    /// All of them are here, in pieces.
    Here(Vec<Bytes>),
    /// They stream from the registry behind.
    Registry(Box<Answer>),
}

/// Whether the connection is still good after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Written {
    /// All of it went out as framed.
    Whole,
    /// Less went out than was announced (U11, or the registry died): the connection must close.
    Short,
}

impl Reply {
    pub(in super::super) fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: ReplyBody::Here(Vec::new()),
            spoilt_by_expect: false,
            deed: None,
        }
    }

    pub(in super::super) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(in super::super) fn body(mut self, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        self.body = ReplyBody::Here(if body.is_empty() { Vec::new() } else { vec![body] });
        self
    }

    /// Notes that this was done, if it is what `begun` began.
    pub(in super::super) fn of(mut self, begun: Option<Begun>) -> Self {
        self.deed = begun.and_then(|begun| begun.answered(self.status, &self.headers));
        self
    }

    /// Harbor's error body; API and registry share it.
    pub(in super::super) fn error(status: u16, code: &str, message: &str) -> Self {
        let body = json!({"errors": [{"code": code, "message": message}]}).to_string() + "\n";
        Self::new(status).with("Content-Type", "application/json; charset=utf-8").body(body)
    }

    pub(in super::super) fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name))
    }

    /// Writes head and body. `date` is the core's clock.
    pub(in super::super) async fn write(
        mut self,
        to: &mut RequestBody<'_>,
        method: &str,
        date: std::time::Duration,
        close: bool,
    ) -> io::Result<Written> {
        self.headers.sort_by(|(a, _), (b, _)| a.cmp(b));
        let framing = self.framing(method);
        let head = self.head(&framing, date, close);
        let bodiless = method == "HEAD" || matches!(self.status, 204 | 304);
        let here = match self.body {
            ReplyBody::Here(pieces) => pieces,
            ReplyBody::Registry(answer) => return stream(to, &head, *answer, &framing, bodiless).await,
        };
        if bodiless || here.is_empty() {
            to.write(&head).await?;
        } else if here.len() == 1 && here[0].len() < 64 * 1024 {
            let mut together = head;
            together.extend_from_slice(&here[0]);
            to.write(&together).await?;
        } else {
            to.write(&head).await?;
            for piece in &here {
                to.write(piece).await?;
            }
        }
        let sent: u64 = here.iter().map(|piece| piece.len() as u64).sum();
        let kept = bodiless || matches!(framing, Framing::Length(announced) if announced == sent);
        Ok(if kept { Written::Whole } else { Written::Short })
    }

    fn framing(&self, method: &str) -> Framing {
        let set = self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case("content-length"));
        match (set.and_then(|(_, value)| value.parse().ok()), &self.body) {
            (Some(length), _) => Framing::Length(length),
            (None, _) if matches!(self.status, 204 | 304) => Framing::None,
            (None, ReplyBody::Here(pieces)) => {
                Framing::Length(pieces.iter().map(|piece| piece.len() as u64).sum())
            }
            (None, ReplyBody::Registry(answer)) if method == "HEAD" || answer.left() == Transfer::Ended => {
                Framing::None
            }
            (None, ReplyBody::Registry(_)) => Framing::Chunked,
        }
    }

    fn head(&self, framing: &Framing, date: std::time::Duration, close: bool) -> Vec<u8> {
        let mut lines = String::with_capacity(512);
        for (name, value) in &self.headers {
            _ = write!(lines, "{name}: {value}\r\n");
        }
        if !self.has("date") {
            _ = write!(lines, "Date: {}\r\n", http_date(date));
        }
        match framing {
            Framing::Length(length) if !self.has("content-length") => {
                _ = write!(lines, "Content-Length: {length}\r\n");
                if *length > 0 && !self.has("content-type") {
                    lines.push_str("Content-Type: text/plain; charset=utf-8\r\n");
                }
            }
            Framing::Chunked => lines.push_str("Transfer-Encoding: chunked\r\n"),
            _ => {}
        }
        let status = if self.spoilt_by_expect { 200 } else { self.status };
        let mut head = if self.spoilt_by_expect {
            let unframed: String = lines
                .split_inclusive("\r\n")
                .filter(|line| !line.to_ascii_lowercase().starts_with("content-length"))
                .collect();
            format!("HTTP/1.1 100 Continue\r\n{unframed}\r\n")
        } else {
            String::new()
        };
        let connection = if close { "Connection: close\r\n" } else { "" };
        _ = write!(head, "HTTP/1.1 {status} {}\r\n{lines}{connection}\r\n", reason(status));
        head.into_bytes()
    }
}

#[derive(Clone, Copy, Debug)]
enum Framing {
    None,
    Length(u64),
    Chunked,
}

async fn stream(
    to: &mut RequestBody<'_>,
    head: &[u8],
    mut answer: Answer,
    framing: &Framing,
    bodiless: bool,
) -> io::Result<Written> {
    to.write(head).await?;
    if bodiless {
        answer.done();
        return Ok(Written::Whole);
    }
    let Some(sent) = relay(to, &mut answer, matches!(framing, Framing::Chunked)).await? else {
        return Ok(Written::Short);
    };
    answer.done();
    let short = matches!(framing, Framing::Length(announced) if *announced != sent);
    Ok(if short { Written::Short } else { Written::Whole })
}

/// Passes the registry's body on; how much it was, `None` where the registry ended early.
async fn relay(to: &mut RequestBody<'_>, answer: &mut Answer, chunked: bool) -> io::Result<Option<u64>> {
    let mut sent = 0;
    loop {
        let Ok(chunk) = answer.chunk().await else { return Ok(None) };
        let Some(chunk) = chunk else { break };
        sent += chunk.len() as u64;
        if chunked {
            to.write(format!("{:x}\r\n", chunk.len()).as_bytes()).await?;
            to.write(&chunk).await?;
            to.write(b"\r\n").await?;
        } else {
            to.write(&chunk).await?;
        }
    }
    if chunked {
        to.write(b"0\r\n\r\n").await?;
    }
    Ok(Some(sent))
}

/// Go's reason phrases.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        412 => "Precondition Failed",
        413 => "Request Entity Too Large",
        416 => "Requested Range Not Satisfiable",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Status",
    }
}
