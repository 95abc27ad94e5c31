//! U: uploads, bodies, and what becomes of them when core refuses or dies.

use std::time::Duration;

use crate::{
    client::{Answer, Request, Wire},
    target::{Image, MANIFESTS, Need, Target, on_each, path_of, sha256, skip, spare_key},
};
use tidegate::rehearsal::harbor::KeyForm;

/// What core reads of a refused body.
const READ_OF_REFUSED: usize = 256 * 1024;
/// Long enough for an answer that comes at once to be there.
const A_WHILE: Duration = Duration::from_millis(400);

fn location(answer: &Answer) -> &str {
    answer.header("location").expect("a location")
}

#[tokio::test]
async fn u1_the_location_is_absolute_and_follows_forwarding_headers() {
    on_each("U1", &[], async |harbor| {
        let target = format!("/v2/{}/blobs/uploads/", harbor.private.repository);
        let post = |host: &str| harbor.request("POST", &target).basic(&harbor.admin).host(host).body("");
        let named = "reg.example.test";
        for (request, expected) in [
            (post(&harbor.host), format!("http://{}/v2/", harbor.host)),
            (post(named), "http://reg.example.test/v2/".into()),
            (post(named).header("X-Forwarded-Proto", "https"), "https://reg.example.test/v2/".into()),
            (
                post("reg.example.test:8443").header("X-Forwarded-Proto", "https"),
                "https://reg.example.test:8443/v2/".into(),
            ),
            (post(named).header("X-Forwarded-Host", "a.test, b.test"), "http://a.test/v2/".into()),
            (post(named).header("Forwarded", "proto=https;host=f.test"), "https://f.test/v2/".into()),
            (
                post(named).header("X-Forwarded-Proto", "https, http"),
                "https, http://reg.example.test/v2/".into(),
            ),
            (post(named).header("X-Forwarded-Port", "8443"), "http://reg.example.test/v2/".into()),
        ] {
            let answer = request.send().await;
            assert_eq!((answer.status, answer.header("range")), (202, Some("0-0")));
            assert!(location(&answer).starts_with(&expected), "{} not {expected}", location(&answer));
            let id = answer.header("docker-upload-uuid").expect("an upload id");
            assert!(location(&answer).contains(&format!("/uploads/{id}?_state=")), "{}", location(&answer));
        }
    })
    .await;
}

fn body(length: usize) -> Vec<u8> {
    vec![b'x'; length]
}

/// The head of a refused PATCH.
async fn refused_patch(harbor: &Target, framing: (&str, &str)) -> Request {
    let upload = harbor.open_upload(&harbor.private.repository).await;
    harbor.request("PATCH", &upload).bearer("dead.bearer.token").header(framing.0, framing.1)
}

fn is_push_refusal(answer: &Answer, repository: &str) {
    answer.is_unauthorized(&format!("unauthorized to access repository: {repository}, action: push"));
    assert_eq!(answer.challenge(), r#"Basic realm="harbor""#);
}

#[tokio::test]
async fn u2_a_refused_body_over_256_kib_is_answered_before_its_first_byte() {
    on_each("U2", &[], async |harbor| {
        let patch = refused_patch(harbor, ("Content-Length", "67108864")).await;
        let mut wire = Wire::connect(harbor.address).await;
        wire.write(&patch.bytes()).await.expect("the head");
        let answer = wire.answer(false).await.expect("an answer");
        is_push_refusal(&answer, &harbor.private.repository);
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(wire.is_closed().await);
    })
    .await;
}

#[tokio::test]
async fn u3_a_refused_body_of_256_kib_or_less_is_read_before_the_answer() {
    on_each("U3", &[], async |harbor| {
        let patch = refused_patch(harbor, ("Content-Length", "204800")).await;
        let mut wire = Wire::connect(harbor.address).await;
        wire.write(&patch.bytes()).await.expect("the head");
        wire.write(&body(100_000)).await.expect("a part");
        assert!(wire.is_silent_for(A_WHILE).await, "core reads on");
        wire.write(&body(104_800)).await.expect("the rest");
        let answer = wire.answer(false).await.expect("an answer");
        is_push_refusal(&answer, &harbor.private.repository);
        assert_eq!(answer.header("connection"), None);
        let again = harbor.get("/v2/").basic(&harbor.admin);
        wire.write(&again.bytes()).await.expect("the connection stays");
        assert_eq!(wire.answer(false).await.expect("an answer").status, 200);
    })
    .await;
}

#[tokio::test]
async fn u4_a_refused_chunked_body_is_read_for_256_kib() {
    on_each("U4", &[], async |harbor| {
        let patch = refused_patch(harbor, ("Transfer-Encoding", "chunked")).await;
        let mut wire = Wire::connect(harbor.address).await;
        wire.write(&patch.bytes()).await.expect("the head");
        assert!(wire.is_silent_for(A_WHILE).await, "core waits for the body");
        let chunk = [b"8000\r\n".as_slice(), &body(0x8000), b"\r\n"].concat();
        for _ in 0..READ_OF_REFUSED / 0x8000 {
            wire.write(&chunk).await.expect("a chunk");
        }
        assert!(wire.is_silent_for(A_WHILE).await, "core reads on");
        wire.write(&chunk).await.expect("one chunk more");
        let answer = wire.answer(false).await.expect("an answer");
        is_push_refusal(&answer, &harbor.private.repository);
        assert_eq!(answer.header("connection"), Some("close"));
        let mut further = 0;
        while wire.write(&chunk).await.is_ok() {
            further += 1;
            assert!(further < 4096, "a client that goes on sees a broken pipe in the end");
        }
    })
    .await;
}

#[tokio::test]
async fn u5_after_a_refusal_the_upload_goes_on() {
    on_each("U5", &[], async |harbor| {
        let upload = harbor.open_upload(&harbor.private.repository).await;
        let refused = harbor.request("PATCH", &upload).bearer("dead.bearer.token").body("hello").send().await;
        is_push_refusal(&refused, &harbor.private.repository);
        let bearer = harbor.user_token().await.text;
        let patch = harbor.request("PATCH", &upload).bearer(&bearer).body("hello").send().await;
        assert_eq!((patch.status, patch.header("range")), (202, Some("0-4")));
        let digest = sha256(b"hello");
        let put = format!("{}&digest={digest}", path_of(location(&patch)));
        let put = harbor.request("PUT", &put).bearer(&bearer).body("").send().await;
        assert_eq!(put.status, 201, "{}", put.text());
        assert_eq!(put.header("docker-content-digest"), Some(digest.as_str()));
        let blob = format!("/v2/{}/blobs/{digest}", harbor.private.repository);
        assert!(location(&put).ends_with(&blob), "{}", location(&put));
        let head = harbor.request("HEAD", &blob).bearer(&bearer).send().await;
        assert_eq!(head.status, 200);
        for (name, value) in [
            ("accept-ranges", "bytes"),
            ("cache-control", "max-age=31536000"),
            ("content-length", "5"),
            ("content-type", "application/octet-stream"),
            ("docker-content-digest", &digest),
            ("etag", &format!("\"{digest}\"")),
        ] {
            assert_eq!(head.header(name), Some(value), "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn u6_expect_spoils_the_status() {
    on_each("U6", &[], async |harbor| {
        let upload = harbor.open_upload(&harbor.private.repository).await;
        let bearer = harbor.user_token().await.text;
        let patch = harbor.request("PATCH", &upload).bearer(&bearer).header("Expect", "100-continue");
        let mut wire = Wire::connect(harbor.address).await;
        wire.write(&patch.header("Content-Length", "5").bytes()).await.expect("the head");
        let (status, headers) = wire.head().await.expect("core says go on");
        assert_eq!((status, headers.len()), (100, 0));
        wire.write(b"hello").await.expect("the body");
        let answer = wire.answer(false).await.expect("an answer");
        assert_eq!(answer.status, 200, "in the place of 202");
        let [(100, second)] = answer.interim.as_slice() else {
            panic!("another 100, not {:?}", answer.interim)
        };
        let has = |wanted: &str| second.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted));
        assert!(has("location") && has("range") && has("set-cookie"), "{second:?}");
    })
    .await;
}

#[tokio::test]
async fn u6_a_refusal_comes_in_the_place_of_100_continue() {
    on_each("U6 (refused)", &[], async |harbor| {
        let patch = refused_patch(harbor, ("Expect", "100-continue")).await.header("Content-Length", "500");
        let mut wire = Wire::connect(harbor.address).await;
        wire.write(&patch.bytes()).await.expect("the head");
        let answer = wire.answer(false).await.expect("an answer");
        is_push_refusal(&answer, &harbor.private.repository);
        assert_eq!((answer.interim.len(), answer.header("connection")), (0, Some("close")));
    })
    .await;
}

#[tokio::test]
async fn u7_a_key_swapped_after_a_patch_began_does_not_harm_it() {
    on_each("U7", &[Need::KeyFile], async |harbor| {
        let upload = harbor.open_upload(&harbor.private.repository).await;
        let bearer = harbor.user_token().await.text;
        let patch = harbor.request("PATCH", &upload).bearer(&bearer).header("Content-Length", "600000");
        let mut wire = Wire::connect(harbor.address).await;
        wire.write(&patch.bytes()).await.expect("the head");
        wire.write(&body(300_000)).await.expect("the first half, which no refusal would have let pass");
        assert!(wire.is_silent_for(A_WHILE).await, "the token was accepted");
        spare_key(1).overwrite(harbor.key_file(), KeyForm::Pkcs1).expect("replaced");
        wire.write(&body(300_000)).await.expect("the second half");
        let answer = wire.answer(false).await.expect("an answer");
        assert_eq!((answer.status, answer.header("range")), (202, Some("0-599999")));
        assert!(!harbor.accepts(&bearer).await);
    })
    .await;
}

#[tokio::test]
async fn u9_a_push_cut_in_the_middle_of_a_patch_cannot_be_resumed() {
    on_each("U9", &[], async |harbor| {
        let upload = harbor.open_upload(&harbor.private.repository).await;
        let patch = harbor.request("PATCH", &upload).basic(&harbor.admin).header("Content-Length", "600000");
        let mut wire = Wire::connect(harbor.address).await;
        wire.write(&patch.bytes()).await.expect("the head");
        wire.write(&body(300_000)).await.expect("a part");
        assert!(wire.is_silent_for(A_WHILE).await);
        wire.end().await;
        let get = harbor.get(&upload).basic(&harbor.admin).send().await;
        assert_eq!(get.status, 404, "{}", get.text());
        assert_eq!(get.error().0, "BLOB_UPLOAD_INVALID");
        let patch = harbor.request("PATCH", &upload).basic(&harbor.admin).body("x").send().await;
        assert_eq!((patch.status, patch.error().0.as_str()), (404, "BLOB_UPLOAD_INVALID"), "as ever after");
    })
    .await;
}

#[tokio::test]
async fn u9_between_whole_patches_an_upload_tells_where_it_stands() {
    on_each("U9 (whole)", &[], async |harbor| {
        let upload = harbor.open_upload(&harbor.private.repository).await;
        let patch = harbor.request("PATCH", &upload).basic(&harbor.admin).body("hello").send().await;
        let at = path_of(location(&patch));
        for address in [harbor.address, harbor.replica.unwrap_or(harbor.address)] {
            let get = Request::new(address, &harbor.host, "GET", &at).basic(&harbor.admin).send().await;
            assert_eq!((get.status, get.header("range")), (204, Some("0-4")));
        }
    })
    .await;
}

/// The digest of an image's first layer, and its size.
async fn layer(harbor: &Target, image: &Image) -> (String, u64) {
    let manifest = harbor.get(&image.manifest()).basic(&harbor.admin);
    let manifest = manifest.header("Accept", MANIFESTS).send().await;
    assert_eq!(manifest.status, 200, "{}", manifest.text());
    let layer = manifest.json()["layers"][0].clone();
    let digest = layer["digest"].as_str().expect("a digest").to_owned();
    (digest, layer["size"].as_u64().expect("a size"))
}

#[tokio::test]
async fn u10_a_pull_can_be_resumed_at_any_replica() {
    on_each("U10", &[], async |harbor| {
        let (digest, size) = layer(harbor, &harbor.private).await;
        let target = format!("/v2/{}/blobs/{digest}", harbor.private.repository);
        let whole = harbor.get(&target).basic(&harbor.admin).send().await;
        assert_eq!((whole.status, whole.body.len() as u64), (200, size));
        let etag = whole.header("etag").expect("an ETag");
        assert_eq!(etag, format!("\"{digest}\""));
        for address in [harbor.address, harbor.replica.unwrap_or(harbor.address)] {
            let part = Request::new(address, &harbor.host, "GET", &target).basic(&harbor.admin);
            let part = part.header("Range", "bytes=100-");
            for request in [part.clone(), part.clone().header("If-Range", etag)] {
                let answer = request.send().await;
                assert_eq!((answer.status, &answer.body[..]), (206, &whole.body[100..]));
                let range = format!("bytes 100-{}/{size}", size - 1);
                assert_eq!(answer.header("content-range"), Some(range.as_str()));
                assert_eq!(answer.header("etag"), Some(etag));
                assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()));
            }
            let other = part.header("If-Range", "\"else\"").send().await;
            assert_eq!((other.status, other.body.len() as u64), (200, size));
        }
    })
    .await;
}

#[tokio::test]
async fn u11_a_range_from_the_end_gets_a_416_that_lies_about_its_length() {
    on_each("U11", &[], async |harbor| {
        let (digest, size) = layer(harbor, &harbor.private).await;
        let target = format!("/v2/{}/blobs/{digest}", harbor.private.repository);
        let range = format!("bytes={size}-");
        let answer = harbor.get(&target).basic(&harbor.admin).header("Range", &range).send().await;
        assert_eq!((answer.status, answer.body.len()), (416, 33));
        assert_eq!(answer.header("content-length"), Some(size.to_string().as_str()));
    })
    .await;
}

#[test]
fn u12_redirects_to_object_storage() {
    skip("U12", "was read, not observed; it needs object storage");
}
