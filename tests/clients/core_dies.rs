//! U8, U9 with the real docker-registry: core ends in the middle of its work, and the registry behind it has stored a
//! part of an upload that no client knows of.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::support::{
    harbor::{self, Harbor, Replica},
    http::{Answer, Connection},
    waiting,
};

const REPOSITORY: &str = "priv/cut";
/// Bytes of a PATCH that is cut: announced, and sent.
const ANNOUNCED: usize = 4 << 20;
const SENT: usize = 3 << 20;
/// More than the sockets between registry, core and us can hold.
const LONG: usize = 32 << 20;
const SOON: Duration = Duration::from_secs(20);

fn authorization(front: SocketAddr) -> String {
    let account = harbor::account(front);
    format!("Basic {}", STANDARD.encode(format!("{}:{}", account.user, account.password)))
}

/// One request on a connection of its own, with an empty body.
fn ask(at: SocketAddr, method: &str, path: &str) -> Answer {
    let authorization = authorization(at);
    let headers = [("Authorization", authorization.as_str()), ("Content-Length", "0")];
    Connection::open(at).and_then(|mut connection| connection.ask(method, path, &headers)).expect("an answer")
}

/// Path and query of an upload.
fn path_of(url: &str) -> String {
    let (_, after) = url.split_once("://").expect("an absolute URL");
    after[after.find('/').expect("a path")..].to_owned()
}

fn open_upload(at: SocketAddr) -> String {
    let opened = ask(at, "POST", &format!("/v2/{REPOSITORY}/blobs/uploads/"));
    path_of(opened.header("location").expect("a location"))
}

/// Sends a request's head, and a body of which more may be announced.
fn begin(at: SocketAddr, method: &str, path: &str, announced: usize, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(at).expect("core listens");
    stream.set_read_timeout(Some(SOON)).expect("a time-out");
    let authorization = authorization(at);
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {at}\r\nAuthorization: {authorization}\r\nContent-Length: {announced}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("core reads the head");
    stream.write_all(body).expect("core reads the body");
    stream
}

/// Sends a whole PATCH; the upload's next location.
fn patch(at: SocketAddr, upload: &str, body: &[u8]) -> String {
    let mut stream = begin(at, "PATCH", upload, body.len(), body);
    let mut head = [0; 8192];
    let read = stream.read(&mut head).expect("an answer");
    let head = String::from_utf8_lossy(&head[..read]);
    assert!(head.starts_with("HTTP/1.1 202 "), "{head}");
    path_of(head.lines().find_map(|line| line.strip_prefix("Location: ")).expect("a location"))
}

/// Reads until the end, be it EOF or a reset; how much came.
fn rest(mut stream: TcpStream) -> usize {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    rest.len()
}

/// Ends core in the middle of a PATCH of which the registry has stored some; what that upload is afterwards.
fn cut(harbor: &Harbor, core: &Replica, end: impl Fn(&Replica)) {
    let upload = open_upload(core.address);
    let (_, id) = upload.split_once("/uploads/").expect("an upload's path");
    let id = id.split('?').next().expect("an id");
    let stream = begin(core.address, "PATCH", &upload, ANNOUNCED, &vec![b'x'; SENT]);
    waiting::holds("the registry stores what comes", SOON, || harbor.stored_of_upload(REPOSITORY, id) > 0);
    end(core);
    assert_eq!(rest(stream), 0, "no answer");
    assert!(TcpStream::connect(core.address).is_err(), "nobody listens");
    core.start_again();
    for method in ["GET", "PATCH", "GET"] {
        let answer = ask(core.address, method, &upload);
        assert_eq!(answer.status, 404, "{method}: {}", answer.body);
        assert!(answer.body.contains("BLOB_UPLOAD_INVALID"), "{method}: {}", answer.body);
    }
    let fresh = patch(core.address, &open_upload(core.address), b"hello");
    let put = format!("{fresh}&digest={}", sha256(b"hello"));
    assert_eq!(ask(core.address, "PUT", &put).status, 201, "a new upload begins at nothing");
}

#[test]
fn u9_a_push_cut_with_its_core_cannot_be_resumed() {
    let harbor = Harbor::start();
    let mut core = harbor.replica("only");
    core.start_delay = Duration::from_millis(200);
    cut(&harbor, &core, Replica::terminate);
    cut(&harbor, &core, Replica::kill);
}

#[test]
fn u9_between_whole_patches_an_upload_outlives_its_core() {
    let harbor = Harbor::start();
    let (first, second) = (harbor.replica("first"), harbor.replica("second"));
    let latest = patch(first.address, &open_upload(first.address), b"hello");
    first.kill();
    let get = ask(second.address, "GET", &latest);
    assert_eq!((get.status, get.header("range")), (204, Some("0-4")), "{}", get.body);
    first.start_again();
    let put = format!("{latest}&digest={}", sha256(b"hello"));
    assert_eq!(ask(first.address, "PUT", &put).status, 201);
}

#[test]
fn u8_a_pull_in_flight_ends_early_with_its_core() {
    let harbor = Harbor::start();
    let core = harbor.replica("only");
    let body = vec![b'x'; LONG];
    let digest = sha256(&body);
    let latest = patch(core.address, &open_upload(core.address), &body);
    assert_eq!(ask(core.address, "PUT", &format!("{latest}&digest={digest}")).status, 201);
    let path = format!("/v2/{REPOSITORY}/blobs/{digest}");
    for end in [Replica::terminate, Replica::kill] {
        let mut pull = begin(core.address, "GET", &path, 0, b"");
        assert!(pull.read(&mut [0; 1024]).expect("an answer") > 0);
        end(&core);
        let came = rest(pull);
        assert!(came < LONG, "all {came} bytes");
        core.start_again();
        let head = ask(core.address, "HEAD", &path);
        assert_eq!(head.header("content-length"), Some(LONG.to_string().as_str()));
    }
}

fn sha256(bytes: &[u8]) -> String {
    let digits = digest(&SHA256, bytes);
    digits.as_ref().iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}
