//! Refusals that come while the body is still on its way, from an upstream that closes behind them.

use crate::{bench::Bench, recorder::Script, support::waiting};
use std::{io::Write as _, sync::Arc, time::Duration};

const SOON: Duration = Duration::from_secs(10);
const REFUSAL: &str =
    "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"harbor\"\r\nContent-Length: 2\r\n\r\n{}";

/// Reads a little of a body, refuses it and closes with the rest unread, so that our next write fails.
fn refusing() -> Script {
    Arc::new(|turn| {
        if turn.head.starts_with("GET") {
            turn.answer("200 OK", "", "ok")?;
            return Ok(true);
        }
        turn.read_some(64 * 1024)?;
        turn.write(REFUSAL)?;
        Ok(false)
    })
}

#[test]
fn a23_a_refusal_is_read_though_the_upstream_closed_behind_it_while_we_wrote() {
    let bench = Bench::with("", refusing());
    let bearer = bench.bearer();
    let rounds = 10;
    for authorization in ["Basic YTpi", bearer.as_str()] {
        for round in 0..rounds {
            let mut client = bench.open();
            client.send(format!(
                "PATCH /v2/priv/app/blobs/uploads/{round} HTTP/1.1\r\nHost: h\r\nAuthorization: {authorization}\r\nContent-Length: {}\r\n\r\n",
                64 << 20
            ));
            let mut writing = client.stream.try_clone().expect("a second handle");
            let writer = std::thread::spawn(move || {
                let chunk = vec![b'b'; 1 << 20];
                // It fails as soon as tidegate has answered and closes.
                (0..64).all(|_| writing.write_all(&chunk).is_ok())
            });
            let answer = client.last_answer().expect("Harbor's refusal");
            assert_eq!(answer.status, 401, "{authorization:.6} {round}: {}", bench.gate.tail());
            assert_eq!(answer.all("www-authenticate"), ["Basic realm=\"harbor\""]);
            drop(client);
            writer.join().expect("a writer");
        }
    }
    let patches = bench.recorder.lines().iter().filter(|line| line.starts_with("PATCH")).count();
    assert_eq!(patches, 2 * rounds, "each went up once: its key is still core's");
    waiting::holds("no connection of them is kept", SOON, || {
        let seen = bench.recorder.connections().into_iter();
        seen.filter(|seen| seen.heads.iter().any(|head| head.starts_with("PATCH"))).all(|seen| seen.closed)
    });
    bench.serves_others();
}
