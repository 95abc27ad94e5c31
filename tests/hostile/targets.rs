//! Request targets and hosts: one reading for us and for Harbor, or 400.

use crate::{bench::Bench, raw::values};

#[test]
fn targets_with_two_readings_are_400() {
    let bench = Bench::plain();
    let targets = [
        "/c/../v2/",
        "/c/%2e%2e/v2/",
        "/c/%2E./v2/",
        "/./v2/",
        "//v2/",
        "/v2//x",
        "/v2/%2fx",
        "/v2/x%2f%2fy",
        "/v2/a%00b",
        "/v2/a\\b",
        "/v2/a%5cb",
        "/v2/%ff",
        "/v2/a%0ab",
        "/v2/a%7fb",
        "/v2/..",
        "/v2/%2e",
        "*",
        "v2/",
        "h/v2/",
        "http:///v2/",
        "/service/token/../../v2/",
        "/service/notifications/%2e%2e/token",
    ];
    for target in targets {
        for method in ["GET", "POST", "OPTIONS"] {
            let request = format!("{method} {target} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
            assert_eq!(bench.ask(request).map(|answer| answer.status), Some(400), "{method} {target}");
        }
    }
    for target in ["/v2/a\0b", "/v2/a b", "/v2/\u{1}"] {
        let answer = bench.ask(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!(answer.map(|answer| answer.status), Some(400), "{target:?}");
    }
    assert_eq!(bench.recorder.lines(), Vec::<String>::new());
    let counted = bench.gate.metrics().sum("tidegate_rejections_total", &[("reason", "ambiguous_path")]);
    assert!(counted > 30.0, "{counted}");
}

#[test]
fn other_targets_go_up_byte_for_byte() {
    let bench = Bench::plain();
    for target in [
        "/v2/p%2Fr/manifests/latest",
        "/v2/p%2fr/tags/list",
        "/v2/p/r;x/tags/list",
        "/api/v2.0/projects/p/repositories/a%252Fb/artifacts",
        "/v2/p/r/blobs/uploads/u?_state=AbC%3D%3d&digest=sha256:%41b+c",
        "/api/v2.0/search?q=a//b&x=../..&y=%00",
        "/c/oidc/callback?code=a/b==&state=%20",
        "/v2/p/r/blobs/uploads/?mount=sha256:ab&from=a%2Fb",
        "/?",
        "/v2/?",
        "/api/v2.0/x?a=b?c=d",
        "/harbor/projects/%E2%82%AC",
    ] {
        assert_eq!(bench.get(target, "").status, 200, "{target}");
        let line = format!("GET {target} HTTP/1.1");
        assert_eq!(bench.recorder.lines().last(), Some(&line));
    }
}

#[test]
fn absolute_form_is_its_path_and_needs_the_same_host() {
    let bench = Bench::plain();
    for (target, host, want) in [
        ("http://h:1/v2/abs", "h:1", 200),
        ("http://H:1/v2/abs", "h:1", 200),
        ("https://h:1/v2/abs", "h:1", 200),
        ("http://evil/v2/abs", "h:1", 400),
        ("http://a@h:1/v2/abs", "h:1", 400),
        ("http://h:1/../v2/abs", "h:1", 400),
        ("http://h:1/service/notifications", "h:1", 404),
        ("h:1", "h:1", 400),
    ] {
        let answer = bench.ask(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(answer.map(|answer| answer.status), Some(want), "{target}");
    }
    assert!(
        bench.recorder.lines().iter().all(|line| line == "GET /v2/abs HTTP/1.1"),
        "{:?}",
        bench.recorder.lines()
    );
    assert!(bench.recorder.heads().iter().all(|head| values(head, "host").len() == 1));
}

#[test]
fn a_host_is_one_and_readable_or_400() {
    let bench = Bench::plain();
    for (lines, want) in [
        ("Host: h\r\n", 200),
        ("hOsT: H.Example:443\r\n", 200),
        ("Host: [::1]:80\r\n", 200),
        ("", 400),
        ("Host:\r\n", 400),
        ("Host: h\r\nHost: h\r\n", 400),
        ("Host: h\r\nhost: evil\r\n", 400),
        ("Host: h/evil\r\n", 400),
        ("Host: h@evil\r\n", 400),
        ("Host: h, evil\r\n", 400),
        ("Host: h evil\r\n", 400),
        ("Host: h?x\r\n", 400),
        ("Host: h\\evil\r\n", 400),
    ] {
        let answer = bench.ask(format!("GET /v2/host HTTP/1.1\r\n{lines}\r\n"));
        assert_eq!(answer.map(|answer| answer.status), Some(want), "{lines:?}");
    }
    let hosts: Vec<_> = bench.recorder.heads().iter().flat_map(|head| values(head, "host")).collect();
    assert_eq!(hosts, ["h", "H.Example:443", "[::1]:80"], "as the client wrote it");
}

#[test]
fn connect_and_strange_methods_open_no_tunnel() {
    let bench = Bench::plain();
    let mut client = bench.open();
    client.send("CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\nGET /v2/hidden HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.answer().map(|answer| answer.status), Some(400));
    for method in ["TRACE", "PROPFIND", "get", "X-UNHEARD"] {
        let answer = bench.ask(format!("{method} /v2/strange HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!(answer.map(|answer| answer.status), Some(200), "{method} is Harbor's to judge");
    }
    let answer = bench.ask("GET /v2/strange HTTP/1.1\r\nHost: h\r\nX-HTTP-Method-Override: DELETE\r\n\r\n");
    assert_eq!(answer.map(|answer| answer.status), Some(200));
    assert!(bench.recorder.heads().iter().all(|head| !head.to_lowercase().contains("override")));
}
