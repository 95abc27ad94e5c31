//! A status as text, at most 80 columns wide.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    time::Duration,
};

use super::{Alarm, Endpoint, Evidence, Held, Key, Replica, Status, Window, WindowReport};
use crate::words::clock::UnixTime;

/// The whole screen.
pub fn screen(status: &Status) -> String {
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = write_screen(&mut text, status);
    text
}

/// The ring alone, with names of keys in full, as `keys retire` wants them.
pub fn key_list(keys: &[Key]) -> String {
    let mut text = String::new();
    for key in keys {
        let _ = writeln!(text, "{:<59}  {:<9}  {}", key.kid, key.state, end(key.ends_in_seconds));
        let _ = writeln!(text, "    {}, from {}", key.half(), key.source);
        let _ = about(&mut text, key);
    }
    if keys.is_empty() {
        text.push_str("no keys: tokens are re-routed and replayed, never re-signed\n");
    }
    text
}

/// What is known of a key's use.
fn about(text: &mut String, key: &Key) -> fmt::Result {
    if let Some(since) = key.since.filter(|_| key.state == "retired") {
        writeln!(text, "    retired since {}", UnixTime(since).rfc3339())?;
    }
    if let Some(evidence) = key.evidence.as_ref().filter(|_| key.state != "retired") {
        writeln!(text, "    {}", used_by(evidence))?;
    }
    match key.safe_to_retire_in_seconds {
        Some(0) => writeln!(text, "    no token of it lives: it can be retired"),
        Some(seconds) => writeln!(text, "    its tokens may live for {} more", time(seconds)),
        None => Ok(()),
    }
}

/// Who uses a key, in a line.
pub fn used_by(evidence: &Evidence) -> String {
    let counted = |count, one: &str, many: &str| match count {
        1 => format!("1 {one}"),
        _ => format!("about {count} {many}"),
    };
    format!(
        "used by {} from {}, last seen {} ago",
        counted(evidence.principals, "user", "users"),
        counted(evidence.clients, "address", "addresses"),
        time(evidence.last_seen_seconds_ago)
    )
}

/// What `tidegate window` prints.
pub fn window_report(report: &WindowReport) -> String {
    let mut text = match &report.open {
        Some(window) => format!("{}\n", opened(window)),
        None => "no upgrade window is open\n".to_owned(),
    };
    for listed in &report.listed {
        let (from, until) = (UnixTime(listed.from).rfc3339(), UnixTime(listed.until).rfc3339());
        let _ = writeln!(text, "grace.windows: {from} to {until}");
    }
    text.push('\n');
    text + &key_list(&report.keys)
}

fn opened(window: &Window) -> String {
    let (until, left) = (UnixTime(window.until).rfc3339(), time(window.closes_in_seconds));
    format!("open until {until}, {left} more (by {})", window.by)
}

/// The line above a screen that is shown again every `pause`: when it was true.
pub fn watch_head(now: UnixTime, pause: Duration) -> String {
    let second = now.0.rem_euclid(86_400);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{hour:02}:{minute:02}:{second:02} UTC, again every {} s\n", pause.as_secs())
}

fn write_screen(text: &mut String, status: &Status) -> fmt::Result {
    let ready = if status.readiness.ready { "ready" } else { "NOT READY" };
    write!(
        text,
        "tidegate {}  {}  {ready}  up {}",
        status.version,
        status.mode,
        time(status.uptime_seconds)
    )?;
    if !status.deployment.is_empty() {
        write!(text, "  {}", status.deployment)?;
    }
    text.push('\n');
    for reason in &status.readiness.reasons {
        folded(text, "  ", reason)?;
    }
    if let Some(window) = &status.window {
        writeln!(text, "\nUPGRADE WINDOW  {}", opened(window))?;
    }
    endpoints(text, &status.endpoints)?;
    replicas(text, &status.replicas)?;
    keys(text, &status.keys)?;
    rescues(text, status)?;
    let rejected: u64 = status.rejections.values().sum();
    if rejected > 0 {
        counts(text, &format!("REJECTED  {rejected}"), &status.rejections)?;
    }
    if status.waiting > 0 {
        writeln!(text, "\nWAITING  {} requests, until Harbor can answer them", status.waiting)?;
    }
    alarms(text, &status.alarms)
}

fn endpoints(text: &mut String, endpoints: &[Endpoint]) -> fmt::Result {
    writeln!(text, "\n{:<36}  {:<4}  {:<24}  PROBED", "ENDPOINT", "", "HELD KEY")?;
    for endpoint in endpoints {
        let name = if endpoint.address == endpoint.url {
            endpoint.url.clone()
        } else {
            format!("{} {}", endpoint.address, endpoint.url)
        };
        let health = if endpoint.healthy { "up" } else { "DOWN" };
        let probed =
            endpoint.probed_seconds_ago.map_or_else(|| "never".to_owned(), |s| format!("{}", Ago(s)));
        writeln!(text, "{:<36}  {health:<4}  {:<24}  {probed}", cut(&name, 36), held(&endpoint.held))?;
    }
    Ok(())
}

fn replicas(text: &mut String, replicas: &[Replica]) -> fmt::Result {
    if replicas.is_empty() {
        return Ok(());
    }
    writeln!(text, "\n{:<36}  {:<12}  {:<8}  AGREES", "OTHER REPLICA", "VERSION", "HEARD")?;
    for Replica { id, host, version, heard_seconds_ago, agrees } in replicas {
        let (name, heard) = (cut(&format!("{host} {id}"), 36), format!("{}", Ago(*heard_seconds_ago)));
        let agrees = if *agrees { "yes" } else { "NOT YET" };
        writeln!(text, "{name:<36}  {:<12}  {heard:<8}  {agrees}", cut(version, 12))?;
    }
    Ok(())
}

/// A held key in at most 24 characters.
pub fn held(held: &Held) -> String {
    match held {
        Held::Unknown => "unknown".to_owned(),
        Held::CannotSign => "CAN'T SIGN".to_owned(),
        Held::One(kid) => short(kid),
        Held::Several(kids) => {
            let short: Vec<_> = kids.iter().map(|kid| kid.chars().take(4).collect::<String>()).collect();
            cut(&format!("{}: {}", kids.len(), short.join(", ")), 24)
        }
    }
}

/// A key's name as it is shown, in at most 24 characters.
pub fn short(kid: &str) -> String {
    cut(kid, 24)
}

fn keys(text: &mut String, keys: &[Key]) -> fmt::Result {
    writeln!(text, "\n{:<24}  {:<9}  {:<7}  {:<8}  SOURCE", "KEY", "STATE", "HALF", "ENDS IN")?;
    for key in keys {
        let (kid, half, ends) = (short(&key.kid), key.half(), end(key.ends_in_seconds));
        writeln!(text, "{kid:<24}  {:<9}  {half:<7}  {ends:<8}  {}", key.state, cut_front(&key.source, 24))?;
        if let (Some(evidence), "verifying") = (&key.evidence, &*key.state) {
            writeln!(text, "  {}", used_by(evidence))?;
        }
    }
    if keys.is_empty() {
        writeln!(text, "none: tokens are re-routed and replayed, never re-signed")?;
    }
    Ok(())
}

/// Observe mode rescues nothing by a token's key; what it would have is what its reader wants to know.
fn rescues(text: &mut String, status: &Status) -> fmt::Result {
    let rescued: u64 = status.rescues.values().sum();
    let observes = status.mode == "observe";
    if observes {
        let would: u64 = status.would_have_rescued.values().sum();
        let title = format!("WOULD HAVE RESCUED  {would} of {} requests, or more", status.requests);
        counts(text, &title, &status.would_have_rescued)?;
    }
    if !observes || rescued > 0 {
        counts(text, &format!("RESCUED  {rescued} of {} requests", status.requests), &status.rescues)?;
    }
    Ok(())
}

fn counts(text: &mut String, title: &str, by_reason: &BTreeMap<String, u64>) -> fmt::Result {
    writeln!(text, "\n{title}")?;
    for (reason, count) in by_reason.iter().filter(|(_, count)| **count > 0) {
        writeln!(text, "  {:<40}  {count:>12}", cut(reason, 40))?;
    }
    Ok(())
}

fn alarms(text: &mut String, alarms: &[Alarm]) -> fmt::Result {
    if alarms.is_empty() {
        return Ok(());
    }
    writeln!(text, "\nALARMS")?;
    for alarm in alarms {
        folded(text, "  ", &format!("{}: {}", alarm.subject, alarm.cause))?;
        folded(text, "    remedy: ", &alarm.remedy)?;
    }
    Ok(())
}

/// `first` and then `words`, folded at 80 columns below themselves.
fn folded(text: &mut String, first: &str, words: &str) -> fmt::Result {
    let indent = first.chars().count();
    let mut line = first.to_owned();
    let mut width = indent;
    for word in words.split(' ') {
        let more = word.chars().count();
        if width > indent && width + 1 + more > 80 {
            writeln!(text, "{line}")?;
            line = " ".repeat(indent);
            width = indent;
        } else if width > indent {
            line.push(' ');
            width += 1;
        }
        line.push_str(word);
        width += more;
    }
    writeln!(text, "{line}")
}

/// At most `most` characters; what is cut off the end is shown as `…`.
pub fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

/// As [`cut`], at the front: of a path the end tells most.
fn cut_front(text: &str, most: usize) -> String {
    let length = text.chars().count();
    if length <= most {
        return text.to_owned();
    }
    std::iter::once('…').chain(text.chars().skip(length - most + 1)).collect()
}

fn end(seconds: Option<u64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), time)
}

/// The two largest units.
fn time(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// A time that has passed.
struct Ago(u64);

impl fmt::Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { f.write_str("now") } else { f.write_str(&time(self.0)) }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Readiness, *};

    fn kid(first: &str) -> String {
        format!("{first}:KVXO:KF25:35NA:GJ35:ZGKY:PGYT:I5UT:TGWY:UUI4:PT7Z:X3KW")
    }

    fn status() -> Status {
        let endpoint = |address: &str, healthy, held| Endpoint {
            url: "http://harbor-core.harbor.svc.cluster.local:8080".to_owned(),
            address: address.to_owned(),
            healthy,
            held,
            probed_seconds_ago: Some(75),
        };
        let key = |first: &str, state: &str, ends_in_seconds: Option<u64>| Key {
            kid: kid(first),
            state: state.to_owned(),
            private: ends_in_seconds.is_none(),
            ends_in_seconds,
            source: "/etc/core/private_key.pem (former content)".to_owned(),
            ..Key::default()
        };
        Status {
            version: "0.1.0".to_owned(),
            mode: "enforce".to_owned(),
            deployment: "prod".to_owned(),
            uptime_seconds: 11_520,
            readiness: Readiness { ready: false, reasons: vec!["no endpoint answers".to_owned()], degraded: vec![] },
            window: None,
            replicas: vec![],
            endpoints: vec![
                endpoint("10.0.0.5:8080", true, Held::One(kid("AAAA"))),
                Endpoint { url: "10.0.0.6:80".to_owned(), ..endpoint("10.0.0.6:80", true, Held::Unknown) },
                endpoint("[2001:db8::1]:8080", false, Held::Several(vec![kid("AAAA"), kid("BBBB")])),
            ],
            keys: vec![key("AAAA", "signing", None), key("BBBB", "verifying", Some(1_620))],
            requests: 20_311,
            rescues: BTreeMap::from([("resign".to_owned(), 1_100), ("reroute".to_owned(), 104), ("replay".to_owned(), 0)]),
            would_have_rescued: BTreeMap::new(),
            rejections: BTreeMap::new(),
            waiting: 12,
            alarms: vec![Alarm {
                subject: "/etc/core/private_key.pem".to_owned(),
                cause: "the file is empty".to_owned(),
                remedy: "write the whole key beside the path and rename it over the path, so that nobody reads half"
                    .to_owned(),
            }],
        }
    }

    #[test]
    fn a_screen_shows_endpoints_keys_rescues_and_alarms() {
        insta::assert_snapshot!(screen(&status()), @r"
        tidegate 0.1.0  enforce  NOT READY  up 3h 12m  prod
          no endpoint answers

        ENDPOINT                                    HELD KEY                  PROBED
        10.0.0.5:8080 http://harbor-core.ha…  up    AAAA:KVXO:KF25:35NA:GJ3…  1m 15s
        10.0.0.6:80                           up    unknown                   1m 15s
        [2001:db8::1]:8080 http://harbor-co…  DOWN  2: AAAA, BBBB             1m 15s

        KEY                       STATE      HALF     ENDS IN   SOURCE
        AAAA:KVXO:KF25:35NA:GJ3…  signing    private  -         …ey.pem (former content)
        BBBB:KVXO:KF25:35NA:GJ3…  verifying  public   27m 0s    …ey.pem (former content)

        RESCUED  1204 of 20311 requests
          reroute                                            104
          resign                                            1100

        WAITING  12 requests, until Harbor can answer them

        ALARMS
          /etc/core/private_key.pem: the file is empty
            remedy: write the whole key beside the path and rename it over the path, so
                    that nobody reads half
        ");
    }

    fn used(principals: u64, clients: u64) -> Evidence {
        Evidence { principals, clients, last_seen_seconds_ago: 75, latest_token_ends_in_seconds: 900 }
    }

    #[test]
    fn a_window_and_its_keys_say_what_may_be_retired_and_who_uses_the_rest() {
        let key = |first: &str, state: &str| Key {
            kid: kid(first),
            state: state.to_owned(),
            source: "/etc/core/private_key.pem".to_owned(),
            ..Key::default()
        };
        let report = WindowReport {
            open: Some(Window { since: 0, until: 7_200, closes_in_seconds: 5_400, by: "command".to_owned() }),
            listed: vec![super::super::ListedWindow { from: 0, until: 3_600 }],
            keys: vec![
                Key { evidence: Some(used(1, 1)), ..key("AAAA", "signing") },
                Key {
                    evidence: Some(used(3, 5)),
                    ends_in_seconds: Some(1_620),
                    safe_to_retire_in_seconds: Some(960),
                    ..key("BBBB", "verifying")
                },
                Key { safe_to_retire_in_seconds: Some(0), ..key("CCCC", "verifying") },
                Key { since: Some(60), evidence: Some(used(3, 5)), ..key("DDDD", "retired") },
            ],
        };
        let text = window_report(&report);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        insta::assert_snapshot!(text, @r"
        open until 1970-01-01T02:00:00Z, 1h 30m more (by command)
        grace.windows: 1970-01-01T00:00:00Z to 1970-01-01T01:00:00Z

        AAAA:KVXO:KF25:35NA:GJ35:ZGKY:PGYT:I5UT:TGWY:UUI4:PT7Z:X3KW  signing    -
            public, from /etc/core/private_key.pem
            used by 1 user from 1 address, last seen 1m 15s ago
        BBBB:KVXO:KF25:35NA:GJ35:ZGKY:PGYT:I5UT:TGWY:UUI4:PT7Z:X3KW  verifying  27m 0s
            public, from /etc/core/private_key.pem
            used by about 3 users from about 5 addresses, last seen 1m 15s ago
            its tokens may live for 16m 0s more
        CCCC:KVXO:KF25:35NA:GJ35:ZGKY:PGYT:I5UT:TGWY:UUI4:PT7Z:X3KW  verifying  -
            public, from /etc/core/private_key.pem
            no token of it lives: it can be retired
        DDDD:KVXO:KF25:35NA:GJ35:ZGKY:PGYT:I5UT:TGWY:UUI4:PT7Z:X3KW  retired    -
            public, from /etc/core/private_key.pem
            retired since 1970-01-01T00:01:00Z
        ");
    }

    #[test]
    fn a_screen_shows_the_window_the_other_replicas_and_who_uses_a_former_key() {
        let mut shown = status();
        let window =
            Window { since: 0, until: 7_200, closes_in_seconds: 5_400, by: "grace.windows".to_owned() };
        let replica = |agrees| Replica {
            id: "0123456789abcdef".to_owned(),
            host: "tidegate-6c5d8f7b9-x2x2x".to_owned(),
            version: "0.1.0".to_owned(),
            heard_seconds_ago: 1,
            agrees,
        };
        (shown.window, shown.replicas) = (Some(window), vec![replica(true), replica(false)]);
        shown.keys.iter_mut().for_each(|key| key.evidence = Some(used(120, 1)));
        let text = screen(&shown);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        for words in [
            "UPGRADE WINDOW  open until 1970-01-01T02:00:00Z, 1h 30m more (by grace.windows)",
            "tidegate-6c5d8f7b9-x2x2x 0123456789…  0.1.0         1 s       NOT YET",
            "  used by about 120 users from 1 address, last seen 1m 15s ago",
        ] {
            assert!(text.contains(words), "{words}\n{text}");
        }
    }

    #[test]
    fn observe_mode_says_what_it_would_have_rescued() {
        let observing = Status {
            mode: "observe".to_owned(),
            rescues: BTreeMap::new(),
            would_have_rescued: BTreeMap::from([("resign".to_owned(), 7)]),
            ..status()
        };
        let text = screen(&observing);
        assert!(text.contains("\nWOULD HAVE RESCUED  7 of 20311 requests, or more\n  resign "), "{text}");
        assert!(!text.contains("\nRESCUED"), "{text}");
    }

    #[test]
    fn a_screen_that_is_shown_again_says_when_it_was_true() {
        let head = watch_head(UnixTime(1_795_358_345), Duration::from_secs(2));
        assert_eq!(head, "14:39:05 UTC, again every 2 s\n");
    }

    #[test]
    fn no_line_is_longer_than_80_columns() {
        let text = screen(&status()) + &key_list(&status().keys);
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn a_status_is_the_same_after_its_way_as_json() {
        let json = serde_json::to_string(&status()).expect("json");
        assert_eq!(serde_json::from_str::<Status>(&json).expect("a status"), status());
    }
}
