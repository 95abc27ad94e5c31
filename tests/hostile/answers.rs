//! An upstream that answers early, late, short, long, or not at all.

use crate::{
    bench::Bench,
    raw::{PATIENCE, Raw, find},
    recorder::Script,
    support::waiting,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

const HIDDEN: &str = "GET /v2/hidden HTTP/1.1\r\nHost: h\r\n\r\n";
const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned";
const BASIC: &str = "WWW-Authenticate: Basic realm=\"harbor\"\r\n";

fn script(
    act: impl Fn(&mut crate::recorder::Turn<'_>) -> std::io::Result<bool> + Send + Sync + 'static,
) -> Script {
    Arc::new(act)
}

fn head(method: &str, path: &str, lines: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: h\r\n{lines}\r\n")
}

#[test]
fn a23_an_early_401_and_then_a_body_that_reads_as_a_request_is_no_second_request() {
    // The recorder does what a careless server would: it answers at the head and reads on as if a request came.
    let bench = Bench::with(
        "",
        script(|turn| {
            turn.answer("401 Unauthorized", BASIC, "{}")?;
            Ok(true)
        }),
    );
    let body = HIDDEN.repeat(20_000);
    for lines in [format!("Content-Length: {}\r\n", body.len()), "Transfer-Encoding: chunked\r\n".to_owned()]
    {
        let mut client = bench.open();
        client.send(head("POST", "/v2/p/r/blobs/uploads/", &lines));
        let answer = client.last_answer().expect("the early answer");
        assert_eq!(answer.status, 401);
        client.send(&body).half_close();
        assert!(find(&client.rest(), b"HTTP/1.1 2").is_none());
    }
    // The bytes that went up as a body are the careless server's; what counts is that we send nothing more there.
    waiting::holds("the connections are closed, not pooled", PATIENCE, || {
        bench.recorder.connections().iter().all(|seen| seen.closed)
    });
    let before = bench.recorder.connections().len();
    assert_eq!(bench.get("/v2/next", "").status, 401);
    let seen = bench.recorder.connections();
    assert_eq!(seen.len(), before + 1, "the next request has a connection of its own");
}

#[test]
fn a23_an_early_401_of_an_upstream_that_reads_no_more_ends_that_connection() {
    let bench = Bench::with(
        "",
        script(|turn| {
            if turn.head.starts_with("GET") {
                turn.answer("200 OK", "", "")?;
                return Ok(true);
            }
            turn.answer("401 Unauthorized", BASIC, "{}")?;
            assert!(turn.hold(Duration::from_secs(15)), "tidegate closes what it can't use again");
            Ok(false)
        }),
    );
    let mut client = bench.open();
    client.send(head("PATCH", "/v2/p/r/blobs/uploads/u", "Content-Length: 1000000\r\n"));
    assert_eq!(client.last_answer().map(|answer| answer.status), Some(401));
    waiting::holds(
        "the upstream connection is closed though the client stays",
        Duration::from_secs(10),
        || bench.recorder.connections()[0].closed,
    );
    bench.serves_others();
}

#[test]
fn a22_a_whole_post_without_an_answer_is_not_sent_twice() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let bench = Bench::with(
        "",
        script(move |turn| {
            turn.read_body()?;
            if turn.head.contains("/once") {
                counted.fetch_add(1, Ordering::SeqCst);
                return Ok(false);
            }
            turn.answer("200 OK", "", "ok")?;
            Ok(true)
        }),
    );
    for (method, path) in [
        ("POST", "/api/v2.0/once"),
        ("PUT", "/api/v2.0/once"),
        ("DELETE", "/v2/p/r/manifests/once"),
        ("PATCH", "/v2/p/r/blobs/uploads/once"),
        ("PUT", "/v2/p/r/blobs/uploads/once?digest=sha256:ab"),
    ] {
        // A pooled connection, which could be a stale one.
        assert_eq!(bench.get("/v2/warm", "").status, 200);
        let before = calls.load(Ordering::SeqCst);
        let answer =
            bench.ask(head(method, path, "Content-Length: 5\r\n") + "abcde").expect("an honest answer");
        assert_eq!(answer.status, 502, "{method}");
        assert_eq!(calls.load(Ordering::SeqCst) - before, 1, "{method} {path}");
    }
}

#[test]
fn a22_a_manifest_that_was_not_kept_is_never_sent_again_cut() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let bench = Bench::with(
        "",
        script(move |turn| {
            let body = turn.read_body()?;
            if turn.head.starts_with("PUT") {
                counted.fetch_add(1, Ordering::SeqCst);
                assert_eq!(body, b"{\"a\":1}");
                return Ok(false);
            }
            turn.answer("200 OK", "", "ok")?;
            Ok(true)
        }),
    );
    assert_eq!(bench.get("/v2/warm", "").status, 200);
    let put =
        head("PUT", "/v2/p/r/manifests/v1", "Authorization: Basic YTpi\r\nTransfer-Encoding: chunked\r\n");
    let answer = bench.ask(put + "7\r\n{\"a\":1}\r\n0\r\n\r\n").expect("an honest answer");
    assert_eq!(answer.status, 502);
    let bodies: Vec<_> = bench.recorder.connections().into_iter().flat_map(|seen| seen.bodies).collect();
    assert!(bodies.iter().all(|body| body.is_empty() || body == b"{\"a\":1}"), "{bodies:?}");
    assert!(calls.load(Ordering::SeqCst) >= 1);
    let heads = bench.recorder.lines().iter().filter(|line| line.starts_with("PUT")).count();
    assert_eq!(heads, calls.load(Ordering::SeqCst), "every PUT that went up was whole");
}

#[test]
fn a_safe_request_on_a_stale_connection_is_sent_once_more() {
    let bench = Bench::with(
        "",
        script(|turn| {
            // Every connection dies at its second request.
            let first = turn.head.contains("/warm") || turn.before != 1;
            if first {
                turn.answer("200 OK", "", "ok")?;
            }
            Ok(first)
        }),
    );
    assert_eq!(bench.get("/v2/warm", "").status, 200);
    assert_eq!(bench.get("/v2/x", "").status, 200);
    assert_eq!(bench.recorder.lines().len(), 3);
}

#[test]
fn a_redirect_passes_unfollowed_and_locations_byte_for_byte() {
    let location = "https://objects.example/b%2Fc?X-Amz-Signature=a%2Fb%3D&x=//..//";
    let state = "http://h/v2/p/r/blobs/uploads/u?_state=AbC_-%3D%3D&a=%2f";
    let bench = Bench::with(
        "",
        script(move |turn| {
            if turn.head.contains("blobs/sha256") {
                turn.answer("307 Temporary Redirect", &format!("Location: {location}\r\n"), "")?;
            } else {
                turn.answer("202 Accepted", &format!("Location: {state}\r\nRange: 0-0\r\n"), "")?;
            }
            Ok(true)
        }),
    );
    let answer = bench.get("/v2/p/r/blobs/sha256:ab", "");
    assert_eq!((answer.status, answer.header("location").as_deref()), (307, Some(location)));
    let answer =
        bench.ask(head("POST", "/v2/p/r/blobs/uploads/", "Content-Length: 0\r\n")).expect("an answer");
    assert_eq!((answer.status, answer.header("location").as_deref()), (202, Some(state)));
    assert_eq!(bench.recorder.lines().len(), 2);
}

#[test]
fn a_416_whose_length_lies_is_made_sound() {
    let bench = Bench::with(
        "",
        script(|turn| {
            turn.write("HTTP/1.1 416 Requested Range Not Satisfiable\r\nContent-Length: 5000\r\nContent-Range: bytes */5000\r\n\r\n{\"errors\":[{\"code\":\"UNKNOWN\"}]}")?;
            Ok(false)
        }),
    );
    let mut client = bench.open();
    for _ in 0..2 {
        let began = Instant::now();
        client.send(head("GET", "/v2/p/r/blobs/sha256:ab", "Range: bytes=5000-\r\n"));
        let answer = client.last_answer().expect("an answer, twice on one connection");
        assert_eq!((answer.status, answer.body.len()), (416, 0));
        assert_eq!(answer.header("content-length").as_deref(), Some("0"));
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn an_answer_that_breaks_off_is_cut_and_never_looks_whole() {
    let bench = Bench::with(
        "",
        script(|turn| {
            if turn.head.contains("chunked") {
                turn.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n")?;
            } else {
                turn.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabcde")?;
            }
            Ok(false)
        }),
    );
    for path in ["/v2/p/r/blobs/chunked", "/v2/p/r/blobs/length"] {
        let mut client = bench.open();
        client.send(head("GET", path, ""));
        let bytes = client.rest();
        assert!(
            find(&bytes, b"abcde").is_some() && find(&bytes, b"\r\n0\r\n").is_none(),
            "{}",
            String::from_utf8_lossy(&bytes)
        );
    }
    waiting::holds("both are logged as Harbor's failures", PATIENCE, || {
        bench.gate.log().iter().filter(|line| line["outcome"] == "upstream_failed").count() == 2
    });
}

#[test]
fn a_chunked_answer_that_ends_is_whole_and_its_connection_is_used_again() {
    let bench = Bench::with(
        "",
        script(|turn| {
            turn.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n")?;
            Ok(true)
        }),
    );
    let mut client = bench.open();
    for _ in 0..4 {
        client.send(head("GET", "/v2/x", ""));
        assert_eq!(client.last_answer().expect("an answer").text(), "abcde");
    }
    assert_eq!(bench.recorder.connections().len(), 1);
    waiting::holds("all are logged as forwarded", PATIENCE, || {
        bench.gate.log().iter().filter(|line| line["outcome"] == "forwarded").count() == 4
    });
}

#[test]
fn bytes_after_an_answers_end_are_nobodys_answer() {
    let bench = Bench::with(
        "",
        script(|turn| {
            if turn.head.contains("/first") {
                // In one write: once the answer can be read, so can what follows it.
                turn.write("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none".to_owned() + POISON)?;
            } else {
                turn.answer("200 OK", "", "two")?;
            }
            Ok(true)
        }),
    );
    for _ in 0..20 {
        assert_eq!(bench.get("/v2/first", "").text(), "one");
        assert_eq!(bench.get("/v2/second", "").text(), "two");
    }
}

#[test]
fn bytes_on_an_idle_connection_are_nobodys_answer() {
    let (tell, told) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let bench = Bench::with(
        "",
        script(move |turn| {
            if !turn.head.contains("/first") {
                turn.answer("200 OK", "", "two")?;
                return Ok(true);
            }
            turn.answer("200 OK", "", "one")?;
            told.lock().unwrap().recv().expect("the client has its answer");
            turn.write(POISON)?;
            turn.read_to_end();
            Ok(false)
        }),
    );
    assert_eq!(bench.get("/v2/first", "").text(), "one");
    tell.send(()).expect("the connection is open");
    waiting::holds("the poisoned connection is closed", PATIENCE, || bench.recorder.connections()[0].closed);
    for _ in 0..4 {
        assert_eq!(bench.get("/v2/second", "").text(), "two");
    }
    assert_eq!(bench.recorder.connections()[0].heads.len(), 1, "nothing more was sent over it");
}

#[test]
fn answers_that_are_none_are_502() {
    let answers = [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "junk\r\n\r\n",
        "HTTP/1.1 99999 X\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ];
    for answer in answers {
        let bench = Bench::with(
            "",
            script(move |turn| {
                turn.read_body()?;
                turn.write(answer)?;
                Ok(false)
            }),
        );
        let got = bench.ask(head("POST", "/api/v2.0/x", "Content-Length: 0\r\n")).map(|answer| answer.status);
        assert_eq!(got, Some(502), "{answer:?}");
    }
}

#[test]
fn an_answer_that_stands_still_is_cut_in_time() {
    let bench = Bench::with(
        "[timeouts]\nstall = \"1s\"\n",
        script(|turn| {
            let standing = turn.head.contains("/stands");
            turn.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabcde")?;
            if standing {
                assert!(turn.hold(Duration::from_secs(30)), "tidegate gives it up");
                return Ok(false);
            }
            turn.write("fghij")?;
            Ok(true)
        }),
    );
    let began = Instant::now();
    let mut client = bench.open();
    client.send(head("GET", "/v2/stands", ""));
    let bytes = client.rest();
    assert!(bytes.ends_with(b"abcde") && began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    bench.serves_others();
}

#[test]
fn a_refusal_whose_body_stands_still_is_answered_in_time() {
    let bench = Bench::with(
        "[timeouts]\nstall = \"1s\"\n",
        script(|turn| {
            if turn.head.contains("/stands") {
                turn.write(format!("HTTP/1.1 401 Unauthorized\r\n{BASIC}Content-Length: 100\r\n\r\n{{"))?;
                turn.hold(Duration::from_secs(30));
                return Ok(false);
            }
            turn.answer("200 OK", "", "ok")?;
            Ok(true)
        }),
    );
    let bearer = bench.bearer();
    let began = Instant::now();
    let answer = Raw::open(bench.gate.address)
        .send(head("GET", "/v2/priv/app/stands", &format!("Authorization: {bearer}\r\n")))
        .last_answer();
    assert!(matches!(answer.map(|a| a.status), Some(401 | 502)));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    bench.serves_others();
}

#[test]
fn a_foreign_realm_is_never_followed_and_rewritten_where_configured() {
    let challenge = "WWW-Authenticate: Bearer realm=\"http://169.254.169.254/\",service=\"harbor-registry\",scope=\"repository:p/r:pull\"\r\n";
    for (configuration, want) in [
        ("", "http://169.254.169.254/"),
        (
            "realm = \"rewrite\"\npublic_url = \"https://harbor.example\"\n",
            "https://harbor.example/service/token",
        ),
    ] {
        let bench = Bench::with(
            configuration,
            script(move |turn| {
                turn.answer("401 Unauthorized", challenge, "{}")?;
                Ok(true)
            }),
        );
        let answer = bench.get("/v2/p/r/manifests/v1", "");
        assert_eq!(answer.status, 401);
        let shown = answer.header("www-authenticate").expect("a challenge");
        assert!(shown.contains(&format!("realm=\"{want}\"")), "{shown}");
        assert!(shown.ends_with(",service=\"harbor-registry\",scope=\"repository:p/r:pull\""), "{shown}");
        assert_eq!(bench.recorder.lines().len(), 1);
    }
}
