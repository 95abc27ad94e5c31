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
fn failures_of_one_network_are_bounded_with_its_sends_unless_there_is_nobody_else_to_judge_by() {
    type Sent = (u32, u32);
    type Row = (&'static str, Sent, &'static [Sent], bool);
    let table: [Row; 12] = [
        // All sends and failures, those of the networks that failed most, past 1 %.
        ("one ingress, and nobody else", (5, 5), &[(5, 5)], true),
        ("one ingress after a busy minute", (1_011, 11), &[(1_011, 11)], true),
        ("one ingress beside some others", (1_000, 100), &[(600, 100)], true),
        ("one hostile among many", (1_000, 500), &[(500, 500)], false),
        ("one hostile, and who fails now and then", (2_000, 502), &[(500, 500), (100, 2)], false),
        ("two hostile among many", (2_000, 400), &[(200, 200), (200, 200)], false),
        ("two clients, both failed", (8, 8), &[(4, 4), (4, 4)], true),
        ("two of four clients failed", (400, 20), &[(100, 10), (100, 10)], true),
        ("four clients after a busy minute", (1_092, 12), &[(273, 3), (273, 3)], true),
        ("many clients, some of which failed", (1_000, 20), &[(10, 2), (10, 2)], true),
        ("many clients, few of which failed", (10_000, 20), &[(10, 10), (10, 10)], false),
        ("nobody's, as where it can't be reached", (10, 10), &[], true),
    ];
    for (what, (sends, failures), worst, want) in table {
        let of = |(sends, failures): &(u32, u32)| Tally { sends: *sends, failures: *failures };
        let worst: Vec<Tally> = worst.iter().map(of).collect();
        let judged = judged(Tally { sends, failures }, &worst);
        assert_eq!(judged.is_past(Part::percent(1)), want, "{what}: {judged:?}");
    }
}

fn network(n: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, n])
}

const SENT: Tally = Tally { sends: 1, failures: 0 };
const FAILED: Tally = Tally { sends: 1, failures: 1 };

/// A minute in which each of `clients` sends `good` requests that are served, then what is sent until the side is past 1 %.
fn sends_until_past(clients: u8, good: usize, mut more: impl FnMut(usize) -> (u8, Tally)) -> Option<usize> {
    let (mut networks, now) = (Networks::default(), UnixTime(1_000));
    for n in 0..clients {
        (0..good).for_each(|_| networks.count(Some(network(n)), SENT, now));
    }
    (1..=10_000).find(|sends| {
        let (n, tally) = more(*sends);
        networks.count(Some(network(n)), tally, now);
        networks.judged().is_past(Part::percent(1))
    })
}

#[test]
fn a_side_that_fails_everything_is_past_after_few_requests_whatever_was_before() {
    for clients in [1, 2, 3, 4, 8, 40, 200] {
        for good in [0, 5, 270, 1_000] {
            let turn = |n: usize| ((n % usize::from(clients)) as u8, FAILED);
            let sends = sends_until_past(clients, good, turn).expect("it is past");
            let most = 9 + usize::from(clients) * good / 50;
            assert!(sends <= most, "{clients} clients after {good} each: {sends}");
        }
    }
    assert_eq!(sends_until_past(1, 0, |_| (0, FAILED)), Some(5), "behind one address");
}

#[test]
fn one_hostile_network_among_many_is_never_enough() {
    for clients in [10, 40, 200] {
        let sends = |n: usize| {
            if n.is_multiple_of(2) { (250, FAILED) } else { ((n / 2 % clients) as u8, SENT) }
        };
        assert_eq!(sends_until_past(clients as u8, 10, sends), None, "{clients}: it sends half of all");
    }
}

#[test]
fn a_network_is_forgotten_after_a_minute_and_the_worst_are_found_again() {
    let mut networks = Networks::default();
    let judged = |networks: &mut Networks, at| {
        networks.count(None, Tally::default(), UnixTime(at));
        networks.judged()
    };
    for _ in 0..8 {
        networks.count(Some(network(1)), FAILED, UnixTime(100));
    }
    networks.count(Some(network(2)), Tally { sends: 100, failures: 0 }, UnixTime(125));
    let bounded = Tally { sends: 102, failures: 2 };
    assert_eq!([100, 129, 130, 159].map(|at| judged(&mut networks, at)), [bounded; 4]);
    networks.count(Some(network(1)), FAILED, UnixTime(159));
    assert_eq!(judged(&mut networks, 130), bounded, "a clock that comes late by a little");
    assert_eq!(judged(&mut networks, 160), FAILED, "what is older than half a minute before this one");
    assert_eq!(judged(&mut networks, 99), Tally::default(), "a clock that was set back");
    networks.count(Some(network(3)), FAILED, UnixTime(99));
    assert_eq!(judged(&mut networks, 159), Tally::default(), "a minute without anything");
}

#[test]
fn networks_beyond_those_told_apart_are_as_one_that_is_never_bounded() {
    let mut networks = Networks::default();
    let (now, of) = (UnixTime(0), |n: u32| Some(IpAddr::from(n.to_be_bytes())));
    (0..NETWORKS as u32).for_each(|n| networks.count(of(n), SENT, now));
    for _ in 0..3 {
        networks.count(of(0), FAILED, now);
    }
    (0..300).for_each(|n| networks.count(of(1_000_000 + n), FAILED, now));
    assert_eq!(networks.judged(), Tally { sends: 10_303 - 4 + 3, failures: 302 });
    assert_eq!(networks.halves.each_ref().map(HashMap::len), [NETWORKS + 1, 0]);
}

#[test]
fn a_client_that_leaves_unanswered_was_failed_by_who_kept_it_waiting() {
    let waited = |side, millis| Some((side, Duration::from_millis(millis)));
    let table = [
        // Failed before, without an answer of whom, what counts.
        (0, None, (0, 0)),
        (2, None, (0, 2)),
        (0, waited(Side::Next, 3_999), (0, 0)),
        (0, waited(Side::Next, 4_000), (1, 1)),
        (1, waited(Side::Next, 60_000), (1, 2)),
        (1, waited(Side::Current, 3_999), (0, 1)),
        (1, waited(Side::Current, 4_000), (0, 0)),
    ];
    for (failed, awaited, (sends, failures)) in table {
        assert_eq!(settled(failed, awaited), Tally { sends, failures }, "{failed} {awaited:?}");
    }
}
