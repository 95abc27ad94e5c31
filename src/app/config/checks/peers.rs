//! `[peers]`.

use super::{Checker, file};
use crate::{
    app::config::{
        address::{EndpointUrl, Host, Scheme},
        amounts::Span,
        raw,
        secret::Material,
        settings::Peers,
    },
    decisions::peer::proof,
};

pub(super) fn peers(c: &mut Checker<'_>, raw: raw::Peers, deployment: &str) -> Peers {
    let every = c.at_least("peers.every", &raw.every, Span::millis(100));
    let mut urls: Vec<EndpointUrl> = Vec::new();
    for (i, url) in raw.urls.into_iter().map(|url| url.0).enumerate() {
        if urls.contains(&url) {
            let key = format!("peers.urls[{i}]");
            c.fault(&[&key], &format!("{url} twice"), "each peer once", "remove one of them");
        }
        urls.push(url);
    }
    let secret = c.material("peers.secret", raw.secret, raw.secret_file);
    if let Some(Material::Inline(text)) = &secret
        && let Err(fault) = proof::secrets(text.expose())
    {
        let expected = format!("{} characters or more", proof::SHORTEST);
        c.fault(&["peers.secret"], &fault.to_string(), &expected, proof::SecretFault::REMEDY);
    }
    let server_name = (!raw.server_name.is_empty()).then_some(raw.server_name);
    if server_name.as_deref().is_some_and(|name| Host::parse(name).is_none()) {
        c.fault(&["peers.server_name"], "no name of a host", "a DNS name or an address", "");
    }
    let peers = Peers {
        ca: file(&raw.ca_file),
        client: c.pair("peers", &raw.certificate_file, &raw.key_file),
        server_name,
        insecure: raw.insecure,
        urls,
        secret,
        every,
    };
    if deployment.is_empty() && (!peers.urls.is_empty() || peers.secret.is_some() || peers.insecure) {
        let remedy = "set deployment, the same on all peers, such as \"harbor\"";
        c.fault(&["deployment", "peers"], "no name, with peers", "a name", remedy);
    }
    proved(c, &peers);
    peers
}

/// Each side proves itself to the other, or that they don't is said aloud (A10).
fn proved(c: &mut Checker<'_>, peers: &Peers) {
    let has = |scheme| peers.urls.iter().any(|url| url.scheme == scheme);
    let has_certificates = peers.ca.is_some() || peers.client.is_some() || peers.server_name.is_some();
    if has_certificates && !has(Scheme::Https) {
        let keys = ["peers.ca_file", "peers.certificate_file", "peers.server_name", "peers.urls"];
        let remedy = "write https:// in peers.urls, or remove the certificates";
        c.fault(&keys, "TLS for peers of which no url begins with https", "an https:// url", remedy);
    }
    if peers.secret.is_some() || peers.insecure {
        return;
    }
    let keys = ["peers.urls", "peers.secret_file", "peers.insecure"];
    let expected = "a shared secret, or mutual TLS: https with ca_file, certificate_file and key_file";
    let remedy = "set peers.secret_file; insecure = true only where nobody else can answer in a peer's place";
    if has(Scheme::Http) {
        c.fault(&keys, "peers in the clear that prove nothing", expected, remedy);
    } else if has(Scheme::Https) && (peers.ca.is_none() || peers.client.is_none()) {
        c.fault(&keys, "peers by TLS that isn't mutual", expected, remedy);
    }
}
