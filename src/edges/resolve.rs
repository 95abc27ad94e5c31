//! Endpoints by name: each address of a name is one endpoint, looked up again and again.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::sync::{Notify, watch};

use arc_swap::ArcSwap;

use crate::decisions::ramp::Side;

use super::{
    fleet::{NewEndpoint, Opaque, Shelf, Status, UpstreamTls},
    tls::ClientTls,
};

/// One configured endpoint.
#[derive(Clone)]
pub struct Named {
    /// Host name or address, without brackets.
    pub host: Arc<str>,
    /// Port.
    pub port: u16,
    /// See [`Opaque`].
    pub opaque: Opaque,
    /// TLS towards it.
    pub tls: Option<Arc<UpstreamTls>>,
    /// Whether it is one to move to.
    pub side: Side,
}

/// All configured endpoints.
#[derive(Clone, Default)]
pub struct Names {
    /// Core's.
    pub cores: Vec<Named>,
    /// The portal's; empty where everything goes to core.
    pub portal: Vec<Named>,
}

impl Names {
    /// The TLS that they share.
    pub fn client(&self) -> Option<Arc<ClientTls>> {
        self.cores.iter().chain(&self.portal).find_map(|n| n.tls.as_ref().map(|tls| tls.client.clone()))
    }
}

impl Named {
    /// The authority for `Host`, brackets around IPv6.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// Puts the addresses of all names on the shelf. A name that can't be looked up keeps the addresses it had.
/// Gives back whether anything changed, and what could not be looked up.
pub async fn resolve(shelf: &Shelf, names: &Names) -> (bool, Vec<String>) {
    let mut failures = Vec::new();
    let mut changed = false;
    for (names, is_portal) in [(&names.cores, false), (&names.portal, true)] {
        let mut wanted = Vec::new();
        for named in names {
            match look_up(named).await {
                Ok(addresses) => wanted.extend(addresses.into_iter().map(|address| (named, address))),
                Err(error) => {
                    failures.push(format!("{}: {error}", named.authority()));
                    let snapshot = shelf.snapshot();
                    let present = if is_portal { &snapshot.portal } else { &snapshot.statuses };
                    let kept = present.iter().filter(|s| *s.endpoint.authority == named.authority());
                    wanted.extend(kept.map(|s| (named, s.endpoint.address)));
                }
            }
        }
        changed |= place(shelf, &wanted, is_portal);
    }
    (changed, failures)
}

fn place(shelf: &Shelf, wanted: &[(&Named, SocketAddr)], is_portal: bool) -> bool {
    let snapshot = shelf.snapshot();
    let present = if is_portal { &snapshot.portal } else { &snapshot.statuses };
    let same = present.len() == wanted.len()
        && present.iter().zip(wanted).all(|(s, (named, address))| is(s, named, *address));
    if same {
        return false;
    }
    shelf.change(|snapshot| {
        let group = if is_portal { &mut snapshot.portal } else { &mut snapshot.statuses };
        let before = std::mem::take(group);
        for (named, address) in wanted {
            let kept = before.iter().find(|s| is(s, named, *address)).cloned();
            group.push(kept.unwrap_or_else(|| new_status(shelf, named, *address)));
        }
    });
    true
}

/// Whether nothing about it has changed: another scheme, opacity or side makes another endpoint.
fn is(status: &Status, named: &Named, address: SocketAddr) -> bool {
    let endpoint = &status.endpoint;
    endpoint.address == address
        && *endpoint.authority == named.authority()
        && endpoint.opaque == named.opaque
        && endpoint.side == named.side
        && same_tls(endpoint.tls.as_ref(), named.tls.as_ref())
}

fn same_tls(one: Option<&Arc<UpstreamTls>>, other: Option<&Arc<UpstreamTls>>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => Arc::ptr_eq(&one.client, &other.client) && one.name == other.name,
        (None, Some(_)) | (Some(_), None) => false,
    }
}

fn new_status(shelf: &Shelf, named: &Named, address: SocketAddr) -> Status {
    let authority: Arc<str> = named.authority().into();
    let literal = named.host.parse::<std::net::IpAddr>().is_ok();
    let name: Arc<str> =
        if literal { authority.clone() } else { format!("{authority}@{}", address.ip()).into() };
    let (tls, opaque, side) = (named.tls.clone(), named.opaque, named.side);
    shelf.new_status(NewEndpoint { name, address, tls, opaque, authority, side })
}

async fn look_up(named: &Named) -> std::io::Result<Vec<SocketAddr>> {
    let found = tokio::net::lookup_host((&*named.host, named.port)).await?;
    let mut addresses: Vec<SocketAddr> = found.collect();
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() { Err(std::io::Error::other("the name has no address")) } else { Ok(addresses) }
}

/// Looks up all names every `every`, and at once when told `now`, until `stop`; a change asks for a round of probes.
pub async fn run(
    shelf: Arc<Shelf>,
    names: Arc<ArcSwap<Names>>,
    every: Duration,
    now: Arc<Notify>,
    probe_now: Arc<Notify>,
    mut stop: watch::Receiver<bool>,
) {
    let mut told: Vec<String> = Vec::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = now.notified() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let (changed, failures) = resolve(&shelf, &names.load_full()).await;
        if changed {
            let addresses = shelf.snapshot().statuses.len();
            tracing::info!(endpoints = addresses, "the endpoints' addresses have changed");
            probe_now.notify_one();
        }
        if failures != told {
            for failure in &failures {
                tracing::warn!(cause = %failure, "an endpoint's name can't be looked up; its former addresses stay in use");
            }
            told = failures;
        }
    }
}
