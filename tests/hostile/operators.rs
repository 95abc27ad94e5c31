//! What operators see and do: the admin listener (A28) and the log (A29).

use crate::{
    bench::Bench,
    raw::{self, get},
    recorder::plain,
    support::{ports, waiting},
};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

#[test]
fn a28_the_admin_listener_shows_and_changes_nothing_without_its_token_its_host_and_its_origin() {
    let bench = Bench::plain();
    let admin = bench.gate.admin;
    let ask = |method: &str, target: &str, host: &str, lines: &str| {
        let request =
            format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n{lines}\r\n");
        raw::ask(admin, request).expect("an answer").status
    };
    let ours = admin.to_string();
    for open in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(ask("GET", open, &ours, ""), 200, "{open}");
        assert_eq!(ask("GET", open, &format!("localhost:{}", admin.port()), ""), 200, "{open}");
        for host in [
            "evil.example",
            "evil.example:9180",
            "127.0.0.1.evil.example",
            "169.254.169.254",
            "[::1]",
            "localhost.evil",
        ] {
            assert_eq!(ask("GET", open, host, ""), 403, "{open} as {host}");
        }
        for origin in ["http://evil.example", "null", "https://127.0.0.1", "file://"] {
            assert_eq!(
                ask("GET", open, &ours, &format!("Origin: {origin}\r\n")),
                403,
                "{open} from {origin}"
            );
        }
        assert_eq!(ask("GET", open, &ours, &format!("Origin: http://{ours}\r\n")), 200, "{open}");
    }
    for (method, target) in [
        ("GET", "/v1/status"),
        ("GET", "/v1/keys"),
        ("POST", "/v1/keys/x/retire"),
        ("GET", "/v1/keys/x/retire"),
        ("GET", "/v1/other"),
        ("DELETE", "/v1/keys"),
    ] {
        for lines in
            ["", "Authorization: Bearer x\r\n", "Authorization: Basic eDp5\r\n", "Authorization: Bearer \r\n"]
        {
            let status = ask(method, target, &ours, lines);
            assert!(matches!(status, 401 | 403), "{method} {target} {lines}: {status}");
        }
    }
    assert!(
        bench.gate.metrics().sum("tidegate_key_state", &[("state", "signing")]) > 0.5,
        "no key was retired"
    );
    bench.serves_others();
}

#[test]
fn what_clients_write_cannot_forge_a_log_line_and_is_cut() {
    let bench = Bench::plain();
    let agents = [
        "x\",\"status\":200,\"outcome\":\"forged",
        "a\\\"b",
        "\u{1b}[31mred\u{1b}[0m",
        "tab\there",
        "\u{e9}\u{202e}evil",
        &"u".repeat(20_000),
    ];
    for agent in agents {
        // A control character is refused by hyper or escaped by us; both are one line or none.
        let _ = bench.ask(format!("GET /v2/agent HTTP/1.1\r\nHost: h\r\nUser-Agent: {agent}\r\n\r\n"));
    }
    for target in [
        "/v2/%0a%22forged%22",
        "/v2/a%1b%5b31m",
        "/v2/\"quoted\"",
        "/v2/x?secret=Query12345",
        &format!("/v2/{}", "p".repeat(9_000)),
    ] {
        let _ = bench.ask(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
    }
    let _ = bench.ask(format!("{} /v2/method HTTP/1.1\r\nHost: h\r\n\r\n", "M".repeat(5_000)));
    waiting::holds("they are logged", SOON, || bench.gate.log().len() >= 8);
    bench.serves_others();
    let output = bench.gate.output();
    for line in output.lines() {
        let value: Result<serde_json::Value, _> = serde_json::from_str(line);
        assert!(value.is_ok_and(|value| value["outcome"] != "forged"), "{line:.300}");
        assert!(line.len() < 4_000, "a line of {} bytes", line.len());
    }
    assert!(output.is_ascii() && !output.contains('\u{1b}'));
    assert!(!output.contains("Query12345"), "no query is logged (A29)");
}

#[test]
fn ipv6_clients_are_served_and_named() {
    let port = ports::free().port();
    let bench = Bench::with(&format!("[[listener]]\naddress = \"[::1]:{port}\"\n"), plain());
    let address = format!("[::1]:{port}").parse().unwrap();
    assert_eq!(get(address, "/v2/six", "").status, 200);
    let head = bench.recorder.head("/v2/six");
    assert_eq!(raw::values(&head, "x-forwarded-for"), ["::1"]);
    assert_eq!(raw::values(&head, "x-real-ip"), ["::1"]);
    waiting::holds("the log names it", SOON, || bench.gate.log().iter().any(|line| line["client"] == "::1"));
}

#[test]
fn a_proxy_header_counts_from_listed_peers_only_and_nothing_is_read_without_it() {
    let (listed, unlisted) = (ports::free(), ports::free());
    let listener = |address, network| {
        format!(
            "[[listener]]\naddress = \"{address}\"\nproxy_protocol = true\ntrusted_proxies = [\"{network}\"]\n"
        )
    };
    let configuration = listener(listed, "127.0.0.1/32") + &listener(unlisted, "10.0.0.0/8");
    let bench = Bench::with(&(configuration + "[timeouts]\nhandshake = \"1s\"\n"), plain());
    let request = "GET /v2/proxied HTTP/1.1\r\nHost: h\r\n\r\n";
    let header = "PROXY TCP4 9.9.9.9 8.8.8.8 1234 443\r\n";
    assert!(raw::ask(unlisted, format!("{header}{request}")).is_none(), "an unlisted peer's is closed");
    assert!(raw::ask(listed, request).is_none(), "no header is closed");
    for bad in [
        "PROXY TCP4 9.9.9.9\r\n",
        "PROXY TCP4 999.9.9.9 8.8.8.8 1 2\r\n",
        "PROXY TCP4 9.9.9.9 8.8.8.8 1 2\n",
        "PROXY ",
    ] {
        assert!(raw::ask(listed, format!("{bad}{request}")).is_none(), "{bad:?}");
    }
    assert_eq!(bench.recorder.lines(), Vec::<String>::new());
    assert_eq!(raw::ask(listed, format!("{header}{request}")).map(|answer| answer.status), Some(200));
    assert_eq!(raw::values(&bench.recorder.head("proxied"), "x-real-ip"), ["9.9.9.9"]);
    // To a listener without the protocol it is no request.
    let answer = bench.ask(format!("{header}{request}"));
    assert!(answer.is_none_or(|answer| answer.status == 400));
}
