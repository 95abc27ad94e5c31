//! Metrics in the text format of `OpenMetrics`: the workers' counters summed, endpoints and keys as they are now.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text::encode},
    metrics::MetricType,
    registry::Registry,
};

use super::counters::{BOUNDS, Counters, ROUTES, STATUSES};
use crate::{
    edges::{
        signer::{self, Latency},
        store::Health,
    },
    words::reason::{Outcome, Reason, Rescue},
};

/// What a scrape shows beside the workers' counters.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// Keys of the ring: name and state.
    pub keys: Vec<(String, &'static str)>,
    /// `exp` of the last of a key's tokens that were seen, Unix seconds.
    pub key_expiries: Vec<(String, i64)>,
    /// When the open upgrade window closes, Unix seconds; 0 = none is open.
    pub window_until: i64,
    /// Processes that share the store and live, this one among them.
    pub replicas: usize,
    /// Endpoints: name, whether healthy, held keys, open connections are the workers' own.
    pub endpoints: Vec<(String, bool, Vec<String>)>,
    /// Signatures made since the start.
    pub signatures: u64,
    /// How long signatures took, by where they were made.
    pub signing: Vec<(String, Latency)>,
    /// Jobs' present waiting time, seconds.
    pub signing_delay: f64,
    /// Requests that wait for an endpoint.
    pub parked: usize,
    /// Uploads that found no room to be kept.
    pub uploads_not_kept: u64,
    /// Bytes of uploads in the spool.
    pub spooled: u64,
    /// Token answers in memory.
    pub answers: u64,
    /// Credentials for replay in memory.
    pub replays: u64,
    /// Grants of Harbor's that grace may give again.
    pub grants: u64,
    /// Connections refused because all places were taken.
    pub connections_refused: u64,
    /// Alarms that stand.
    pub alarms: u64,
    /// The store; `None` = memory.
    pub store: Option<Health>,
    /// Peers: name, and whether its last answer was good.
    pub peers: Vec<(String, bool)>,
    /// The move to the next side; `None` = there is none.
    pub ramp: Option<RampGauges>,
    /// Robots with a former secret, and requests with it since the start.
    pub former_secrets: Vec<(String, u64)>,
}

/// The move to the next side.
#[derive(Clone, Copy, Debug, Default)]
pub struct RampGauges {
    /// Percent of clients that go there now.
    pub share: u8,
    /// Whether all go to the current side.
    pub stopped: bool,
    /// Requests to the current side, and to the next one.
    pub requests: [u64; 2],
    /// Those that failed at the next side.
    pub failed: u64,
}

/// One family of metrics: how it is documented and exposed.
pub struct Family {
    /// Name without suffix.
    pub name: &'static str,
    /// Help text.
    pub help: &'static str,
    /// Labels, in their order.
    pub labels: &'static [&'static str],
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
}

/// All families, in the order in which they are exposed; `docs/metrics.md` is made of it.
pub const FAMILIES: [Family; 38] = [
    Family {
        name: "tidegate_requests",
        help: "Answered requests",
        labels: &["route", "status"],
        kind: "counter",
    },
    Family {
        name: "tidegate_request_duration_seconds",
        help: "From a request's head to its answer's end",
        labels: &["route"],
        kind: "histogram",
    },
    Family {
        name: "tidegate_outcomes",
        help: "Requests by what became of them",
        labels: &["outcome"],
        kind: "counter",
    },
    Family {
        name: "tidegate_rescued_requests",
        help: "Requests that would have failed",
        labels: &["reason"],
        kind: "counter",
    },
    Family {
        name: "tidegate_would_rescue",
        help: "Refusals of Harbor's in observe mode that enforce mode would have rescued; replays aren't counted",
        labels: &["reason"],
        kind: "counter",
    },
    Family {
        name: "tidegate_rejections",
        help: "Requests or tokens refused by us",
        labels: &["reason"],
        kind: "counter",
    },
    Family {
        name: "tidegate_connections",
        help: "Open connections from clients",
        labels: &[],
        kind: "gauge",
    },
    Family {
        name: "tidegate_connections_refused",
        help: "Connections closed because limits.connections were open",
        labels: &[],
        kind: "counter",
    },
    Family { name: "tidegate_received_bytes", help: "Bytes of request bodies", labels: &[], kind: "counter" },
    Family { name: "tidegate_sent_bytes", help: "Bytes of answers' bodies", labels: &[], kind: "counter" },
    Family {
        name: "tidegate_token_cache_hits",
        help: "Tokens whose verification was in memory",
        labels: &[],
        kind: "counter",
    },
    Family {
        name: "tidegate_token_cache_misses",
        help: "Tokens that were verified",
        labels: &[],
        kind: "counter",
    },
    Family {
        name: "tidegate_token_answers",
        help: "Token requests by where their answer came from",
        labels: &["from"],
        kind: "counter",
    },
    Family { name: "tidegate_signatures", help: "Tokens signed again", labels: &[], kind: "counter" },
    Family {
        name: "tidegate_signature_duration_seconds",
        help: "How long signatures were waited for: those of key files are made in `memory`, others in the token that the source names",
        labels: &["place"],
        kind: "histogram",
    },
    Family {
        name: "tidegate_signing_delay_seconds",
        help: "How long a signature asked for now would wait that is made in memory",
        labels: &[],
        kind: "gauge",
    },
    Family {
        name: "tidegate_parked_requests",
        help: "Requests that wait for an endpoint",
        labels: &[],
        kind: "gauge",
    },
    Family {
        name: "tidegate_uploads_not_kept",
        help: "Uploads that found no room to be kept: a cut ends them",
        labels: &[],
        kind: "counter",
    },
    Family {
        name: "tidegate_spool_bytes",
        help: "Bytes of uploads in the spool",
        labels: &[],
        kind: "gauge",
    },
    Family { name: "tidegate_kept", help: "Entries in memory", labels: &["what"], kind: "gauge" },
    Family {
        name: "tidegate_key_state",
        help: "1 for the state that a key is in",
        labels: &["kid", "state"],
        kind: "gauge",
    },
    Family {
        name: "tidegate_key_latest_expiry_seconds",
        help: "Unix time at which the last of a key's tokens that were issued or met ends, on all replicas",
        labels: &["kid"],
        kind: "gauge",
    },
    Family {
        name: "tidegate_window_until_seconds",
        help: "Unix time at which the open upgrade window closes; 0 while none is open",
        labels: &[],
        kind: "gauge",
    },
    Family {
        name: "tidegate_replicas",
        help: "Processes that share the store and live, this one among them",
        labels: &[],
        kind: "gauge",
    },
    Family {
        name: "tidegate_endpoint_up",
        help: "1 where an endpoint takes requests",
        labels: &["endpoint"],
        kind: "gauge",
    },
    Family {
        name: "tidegate_endpoint_held_key",
        help: "1 for each key that an endpoint holds",
        labels: &["endpoint", "kid"],
        kind: "gauge",
    },
    Family {
        name: "tidegate_peer_up",
        help: "1 where a peer's last answer told its keys",
        labels: &["peer"],
        kind: "gauge",
    },
    Family {
        name: "tidegate_alarms",
        help: "Faults that an operator should mend",
        labels: &[],
        kind: "gauge",
    },
    Family {
        name: "tidegate_store_degraded_since_seconds",
        help: "Unix time since when the store doesn't do what it is asked; 0 while it does, no sample without a store",
        labels: &[],
        kind: "gauge",
    },
    Family {
        name: "tidegate_store_waiting_changes",
        help: "Changes that the store hasn't taken yet",
        labels: &[],
        kind: "gauge",
    },
    Family {
        name: "tidegate_store_dropped_changes",
        help: "Changes that were given up, for want of room or because a record that doesn't open has their place",
        labels: &[],
        kind: "counter",
    },
    Family {
        name: "tidegate_store_unopened_records",
        help: "Records of the store whose seal doesn't open; they count as not there and stay where they are",
        labels: &[],
        kind: "gauge",
    },
    Family {
        name: "tidegate_former_secret_requests",
        help: "Requests with a robot's former secret that were taken; no sample for robots without one",
        labels: &["robot"],
        kind: "counter",
    },
    Family {
        name: "tidegate_ramp_share_ratio",
        help: "Part of clients that the ramp sends to the next side now; no sample without a ramp",
        labels: &[],
        kind: "gauge",
    },
    Family {
        name: "tidegate_ramp_stopped",
        help: "1 while the ramp is stopped, by failures or by an operator, and all go to the current side",
        labels: &[],
        kind: "gauge",
    },
    Family {
        name: "tidegate_ramp_requests",
        help: "Requests by the side that they went to, or should have, while there is a ramp",
        labels: &["side"],
        kind: "counter",
    },
    Family {
        name: "tidegate_ramp_failures",
        help: "Requests that failed at the next side: no connection, no answer, 5xx, an empty token, a refusal of a token that must be good; clients see few of them",
        labels: &[],
        kind: "counter",
    },
    Family {
        name: "tidegate_log_lines_dropped",
        help: "Access log lines dropped because the writer was behind",
        labels: &[],
        kind: "counter",
    },
];

/// Writes all metrics.
pub fn text(workers: &[Arc<Counters>], gauges: Gauges) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape { workers: workers.to_vec(), gauges }));
    let mut out = String::new();
    encode(&mut out, &registry)?;
    Ok(out)
}

#[derive(Debug)]
struct Scrape {
    workers: Vec<Arc<Counters>>,
    gauges: Gauges,
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counters").finish_non_exhaustive()
    }
}

type Samples<'a> = Vec<(Vec<(&'static str, &'a str)>, f64)>;

impl Scrape {
    fn sum(&self, of: impl Fn(&Counters) -> u64) -> f64 {
        self.workers.iter().map(|w| of(w)).sum::<u64>() as f64
    }

    fn closed_list<T: Copy>(
        &self,
        label: &'static str,
        all: &'static [T],
        name: impl Fn(T) -> &'static str,
        of: impl Fn(&Counters, T) -> u64,
    ) -> Samples<'_> {
        all.iter().map(|item| (vec![(label, name(*item))], self.sum(|w| of(w, *item)))).collect()
    }

    fn samples(&self, family: &str) -> Samples<'_> {
        let g = &self.gauges;
        let one = |value: f64| vec![(Vec::new(), value)];
        match family {
            "tidegate_outcomes" => {
                self.closed_list("outcome", Outcome::ALL, Outcome::name, Counters::outcomes)
            }
            "tidegate_rescued_requests" => {
                self.closed_list("reason", Rescue::ALL, Rescue::name, Counters::rescues)
            }
            "tidegate_would_rescue" => {
                self.closed_list("reason", Rescue::ALL, Rescue::name, Counters::would_rescues)
            }
            "tidegate_rejections" => self.closed_list("reason", Reason::ALL, Reason::name, Counters::reasons),
            "tidegate_connections" => one(self.sum(|w| w.connections.load(Relaxed))),
            "tidegate_connections_refused" => one(g.connections_refused as f64),
            "tidegate_received_bytes" => one(self.sum(|w| w.bytes_up.load(Relaxed))),
            "tidegate_sent_bytes" => one(self.sum(|w| w.bytes_down.load(Relaxed))),
            "tidegate_token_cache_hits" => one(self.sum(|w| w.token_hits.load(Relaxed))),
            "tidegate_token_cache_misses" => one(self.sum(|w| w.token_misses.load(Relaxed))),
            "tidegate_token_answers" => vec![
                (vec![("from", "memory")], self.sum(|w| w.answer_hits.load(Relaxed))),
                (vec![("from", "harbor")], self.sum(|w| w.answer_misses.load(Relaxed))),
            ],
            "tidegate_signatures" => one(g.signatures as f64),
            "tidegate_signing_delay_seconds" => one(g.signing_delay),
            "tidegate_parked_requests" => one(g.parked as f64),
            "tidegate_uploads_not_kept" => one(g.uploads_not_kept as f64),
            "tidegate_spool_bytes" => one(g.spooled as f64),
            "tidegate_kept" => vec![
                (vec![("what", "token_answers")], g.answers as f64),
                (vec![("what", "replay_credentials")], g.replays as f64),
                (vec![("what", "grants")], g.grants as f64),
            ],
            "tidegate_key_state" => g
                .keys
                .iter()
                .map(|(kid, state)| (vec![("kid", kid.as_str()), ("state", *state)], 1.0))
                .collect(),
            "tidegate_key_latest_expiry_seconds" => {
                g.key_expiries.iter().map(|(kid, at)| (vec![("kid", kid.as_str())], *at as f64)).collect()
            }
            "tidegate_window_until_seconds" => one(g.window_until as f64),
            "tidegate_replicas" => one(g.replicas as f64),
            "tidegate_endpoint_up" => g
                .endpoints
                .iter()
                .map(|(name, up, _)| (vec![("endpoint", name.as_str())], f64::from(u8::from(*up))))
                .collect(),
            "tidegate_endpoint_held_key" => g
                .endpoints
                .iter()
                .flat_map(|(name, _, kids)| {
                    kids.iter()
                        .map(move |kid| (vec![("endpoint", name.as_str()), ("kid", kid.as_str())], 1.0))
                })
                .collect(),
            "tidegate_peer_up" => g
                .peers
                .iter()
                .map(|(name, up)| (vec![("peer", name.as_str())], f64::from(u8::from(*up))))
                .collect(),
            "tidegate_alarms" => one(g.alarms as f64),
            "tidegate_store_degraded_since_seconds" => {
                self.of_store(|s| s.degraded.as_ref().map_or(0.0, |(since, _)| since.0 as f64))
            }
            "tidegate_store_waiting_changes" => self.of_store(|s| s.waiting as f64),
            "tidegate_store_dropped_changes" => self.of_store(|s| s.dropped as f64),
            "tidegate_store_unopened_records" => self.of_store(|s| s.unopened_count as f64),
            "tidegate_former_secret_requests" => {
                let used = g.former_secrets.iter();
                used.map(|(robot, count)| (vec![("robot", robot.as_str())], *count as f64)).collect()
            }
            "tidegate_ramp_share_ratio" => self.of_ramp(|r| f64::from(r.share) / 100.0),
            "tidegate_ramp_stopped" => self.of_ramp(|r| f64::from(u8::from(r.stopped))),
            "tidegate_ramp_requests" => {
                let sides = |r: &RampGauges| ["current", "next"].into_iter().zip(r.requests);
                let all = g.ramp.iter().flat_map(sides);
                all.map(|(side, count)| (vec![("side", side)], count as f64)).collect()
            }
            "tidegate_ramp_failures" => self.of_ramp(|r| r.failed as f64),
            "tidegate_log_lines_dropped" => one(self.sum(|w| w.log_dropped.load(Relaxed))),
            _ => Vec::new(),
        }
    }

    fn of_store(&self, of: impl Fn(&Health) -> f64) -> Samples<'_> {
        self.gauges.store.iter().map(|health| (Vec::new(), of(health))).collect()
    }

    fn of_ramp(&self, of: impl Fn(&RampGauges) -> f64) -> Samples<'_> {
        self.gauges.ramp.iter().map(|ramp| (Vec::new(), of(ramp))).collect()
    }

    fn requests(&self) -> BTreeMap<(usize, usize), u64> {
        let mut all = BTreeMap::new();
        for worker in &self.workers {
            for route in 0..ROUTES.len() {
                for place in 0..STATUSES {
                    let count = worker.requests(route, place);
                    if count > 0 {
                        *all.entry((route, place)).or_insert(0) += count;
                    }
                }
            }
        }
        all
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &FAMILIES {
            let kind = match family.kind {
                "counter" => MetricType::Counter,
                "gauge" => MetricType::Gauge,
                _ => MetricType::Histogram,
            };
            self.family(family, encoder.encode_descriptor(family.name, family.help, None, kind)?)?;
        }
        Ok(())
    }
}

impl Scrape {
    fn family(&self, family: &Family, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        match family.name {
            "tidegate_requests" => {
                for ((route, place), count) in self.requests() {
                    let status = (place + 100).to_string();
                    let labels = [("route", ROUTES[route]), ("status", status.as_str())];
                    encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
                }
            }
            "tidegate_request_duration_seconds" => {
                for (route, name) in ROUTES.iter().enumerate() {
                    let (buckets, sum) = self.durations(route);
                    let count = buckets.iter().map(|(_, n)| n).sum();
                    let labels = [("route", *name)];
                    encoder
                        .encode_family(&labels)?
                        .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
                }
            }
            "tidegate_signature_duration_seconds" => {
                for (place, latency) in &self.gauges.signing {
                    let buckets: Vec<_> = signer::BOUNDS.into_iter().zip(latency.buckets).collect();
                    let (sum, labels) = (latency.total.as_secs_f64(), [("place", place.as_str())]);
                    let mut encoder = encoder.encode_family(&labels)?;
                    encoder.encode_histogram::<NoLabelSet>(sum, latency.count(), &buckets, None)?;
                }
            }
            name => {
                for (labels, value) in self.samples(name) {
                    let mut encoder = encoder.encode_family(&labels)?;
                    if family.kind == "counter" {
                        encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
                    } else {
                        encoder.encode_gauge(&value)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn durations(&self, route: usize) -> (Vec<(f64, u64)>, f64) {
        let bounds = BOUNDS.iter().copied().chain([f64::INFINITY]);
        let mut buckets: Vec<(f64, u64)> = bounds.map(|bound| (bound, 0)).collect();
        let mut seconds = 0.0;
        for worker in &self.workers {
            let (counts, sum) = worker.durations(route);
            seconds += sum;
            buckets.iter_mut().zip(counts).for_each(|(bucket, count)| bucket.1 += count);
        }
        (buckets, seconds)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;

    use super::*;

    #[test]
    fn every_family_is_exposed_and_ends_as_openmetrics_does() {
        let worker = Counters::default();
        worker.answered(0, StatusCode::OK, Duration::from_millis(3), Outcome::Rescued);
        worker.rescued(Rescue::Resign);
        let gauges = Gauges {
            keys: vec![("KID".into(), "signing")],
            endpoints: vec![("core".into(), true, vec!["KID".into()])],
            ..Gauges::default()
        };
        let text = text(&[Arc::new(worker)], gauges).expect("text");
        for line in [
            "tidegate_requests_total{route=\"registry\",status=\"200\"} 1",
            "tidegate_rescued_requests_total{reason=\"resign\"} 1",
            "tidegate_endpoint_held_key{endpoint=\"core\",kid=\"KID\"} 1",
            "tidegate_request_duration_seconds_bucket{le=\"0.005\",route=\"registry\"} 1",
            "tidegate_request_duration_seconds_bucket{le=\"+Inf\",route=\"registry\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        for family in &FAMILIES {
            assert!(text.contains(&format!("# HELP {} ", family.name)), "{}", family.name);
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
