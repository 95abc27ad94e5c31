//! Headers that claim what only we, or a trusted proxy, may say.

use crate::{bench::Bench, raw::values};

#[test]
fn headers_named_by_connection_still_reach_harbor_as_we_set_them() {
    let bench = Bench::plain();
    let named = "Authorization, X-Forwarded-For, X-Forwarded-Proto, X-Real-IP, Cookie, Host, Content-Type, Content-Length, Content-Range, Range, Accept, If-Range, X-Request-ID, X-Harbor-CSRF-Token, X-Own, Transfer-Encoding, User-Agent";
    let lines = format!(
        "Connection: close, {named}\r\nAuthorization: Basic YTpi\r\nCookie: sid=1\r\nContent-Type: text/plain\r\nContent-Range: 0-4\r\nRange: bytes=0-\r\nIf-Range: x\r\nAccept: a/b\r\nX-Harbor-CSRF-Token: t\r\nX-Own: 1\r\n"
    );
    let answer = bench
        .ask(format!("POST /api/v2.0/x HTTP/1.1\r\nHost: h:1\r\n{lines}Content-Length: 5\r\n\r\nabcde"))
        .expect("an answer");
    assert_eq!(answer.status, 200);
    let head = bench.recorder.head("/api/v2.0/x");
    let one = |name| values(&head, name).join("|");
    for (name, value) in [
        ("authorization", "Basic YTpi"),
        ("cookie", "sid=1"),
        ("host", "h:1"),
        ("content-type", "text/plain"),
        ("content-range", "0-4"),
        ("content-length", "5"),
        ("range", "bytes=0-"),
        ("if-range", "x"),
        ("accept", "a/b"),
        ("x-harbor-csrf-token", "t"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-real-ip", "127.0.0.1"),
        ("x-own", ""),
        ("connection", ""),
    ] {
        assert_eq!(one(name), value, "{name} in {head}");
    }
    assert!(!one("x-request-id").is_empty());
}

#[test]
fn identities_from_strangers_are_dropped_whatever_their_spelling() {
    let bench = Bench::plain();
    let names = [
        "X-Forwarded-For",
        "X_Forwarded_For",
        "X.Forwarded.For",
        "x-forwarded-FOR",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Forwarded-User",
        "X-Forwarded-Email",
        "X-Forwarded-Port",
        "X-Forwarded-Prefix",
        "Forwarded",
        "X-Real-IP",
        "X_Real_IP",
        "X-Client-IP",
        "True-Client-IP",
        "X-Remote-User",
        "Remote-User",
        "X-WebAuth-User",
        "X-Auth-Request-User",
        "X_Auth_Request_Email",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-Original-Host",
        "X-Host",
        "X-HTTP-Method-Override",
        "X-Request-ID",
    ];
    let lines = names
        .iter()
        .map(|name| format!("{name}: forged\r\n{name}: forged-too\r\n"))
        .collect::<Vec<_>>()
        .concat();
    assert_eq!(bench.get("/v2/x", &lines).status, 200);
    let head = bench.recorder.head("/v2/x");
    assert!(!head.contains("forged"), "{head}");
    assert_eq!(values(&head, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(values(&head, "x-real-ip"), ["127.0.0.1"]);
    assert_eq!(values(&head, "x-forwarded-proto").len(), 1);
}

#[test]
fn behind_a_trusted_proxy_the_rightmost_hop_that_is_not_trusted_is_the_client() {
    let trusted = crate::support::ports::free();
    let listener = format!(
        "[[listener]]\naddress = \"{trusted}\"\ntrusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]\n"
    );
    let bench = Bench::with(&listener, crate::recorder::plain());
    let lines = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7, 10.1.1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: harbor.example\r\nX-Request-ID: from.proxy-1\r\n";
    assert_eq!(crate::raw::get(trusted, "/v2/x", lines).status, 200);
    let head = bench.recorder.head("/v2/x");
    assert_eq!(values(&head, "x-real-ip"), ["7.7.7.7"], "{head}");
    assert_eq!(values(&head, "x-forwarded-proto"), ["https"]);
    assert_eq!(values(&head, "x-forwarded-host"), ["harbor.example"]);
    assert_eq!(values(&head, "x-request-id"), ["from.proxy-1"]);
    assert_eq!(
        values(&head, "x-forwarded-for"),
        ["6.6.6.6, 7.7.7.7, 10.1.1.1, 127.0.0.1"],
        "the whole chain"
    );
    let logged = crate::support::waiting::until(std::time::Duration::from_secs(5), || {
        bench.gate.log().into_iter().find(|line| line["path"] == "/v2/x")
    });
    assert_eq!(logged.expect("a line")["client"], "7.7.7.7");
}

#[test]
fn a29_a_request_id_is_kept_from_trusted_proxies_only_and_only_if_it_is_one() {
    let trusted = crate::support::ports::free();
    let listener = format!("[[listener]]\naddress = \"{trusted}\"\ntrusted_proxies = [\"127.0.0.1/32\"]\n");
    let bench = Bench::with(&listener, crate::recorder::plain());
    let long = "a".repeat(65);
    for bad in ["a b", "a\"b", "a;b", "", &long, "\u{e9}"] {
        let answer = crate::raw::get(trusted, "/v2/x", &format!("X-Request-ID: {bad}\r\n"));
        assert_ne!(answer.header("x-request-id").as_deref(), Some(bad));
        assert_eq!(answer.all("x-request-id").len(), 1);
    }
    assert_eq!(
        crate::raw::get(trusted, "/v2/x", "X-Request-ID: ok-1\r\n").header("x-request-id").as_deref(),
        Some("ok-1")
    );
    assert_ne!(bench.get("/v2/x", "X-Request-ID: ok-1\r\n").header("x-request-id").as_deref(), Some("ok-1"));
}

#[test]
fn a26_component_secrets_and_notifications_pass_on_cluster_listeners_only() {
    let cluster = crate::support::ports::free();
    let listener = format!("[[listener]]\naddress = \"{cluster}\"\nscope = \"cluster\"\n");
    let bench = Bench::with(&listener, crate::recorder::plain());
    let secret = "Authorization: Harbor-Secret abc\r\n";
    let paths = [
        "/service/notifications",
        "/service/notifications/tasks/1",
        "/service/%6eotifications/x",
        "/v1/registries",
        "/%761/x",
    ];
    for path in paths {
        let answer = bench.get(path, secret);
        assert_eq!(answer.status, 404, "{path}");
    }
    assert_eq!(bench.recorder.lines(), Vec::<String>::new(), "nothing of it goes up");
    for scheme in ["Harbor-Secret", "harbor-secret", "HARBOR-SECRET\t"] {
        assert_eq!(bench.get("/api/v2.0/public", &format!("Authorization: {scheme} abc\r\n")).status, 200);
    }
    for head in bench.recorder.heads() {
        assert!(!head.contains("abc"), "{head}");
    }
    for path in paths {
        assert_eq!(crate::raw::get(cluster, path, secret).status, 200, "{path}");
        assert!(bench.recorder.head(&format!(" {path} ")).contains("Harbor-Secret abc"));
    }
}

#[test]
fn two_authorization_headers_are_400() {
    let bench = Bench::plain();
    for (first, second) in
        [("Bearer x", "Basic YTpi"), ("Basic YTpi", "Basic YTpi"), ("Harbor-Secret x", "Basic YTpi")]
    {
        for path in ["/v2/", "/service/token?service=harbor-registry", "/api/v2.0/x"] {
            let lines = format!("Authorization: {first}\r\nauthorization: {second}\r\n");
            assert_eq!(bench.get(path, &lines).status, 400, "{path}");
        }
    }
    assert_eq!(bench.recorder.lines(), Vec::<String>::new());
}

#[test]
fn a1_no_cookie_goes_up_or_comes_down_where_command_line_clients_speak() {
    let script: crate::recorder::Script = std::sync::Arc::new(|turn| {
        turn.read_body()?;
        turn.answer(
            "200 OK",
            "Set-Cookie: sid=down; Path=/\r\nSet-Cookie: _gorilla_csrf=x\r\nX-Harbor-CSRF-Token: t\r\n",
            "{}",
        )?;
        Ok(true)
    });
    let bench = Bench::with("", script);
    for path in [
        "/v2/",
        "/v2/p/r/tags/list",
        "/service/token?service=harbor-registry&scope=repository:p/r:pull",
        "/service/other",
        "/%73ervice/token?service=harbor-registry",
    ] {
        let answer = bench.get(path, "Cookie: sid=up\r\ncookie: b=up\r\n");
        assert!(answer.all("set-cookie").is_empty(), "{path}: {}", answer.head);
        assert!(answer.all("x-harbor-csrf-token").is_empty(), "{path}");
        assert!(bench.recorder.heads().iter().any(|head| head.contains(path)), "{path}");
    }
    assert!(bench.recorder.heads().iter().all(|head| values(head, "cookie").is_empty()));
    let answer = bench.get("/api/v2.0/users/current", "Cookie: sid=up\r\n");
    assert_eq!(answer.all("set-cookie").len(), 2, "the UI keeps its own");
    assert_eq!(values(&bench.recorder.head("users/current"), "cookie"), ["sid=up"]);
}

#[test]
fn many_accept_lines_stay_many() {
    let bench = Bench::plain();
    let kinds = [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "*/*",
    ];
    let lines = kinds.iter().map(|kind| format!("Accept: {kind}\r\n")).collect::<Vec<_>>().concat();
    assert_eq!(bench.get("/v2/p/r/manifests/v1", &lines).status, 200);
    assert_eq!(values(&bench.recorder.head("manifests"), "accept"), kinds);
}
