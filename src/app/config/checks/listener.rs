//! `[[listener]]`, and how listeners fit beside each other.

use std::net::SocketAddr;

use super::{Checker, file};
use crate::app::config::{
    address::AdminAddress,
    raw,
    settings::{Listener, ListenerTls, Scope, TlsVersion},
};

pub(super) fn listeners(c: &mut Checker<'_>, raw: Vec<raw::Listener>, admin: &AdminAddress) -> Vec<Listener> {
    if raw.is_empty() {
        c.fault(&["listener"], "an empty list", "at least one listener", "remove it for the default :8080");
    }
    let listeners: Vec<_> = raw.into_iter().enumerate().map(|(i, raw)| listener(c, i, raw)).collect();
    for (i, one) in listeners.iter().enumerate() {
        let key = format!("listener[{i}].address");
        if let Some(earlier) = listeners[..i].iter().position(|other| clash(one.address, other.address)) {
            let other = format!("listener[{earlier}].address");
            let found = format!("{}, where {other} listens already", one.address);
            c.fault(&[&key, &other], &found, "another port or address", "");
        }
        if matches!(admin, AdminAddress::Tcp(address) if clash(one.address, *address)) {
            let found = format!("{}, where the admin listener is", one.address);
            c.fault(&[&key, "admin.address"], &found, "another port", "set admin.address to another port");
        }
    }
    listeners
}

/// Can't both be bound: a port, and the same address or one that means all (of both families on Linux).
fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    let all = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && (all || a.ip() == b.ip())
}

fn listener(c: &mut Checker<'_>, i: usize, raw: raw::Listener) -> Listener {
    let table = format!("listener[{i}]");
    if raw.proxy_protocol && raw.trusted_proxies.is_empty() {
        c.fault(
            &[&format!("{table}.proxy_protocol"), &format!("{table}.trusted_proxies")],
            "a PROXY header asked for, and nobody who may send it",
            "the networks of the load balancers",
            "set trusted_proxies, such as [\"10.0.0.0/8\"]",
        );
    }
    Listener {
        address: raw.address.0,
        scope: match raw.scope {
            raw::Scope::Public => Scope::Public,
            raw::Scope::Cluster => Scope::Cluster,
        },
        http2: raw.http2,
        proxy_protocol: raw.proxy_protocol,
        trusted_proxies: raw.trusted_proxies.into_iter().map(|network| network.0).collect(),
        tls: raw.tls.and_then(|tls| listener_tls(c, &format!("{table}.tls"), &tls)),
    }
}

fn listener_tls(c: &mut Checker<'_>, table: &str, raw: &raw::ListenerTls) -> Option<ListenerTls> {
    if raw.certificate_file.is_empty() && raw.key_file.is_empty() {
        let remedy = "set certificate_file and key_file, or remove tls for a plain listener";
        c.fault(&[table], "TLS without a certificate", "a certificate and its key", remedy);
    }
    let pair = c.pair(table, &raw.certificate_file, &raw.key_file);
    let client_ca = file(&raw.client_ca_file);
    let min = match raw.min {
        raw::TlsVersion::V1_2 => TlsVersion::V1_2,
        raw::TlsVersion::V1_3 => TlsVersion::V1_3,
    };
    pair.map(|(certificate, key)| ListenerTls { certificate, key, client_ca, min })
}
