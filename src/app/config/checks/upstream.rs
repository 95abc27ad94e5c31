//! `[upstream]`.

use super::{Checker, file};
use crate::app::config::{
    address::{EndpointUrl, Host, Scheme},
    amounts::Span,
    raw,
    settings::{Endpoint, Kind, Opaque, Pool, Probe, Side, Upstream, UpstreamTimeouts, UpstreamTls},
};

pub(super) fn upstream(c: &mut Checker<'_>, raw: raw::Upstream) -> Upstream {
    let endpoints = endpoints(c, raw.endpoints);
    let portal = raw.portal.0;
    let https = |url: &EndpointUrl| url.scheme == Scheme::Https;
    let encrypted =
        endpoints.iter().any(|endpoint| https(&endpoint.url)) || portal.as_ref().is_some_and(https);
    Upstream {
        kind: match raw.kind {
            raw::Kind::Harbor => Kind::Harbor,
            raw::Kind::Registry => Kind::Registry,
        },
        portal,
        endpoints,
        tls: upstream_tls(c, raw.tls, encrypted),
        resolve_every: c.at_least("upstream.resolve_every", &raw.resolve_every, Span::millis(100)),
        probe: probe(c, &raw.probe),
        pool: Pool { idle: raw.pool.idle.0.duration(), per_endpoint: raw.pool.per_endpoint.get() },
        timeouts: UpstreamTimeouts {
            connect: c.at_least("upstream.timeouts.connect", &raw.timeouts.connect, Span::millis(1)),
            token: c.at_least("upstream.timeouts.token", &raw.timeouts.token, Span::millis(1)),
            api: c.at_least("upstream.timeouts.api", &raw.timeouts.api, Span::millis(1)),
            registry: c.at_least("upstream.timeouts.registry", &raw.timeouts.registry, Span::millis(1)),
        },
    }
}

fn endpoints(c: &mut Checker<'_>, raw: Vec<raw::Endpoint>) -> Vec<Endpoint> {
    if raw.is_empty() {
        let remedy = "write [{ url = \"http://core:8080\" }]";
        c.fault(&["upstream.endpoints"], "an empty list", "at least one endpoint", remedy);
    }
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for (i, raw) in raw.into_iter().enumerate() {
        let key = format!("upstream.endpoints[{i}].url");
        let Some(url) = raw.url.0 else {
            c.fault(&[&key], "no url", "the url of Harbor core", "set url, such as \"http://core:8080\"");
            continue;
        };
        if endpoints.iter().any(|earlier| earlier.url == url) {
            c.fault(&[&key], &format!("{url} twice"), "each endpoint once", "remove one of them");
        }
        let opaque = match raw.opaque {
            raw::Opaque::Auto => Opaque::Auto,
            raw::Opaque::Yes => Opaque::Yes,
            raw::Opaque::No => Opaque::No,
        };
        let side = if raw.side == raw::Side::Next { Side::Next } else { Side::Current };
        endpoints.push(Endpoint { url, opaque, side });
    }
    endpoints
}

fn upstream_tls(c: &mut Checker<'_>, raw: raw::UpstreamTls, encrypted: bool) -> UpstreamTls {
    let server_name = (!raw.server_name.is_empty()).then_some(raw.server_name);
    if server_name.as_deref().is_some_and(|name| Host::parse(name).is_none()) {
        c.fault(&["upstream.tls.server_name"], "no name of a host", "a DNS name or an address", "");
    }
    let tls = UpstreamTls {
        ca: file(&raw.ca_file),
        client: c.pair("upstream.tls", &raw.certificate_file, &raw.key_file),
        server_name,
    };
    let given = tls.ca.is_some() || tls.client.is_some() || tls.server_name.is_some();
    if given && !encrypted {
        c.fault(
            &["upstream.tls", "upstream.endpoints", "upstream.endpoints[0].url"],
            "TLS for an upstream of which no url begins with https",
            "an https:// endpoint or portal",
            "write https:// in upstream.endpoints, or remove upstream.tls",
        );
    }
    tls
}

fn probe(c: &mut Checker<'_>, raw: &raw::Probe) -> Probe {
    let probe = Probe {
        every: c.at_least("upstream.probe.every", &raw.every, Span::millis(100)),
        in_window: c.at_least("upstream.probe.in_window", &raw.in_window, Span::millis(100)),
        timeout: c.at_least("upstream.probe.timeout", &raw.timeout, Span::millis(1)),
    };
    if probe.in_window > probe.every {
        c.fault(
            &["upstream.probe.in_window", "upstream.probe.every"],
            "probes rarer in a window than outside it",
            "at most upstream.probe.every",
            "",
        );
    }
    probe
}
