use std::net::Ipv4Addr;

use super::*;

fn asked<'a>(client: &str, agent: &'a str, is_for: &'a dyn Fn(&str) -> bool) -> Asked<'a> {
    Asked { client: client.parse().expect("an address"), agent: agent.as_bytes(), is_for }
}

#[test]
fn traffic_is_named_by_project_agent_or_source() {
    let of_p = |name: &str| name == "p";
    let table = [
        ("project:p", true),
        ("project:q", false),
        ("agent:skopeo/1", true),
        ("agent:docker", false),
        ("source:10.0.0.0/8", true),
        ("source:10.1.2.3", true),
        ("source:192.0.2.0/24", false),
    ];
    for (text, want) in table {
        let by = vec![Matcher::parse(text).expect(text)];
        let ramp = Ramp { share: 0, plan: vec![], by, stop_at: Part::percent(1) };
        assert_eq!(ramp.names(&asked("10.1.2.3", "a skopeo/1.18", &of_p)), want, "{text}");
        assert_eq!(Matcher::parse(text).map(|m| m.to_string().starts_with(text)), Some(true), "{text}");
    }
    for bad in ["", "p", "project:", "project:p/r", "agent:", "source:here", "robot:x"] {
        assert_eq!(Matcher::parse(bad), None, "{bad}");
    }
}

#[test]
fn a_part_is_written_in_percent() {
    for (text, hundredths) in [("1%", 100), ("0%", 0), ("0.5%", 50), ("0.25%", 25), ("100%", 10_000)] {
        assert_eq!(Part::parse(text), Some(Part(hundredths)), "{text}");
    }
    assert_eq!([Part(100), Part(50), Part(25)].map(|part| part.to_string()), ["1%", "0.50%", "0.25%"]);
    for bad in ["1", "%", "101%", "-1%", "1.%", ".5%", "1.234%", "+1%", "1 %", "656%", "999%", "99999%"] {
        assert_eq!(Part::parse(bad), None, "{bad}");
    }
}

#[test]
fn the_share_grows_by_its_plan() {
    let step = |at, share| Step { at: UnixTime(at), share };
    let plan = vec![step(100, 10), step(200, 50), step(300, 100)];
    let ramp = Ramp { share: 1, plan, by: vec![], stop_at: Part::percent(1) };
    let planned = [0, 99, 100, 199, 200, 300, 9_999].map(|now| ramp.planned(UnixTime(now)));
    assert_eq!(planned, [1, 1, 10, 10, 50, 100, 100]);
    assert_eq!(ramp.next_step(UnixTime(100)), Some(step(200, 50)));
    assert_eq!(ramp.next_step(UnixTime(300)), None);
}

#[test]
fn a_client_keeps_its_place_and_a_share_takes_its_part_of_all() {
    let of = |n: u32| place("prod", Ipv4Addr::from(0x0a00_0000 + n).into());
    assert_eq!(place("prod", Ipv4Addr::new(10, 0, 0, 1).into()), of(1));
    assert!((0..100).any(|n| place("test", Ipv4Addr::from(0x0a00_0000 + n).into()) != of(n)));
    for share in [0, 1, 10, 30, 50, 100] {
        let within = (0..10_000).filter(|n| is_within(of(*n), share)).count();
        assert!(within.abs_diff(usize::from(share) * 100) < 150, "{share}: {within}");
        let stays = |n: &u32| is_within(of(*n), share);
        assert!(
            (0..1_000).filter(stays).all(|n| is_within(of(n), share.max(30))),
            "a greater share keeps all"
        );
    }
}

#[test]
fn the_next_side_has_failed_too_often_past_its_part_and_a_least_number() {
    let table = [
        // Sends, failures, stop_at, past.
        (4, 4, "1%", false),
        (5, 5, "1%", true),
        (500, 5, "1%", false),
        (499, 5, "1%", true),
        (100_000, 1_000, "1%", false),
        (100_000, 1_001, "1%", true),
        (1_000, 5, "0%", true),
        (1_000, 0, "0%", false),
        (1_000, 1_000, "100%", false),
        (u32::MAX, u32::MAX, "99.99%", true),
    ];
    for (sends, failures, stop_at, want) in table {
        let part = Part::parse(stop_at).expect(stop_at);
        assert_eq!(Tally { sends, failures }.is_past(part), want, "{failures} of {sends} at {stop_at}");
    }
}

#[test]
fn a_minute_forgets_what_is_older_and_what_a_clock_left_in_the_future() {
    let mut minute = Minute::default();
    let failed = Tally { sends: 1, failures: 1 };
    minute.count(UnixTime(1_000), failed);
    minute.count(UnixTime(1_030), Tally { sends: 2, failures: 0 });
    assert_eq!(minute.sum(UnixTime(1_030)), Tally { sends: 3, failures: 1 });
    assert_eq!(minute.sum(UnixTime(1_060)), Tally { sends: 2, failures: 0 });
    assert_eq!(minute.sum(UnixTime(1_090)), Tally::default());
    assert_eq!(minute.sum(UnixTime(999)), Tally::default(), "the clock was set back");
    minute.count(UnixTime(1_060), failed);
    assert_eq!(minute.sum(UnixTime(1_060)), Tally { sends: 3, failures: 1 }, "its slot was another second's");
    minute.count(UnixTime(-5), failed);
    assert_eq!(minute.sum(UnixTime(-5)), failed);
}

#[test]
fn failures_of_one_network_are_bounded_unless_it_sends_most() {
    let (nothing, better) = (Proof::Nothing, Proof::Better);
    let table = [
        ((10, 2), 1_000, nothing, true),
        ((10, 3), 1_000, nothing, false),
        ((10, 3), 1_000, better, false),
        ((500, 3), 1_000, better, false),
        ((501, 3), 1_000, better, true),
        ((1_000, 3), 1_000, nothing, false),
    ];
    for ((sends, failures), all, proof, want) in table {
        let (of_network, all) = (Tally { sends, failures }, Tally { sends: all, failures });
        assert_eq!(counts(of_network, all, proof), want, "{of_network:?} {all:?} {proof:?}");
    }
}

#[test]
fn a_network_is_forgotten_after_a_minute() {
    let mut networks = Networks::default();
    let network = IpAddr::from([10, 0, 0, 1]);
    let one = Tally { sends: 1, failures: 1 };
    let mut count = |network, at| networks.count(network, one, UnixTime(at)).failures;
    assert_eq!([count(network, 100), count(network, 159), count(network, 160)], [1, 2, 1]);
    assert_eq!(count(IpAddr::from([10, 0, 0, 2]), 160), 1, "another one's");
    assert_eq!(count(network, 99), 1, "a clock that was set back");
}
