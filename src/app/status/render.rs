//! A status as text, at most 80 columns wide.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    time::Duration,
};

use super::{
    Alarm, Endpoint, Evidence, FormerSecret, Held, Key, Peer, Ramp, Replica, Signatures, Status, Window,
    WindowReport,
};
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
    peers(text, &status.peers)?;
    if let Some(ramp) = &status.ramp {
        write_ramp(text, ramp)?;
    }
    former_secrets(text, &status.former_secrets)?;
    rescues(text, status)?;
    let rejected: u64 = status.rejections.values().sum();
    if rejected > 0 {
        counts(text, &format!("REJECTED  {rejected}"), &status.rejections)?;
    }
    if status.waiting > 0 {
        writeln!(text, "\nWAITING  {} requests, until Harbor can answer them", status.waiting)?;
    }
    signatures(text, &status.signatures)?;
    alarms(text, &status.alarms)
}

/// The ramp alone.
pub fn ramp_screen(ramp: &Ramp) -> String {
    let mut text = String::new();
    let _ = write_ramp(&mut text, ramp);
    text.trim_start().to_owned()
}

fn write_ramp(text: &mut String, ramp: &Ramp) -> fmt::Result {
    let how = match (&ramp.stopped, ramp.set) {
        (Some(_), _) => "STOPPED",
        (None, Some(_)) => "set by an operator",
        (None, None) => "as planned",
    };
    writeln!(text, "\nRAMP  {} % of clients to the next side, {how}", ramp.share)?;
    if let Some(stopped) = &ramp.stopped {
        folded(text, "  stopped: ", stopped)?;
    }
    if ramp.planned != ramp.share {
        writeln!(text, "  by plan: {} %", ramp.planned)?;
    }
    if let Some(step) = &ramp.next_step {
        writeln!(text, "  then:    {step}")?;
    }
    if !ramp.by.is_empty() {
        folded(text, "  also:    ", &ramp.by.join(", "))?;
    }
    let Ramp { requests_current: current, requests_next: next, failed_next: failed, .. } = ramp;
    writeln!(text, "  requests: {current} to the current side, {next} to the next, {failed} failed there")?;
    let (sends, failures) = (ramp.minute_requests_next, ramp.minute_failed_next);
    writeln!(text, "  last minute: {failures} of {sends} failed there; it stops past {}", ramp.stop_at)
}

fn endpoints(text: &mut String, endpoints: &[Endpoint]) -> fmt::Result {
    writeln!(text, "\n{:<36}  {:<4}  {:<24}  PROBED", "ENDPOINT", "", "HELD KEY")?;
    for endpoint in endpoints {
        let name = if endpoint.address == endpoint.url {
            endpoint.url.clone()
        } else {
            format!("{} {}", endpoint.address, endpoint.url)
        };
        let name = if endpoint.side.is_empty() { name } else { format!("{}: {name}", endpoint.side) };
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

/// Shown where there are any.
fn peers(text: &mut String, peers: &[Peer]) -> fmt::Result {
    if !peers.is_empty() {
        writeln!(text, "\n{:<36}  {:<8}  KEYS", "PEER", "HEARD")?;
    }
    for peer in peers {
        let name =
            if peer.address.is_empty() { peer.url.clone() } else { format!("{} {}", peer.address, peer.url) };
        let heard = peer.heard_seconds_ago.map_or_else(|| "never".to_owned(), |s| format!("{}", Ago(s)));
        let keys: Vec<String> = peer.keys.iter().map(|kid| kid.chars().take(4).collect()).collect();
        writeln!(text, "{:<36}  {heard:<8}  {}", cut(&name, 36), cut(&keys.join(", "), 30))?;
        if let Some(fault) = &peer.fault {
            folded(text, "  ", fault)?;
        }
    }
    Ok(())
}

fn former_secrets(text: &mut String, secrets: &[FormerSecret]) -> fmt::Result {
    if secrets.is_empty() {
        return Ok(());
    }
    writeln!(
        text,
        "\n{:<28}  {:<8}  {:>10}  {:>9}  LAST USED",
        "FORMER SECRET OF", "ENDS IN", "REQUESTS", "ADDRESSES"
    )?;
    for one in secrets {
        let ends = one.ends_in_seconds.map_or_else(|| "over".to_owned(), time);
        let last = one.last_used_seconds_ago.map_or_else(|| "never".to_owned(), |s| Ago(s).to_string());
        let (name, requests, addresses) = (cut(&one.name, 28), one.requests, one.addresses);
        writeln!(text, "{name:<28}  {ends:<8}  {requests:>10}  {addresses:>9}  {last}")?;
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

/// Of interest where some are made elsewhere than in memory.
fn signatures(text: &mut String, places: &[Signatures]) -> fmt::Result {
    if places.iter().all(|place| place.place == "memory") {
        return Ok(());
    }
    writeln!(text, "\n{:<42}  {:>12}  EACH", "SIGNED IN", "TIMES")?;
    for Signatures { place, count, mean_micros } in places {
        let (whole, tenth) = (mean_micros / 1_000, mean_micros / 100 % 10);
        writeln!(text, "  {:<40}  {count:>12}  {whole}.{tenth} ms", cut(place, 40))?;
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
            side: String::new(),
        };
        let key = |first: &str, state: &str, ends_in_seconds: Option<u64>| Key {
            kid: kid(first),
            state: state.to_owned(),
            private: ends_in_seconds.is_none(),
            token: false,
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
            peers: vec![],
            requests: 20_311,
            rescues: BTreeMap::from([("resign".to_owned(), 1_100), ("reroute".to_owned(), 104), ("replay".to_owned(), 0)]),
            would_have_rescued: BTreeMap::new(),
            rejections: BTreeMap::new(),
            waiting: 12,
            signatures: Vec::new(),
            ramp: None,
            former_secrets: vec![],
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
    fn signatures_of_a_token_are_shown_with_how_long_they_take() {
        let place = |place: &str, mean_micros| Signatures { place: place.to_owned(), count: 7, mean_micros };
        let memory = place("memory", 900);
        let text = screen(&Status { signatures: vec![memory.clone()], ..status() });
        assert!(!text.contains("SIGNED IN"), "nothing of interest: {text}");
        let token = place("pkcs11:token=harbor;object=core", 12_345);
        let text = screen(&Status { signatures: vec![memory, token], ..status() });
        for line in [
            "SIGNED IN ",
            "  memory  ",
            " 7  0.9 ms\n",
            "  pkcs11:token=harbor;object=core  ",
            " 7  12.3 ms\n",
        ] {
            assert!(text.contains(line), "{line:?} {text}");
        }
    }

    #[test]
    fn peers_are_shown_with_what_they_told_and_what_is_wrong() {
        let url = "http://harbor-core-peers.harbor.svc:8080".to_owned();
        let good = Peer {
            address: "10.0.0.7:8080".to_owned(),
            heard_seconds_ago: Some(4),
            keys: vec![kid("AAAA"), kid("BBBB")],
            url: url.clone(),
            ..Peer::default()
        };
        let bad = Peer {
            address: "10.0.0.8:8080".to_owned(),
            fault: Some("its answer doesn't prove the shared secret".to_owned()),
            url,
            ..Peer::default()
        };
        let text = screen(&Status { peers: vec![good, bad], ..status() });
        let shown: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("PEER")).take(4).collect();
        insta::assert_snapshot!(shown.join("\n"), @r"
        PEER                                  HEARD     KEYS
        10.0.0.7:8080 http://harbor-core-pe…  4 s       AAAA, BBBB
        10.0.0.8:8080 http://harbor-core-pe…  never     
          its answer doesn't prove the shared secret
        ");
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
    fn former_secrets_are_shown_with_who_still_uses_them() {
        let used = FormerSecret {
            name: "robot$ci".to_owned(),
            ends_in_seconds: Some(86_400),
            requests: 12_345,
            last_used_seconds_ago: Some(75),
            addresses: 3,
        };
        let over = FormerSecret {
            name: "robot$project+nightly-build-of-everything".to_owned(),
            ..FormerSecret::default()
        };
        let mut text = String::new();
        former_secrets(&mut text, &[used, over]).expect("text");
        insta::assert_snapshot!(text, @r"
        FORMER SECRET OF              ENDS IN     REQUESTS  ADDRESSES  LAST USED
        robot$ci                      1d 0h          12345          3  1m 15s
        robot$project+nightly-build…  over               0          0  never
        ");
    }

    #[test]
    fn a_ramp_is_shown_with_what_stopped_it() {
        let ramp = Ramp {
            planned: 30,
            by: vec!["project:p".to_owned(), "agent:skopeo".to_owned()],
            stop_at: "1%".to_owned(),
            next_step: Some("50 % from 2026-12-01T20:00:00Z".to_owned()),
            stopped: Some(
                "7 of 12 requests of the next side had failed within a minute, at 2026-12-01T19:00:00Z"
                    .to_owned(),
            ),
            requests_current: 100_000,
            requests_next: 40_000,
            failed_next: 7,
            minute_requests_next: 12,
            minute_failed_next: 7,
            ..Ramp::default()
        };
        insta::assert_snapshot!(ramp_screen(&ramp), @r"
        RAMP  0 % of clients to the next side, STOPPED
          stopped: 7 of 12 requests of the next side had failed within a minute, at
                   2026-12-01T19:00:00Z
          by plan: 30 %
          then:    50 % from 2026-12-01T20:00:00Z
          also:    project:p, agent:skopeo
          requests: 100000 to the current side, 40000 to the next, 7 failed there
          last minute: 7 of 12 failed there; it stops past 1%
        ");
        let on = Ramp { stopped: None, share: 30, ..ramp };
        assert!(ramp_screen(&on).starts_with("RAMP  30 % of clients to the next side, as planned\n  then:"));
        let next = Endpoint { side: "next".to_owned(), ..status().endpoints.swap_remove(1) };
        let text = screen(&Status { endpoints: vec![next], ramp: Some(on), ..status() });
        assert!(text.contains("\nnext: 10.0.0.6:80 ") && text.contains("\nRAMP  30 %"), "{text}");
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
