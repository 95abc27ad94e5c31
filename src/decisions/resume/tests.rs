use super::*;

type Lines = &'static [(&'static str, &'static str)];

const D: (&str, &str) = ("docker-content-digest", "sha256:ab");
const WHOLE: Lines = &[("content-length", "10"), D];
const E: (&str, &str) = ("etag", "\"sha256:ab\"");

fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers
}

fn promise(way: Way, status: u16, lines: Lines) -> Option<Promise> {
    let headers = map(lines);
    Promise::of(
        way,
        || true,
        length_of(&headers)?,
        (StatusCode::from_u16(status).expect("a status"), &headers),
    )
}

#[test]
fn only_what_has_a_length_and_a_name_can_be_continued() {
    use Way::{Again, Range};
    let table: [(Way, u16, Lines, Option<u64>); 17] = [
        (Range, 200, &[("content-length", "10"), D, E], Some(10)),
        (Range, 200, &[("content-length", "10"), D], Some(10)),
        (Range, 200, &[("content-length", "10"), E], Some(10)),
        (Range, 200, &[("content-length", "10"), ("content-encoding", "identity"), E], Some(10)),
        (Range, 206, &[("content-length", "4"), ("content-range", "bytes 3-6/10"), D], Some(4)),
        (Again, 200, &[("content-length", "10"), D], Some(10)),
        (Range, 200, &[D, E], None),
        (Range, 200, &[("content-length", "0"), D], None),
        (Range, 200, &[("content-length", "10")], None),
        (Range, 200, &[("content-length", "10"), ("etag", "W/\"a\"")], None),
        (Range, 200, &[("content-length", "10"), ("etag", "\"\"")], None),
        (Range, 200, &[("content-length", "10"), D, D], None),
        (Range, 200, &[("content-length", "10"), ("content-encoding", "gzip"), D], None),
        (Range, 206, &[("content-length", "5"), ("content-range", "bytes 3-6/10"), D], None),
        (Range, 206, &[("content-length", "4"), ("content-range", "bytes 3-6/*"), D], None),
        (Again, 206, &[("content-length", "4"), ("content-range", "bytes 3-6/10"), D], None),
        (Range, 404, &[("content-length", "10"), D], None),
    ];
    for (way, status, lines, left) in table {
        assert_eq!(promise(way, status, lines).map(|p| p.left()), left, "{way:?} {status} {lines:?}");
    }
    let unasked = map(&[("content-length", "4"), ("content-range", "bytes 3-6/10"), D]);
    assert_eq!(Promise::of(Range, || false, 4, (StatusCode::PARTIAL_CONTENT, &unasked)), None);
}

#[test]
fn what_is_missing_is_asked_for() {
    const INNER: Lines = &[("content-length", "4"), ("content-range", "bytes 3-6/10"), D];
    const LAST: Lines = &[("content-length", "7"), ("content-range", "bytes 3-9/10"), D];
    let ask = |status, lines, given| {
        let mut promise = promise(Way::Range, status, lines).expect("it can be continued");
        promise.kept(given);
        promise.range().expect("a range")
    };
    for (status, lines, given, range) in [
        (200, WHOLE, 0, "bytes=0-"),
        (200, WHOLE, 9, "bytes=9-"),
        (206, INNER, 0, "bytes=3-6"),
        (206, INNER, 3, "bytes=6-6"),
        (206, LAST, 1, "bytes=4-"),
    ] {
        assert_eq!(ask(status, lines, given), range);
    }
    assert_eq!(promise(Way::Again, 200, WHOLE).expect("a manifest").range(), None);
}

#[test]
fn a24_only_the_rest_of_the_same_bytes_joins() {
    let mut first = promise(Way::Range, 200, &[("content-length", "10"), D, E]).expect("a blob");
    first.kept(4);
    let (length, range) = (("content-length", "6"), ("content-range", "bytes 4-9/10"));
    let table: [(u16, &[(&'static str, &'static str)], _); 16] = [
        (206, &[length, range, D, E], Ok(0)),
        (200, &[("content-length", "10"), D, E], Err(Misfit::Status)),
        (401, &[], Err(Misfit::Status)),
        (416, &[length, D, E], Err(Misfit::Status)),
        (206, &[length, D, E], Err(Misfit::Range)),
        (206, &[length, ("content-range", "bytes 3-9/10"), D, E], Err(Misfit::Range)),
        (206, &[length, ("content-range", "bytes 4-8/10"), D, E], Err(Misfit::Range)),
        (206, &[length, ("content-range", "bytes 4-9/11"), D, E], Err(Misfit::Range)),
        (206, &[length, ("content-range", "bytes 4-9/*"), D, E], Err(Misfit::Range)),
        (206, &[length, ("content-range", "bytes +4-9/10"), D, E], Err(Misfit::Range)),
        (206, &[range, D, E], Err(Misfit::Length)),
        (206, &[("content-length", "5"), range, D, E], Err(Misfit::Length)),
        (206, &[length, range, ("docker-content-digest", "sha256:cd"), E], Err(Misfit::Identity)),
        (206, &[length, range, D, ("etag", "\"sha256:cd\"")], Err(Misfit::Identity)),
        (206, &[length, range, D, ("etag", "W/\"sha256:ab\"")], Err(Misfit::Identity)),
        (206, &[length, range, D, E, ("content-encoding", "gzip")], Err(Misfit::Coding)),
    ];
    for (status, lines, want) in table {
        let status = StatusCode::from_u16(status).expect("a status");
        assert_eq!(first.join(status, &map(lines)), want, "{status} {lines:?}");
    }
}

#[test]
fn a24_a_manifest_is_joined_behind_what_the_client_has() {
    let mut first = promise(Way::Again, 200, WHOLE).expect("a manifest");
    first.kept(7);
    assert_eq!(first.join(StatusCode::OK, &map(WHOLE)), Ok(7));
    let others: [(Lines, Misfit); 2] = [
        (&[("content-length", "11"), D], Misfit::Length),
        (&[("content-length", "10"), ("docker-content-digest", "sha256:cd")], Misfit::Identity),
    ];
    for (lines, want) in others {
        assert_eq!(first.join(StatusCode::OK, &map(lines)), Err(want));
    }
}

#[test]
fn a6_tries_end_where_nothing_comes_of_them() {
    let mut tries = Tries::default();
    let pauses: Vec<_> = (0..9).map(|_| (tries.take(), tries.pause().as_millis())).collect();
    assert_eq!(pauses[..4], [(true, 0), (true, 250), (true, 500), (false, 500)]);
    assert!(pauses[4..].iter().all(|(taken, _)| !taken));
    let mut tries = Tries::default();
    let all = (0..99).filter(|_| {
        tries.brought();
        tries.take()
    });
    assert_eq!(all.count(), 16);
}

proptest::proptest! {
    #[test]
    fn a_content_range_is_read_or_refused(text in "bytes [0-9]{0,22}-[0-9]{0,22}/[0-9*]{0,22}") {
        let headers = HeaderMap::from_iter([(header::CONTENT_RANGE, HeaderValue::try_from(text).expect("text"))]);
        if let Some((at, end, total)) = range_of(&headers) {
            proptest::prop_assert!(at < end && end <= total);
        }
    }
}
