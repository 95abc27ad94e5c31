//! Keys from afar, as the settings have them: peers and JWKS URLs.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::{Context as _, anyhow, bail};
use zeroize::Zeroizing;

use super::{
    config::{self, EndpointUrl, Host, KeyOrigin, KeySource, Material, Scheme, Settings},
    status, translate,
};
use crate::{
    decisions::{peer::proof::SecretFault, ring::SourceName},
    edges::{
        alarm::Alarm,
        distant::{
            Distant,
            fetch::Site,
            peers::{PeerSettings, PeerStatus, Peers, SecretSource},
            urls::Url,
        },
        key_source::KeyShelf,
        listener::own_addresses,
        tls::{self, ClientTls},
    },
    words::clock::Clock,
};

/// What an insecure exchange is called in alarms and by `check`.
pub const INSECURE: &str = "peers prove nothing to each other: whoever can answer in a peer's place can let its own keys verify here";
/// What mends it.
pub const INSECURE_REMEDY: &str = "set peers.secret_file on all of them, and remove insecure";

/// All of it; nobody is asked yet.
pub fn wire(settings: &Settings, keys: &Arc<KeyShelf>, clock: &Clock) -> anyhow::Result<Distant> {
    let peers = match peer_settings(settings, clock)? {
        Some(of) => Some(peers(of, settings, keys, clock)?),
        None => None,
    };
    if peers.as_ref().is_some_and(Peers::is_insecure) {
        tracing::warn!(peer.remedy = INSECURE_REMEDY, "{INSECURE}");
    }
    Ok(Distant::new(peers, urls(settings, clock)?, Arc::clone(keys), clock.clone()))
}

fn peers(
    of: PeerSettings,
    settings: &Settings,
    keys: &Arc<KeyShelf>,
    clock: &Clock,
) -> anyhow::Result<Peers> {
    let place = match &settings.peers.secret {
        Some(Material::File(path)) => path.display().to_string(),
        Some(Material::Inline(_)) | None => "peers.secret".to_owned(),
    };
    Peers::new(of, Arc::clone(keys), clock.clone())
        .map_err(|fault| anyhow!("{place}: {fault}; {}", SecretFault::REMEDY))
        .context("peers.secret_file")
}

/// `None` without a deployment's name, to which all of it belongs.
fn peer_settings(settings: &Settings, clock: &Clock) -> anyhow::Result<Option<PeerSettings>> {
    if settings.deployment.is_empty() {
        return Ok(None);
    }
    let of = &settings.peers;
    let tls = peer_tls(settings, clock)?;
    let site = |url: &EndpointUrl| site(url, tls.as_ref().filter(|_| url.scheme == Scheme::Https));
    Ok(Some(PeerSettings {
        deployment: settings.deployment.as_str().into(),
        sites: of.urls.iter().map(site).collect(),
        every: of.every,
        secret: of.secret.as_ref().map(secret),
        insecure: of.insecure,
        listeners: settings.listeners.iter().map(|listener| listener.address).collect::<Vec<SocketAddr>>(),
        addresses: own_addresses(),
        tls: tls.clone(),
    }))
}

fn secret(material: &Material) -> SecretSource {
    match material {
        Material::Inline(text) => SecretSource::Text(Zeroizing::new(text.expose().to_owned())),
        Material::File(path) => SecretSource::File(path.clone()),
    }
}

/// What is wrong with the shared secret, for `check`.
pub fn secret_fault(settings: &Settings) -> Option<(PathBuf, String, &'static str)> {
    let Some(Material::File(path)) = &settings.peers.secret else { return None };
    let fault = SecretSource::File(path.clone()).read().err()?;
    Some((path.clone(), fault.to_string(), SecretFault::REMEDY))
}

/// TLS to peers, if any has it.
pub fn peer_tls(settings: &Settings, clock: &Clock) -> anyhow::Result<Option<Arc<ClientTls>>> {
    let of = &settings.peers;
    if of.urls.iter().all(|url| url.scheme != Scheme::Https) {
        return Ok(None);
    }
    let pair = of.client.as_ref();
    let client = tls::ClientSettings {
        ca_file: of.ca.as_ref().map(path_of).transpose()?,
        certificate_file: pair.map(|(certificate, _)| path_of(certificate)).transpose()?,
        key_file: pair.map(|(_, key)| path_of(key)).transpose()?,
        server_name: of.server_name.clone(),
    };
    Ok(Some(Arc::new(tls::client(client, clock.now()).context("TLS of peers")?)))
}

/// The JWKS URLs among the sources of keys.
pub fn urls(settings: &Settings, clock: &Clock) -> anyhow::Result<Vec<Url>> {
    let url = |source: &KeySource| match &source.origin {
        KeyOrigin::JwksUrl(url, ca) => Some(jwks_url(source, url, ca.as_ref(), clock)),
        KeyOrigin::File(_) | KeyOrigin::Folder(_) | KeyOrigin::JwksFile(_) | KeyOrigin::Token(_) => None,
    };
    settings.keys.sources.iter().filter_map(url).collect()
}

fn jwks_url(
    source: &KeySource,
    url: &config::JwksUrl,
    ca: Option<&Material>,
    clock: &Clock,
) -> anyhow::Result<Url> {
    let client =
        tls::ClientSettings { ca_file: ca.map(path_of).transpose()?, ..tls::ClientSettings::default() };
    let is_https = url.endpoint.scheme == Scheme::Https;
    let tls = is_https.then(|| tls::client(client, clock.now())).transpose();
    let tls = tls.with_context(|| format!("TLS of {url}"))?.map(Arc::new);
    Ok(Url {
        name: SourceName::new(&url.to_string()),
        site: site(&url.endpoint, tls.as_ref()),
        target: url.path.as_str().into(),
        listing: translate::listing(source),
    })
}

fn site(url: &EndpointUrl, tls: Option<&Arc<ClientTls>>) -> Site {
    let host: Arc<str> = match &url.host {
        Host::Name(name) => name.as_str().into(),
        Host::Ip(ip) => ip.to_string().into(),
    };
    Site { host, port: url.port, tls: tls.cloned() }
}

fn path_of(material: &Material) -> anyhow::Result<PathBuf> {
    match material {
        Material::File(path) => Ok(path.clone()),
        Material::Inline(_) => bail!("certificates and keys of TLS are read from files"),
    }
}

/// What an operator should mend: certificates, the secret, peers that tell nothing.
pub fn alarms(distant: &Distant) -> Vec<status::Alarm> {
    let of_file = |a: Alarm| status::Alarm { subject: a.path, cause: a.cause, remedy: a.remedy.to_owned() };
    let files =
        distant.urls().alarms().into_iter().chain(distant.peers().map(Peers::alarms).unwrap_or_default());
    let mut alarms: Vec<_> = files.map(of_file).collect();
    let Some(peers) = distant.peers() else { return alarms };
    if peers.is_insecure() {
        let (cause, remedy) = (INSECURE.to_owned(), INSECURE_REMEDY.to_owned());
        alarms.push(status::Alarm { subject: "peers.insecure".to_owned(), cause, remedy });
    }
    alarms.extend(peers.statuses().into_iter().filter(|peer| peer.is_alarm).filter_map(|peer| {
        let subject = format!("peer {}", name(&peer));
        let (cause, remedy) = peer.trouble?;
        Some(status::Alarm { subject, cause, remedy: remedy.to_owned() })
    }));
    alarms
}

/// The address of a peer, or the URL that has none.
pub fn name(peer: &PeerStatus) -> String {
    peer.address.map_or_else(|| peer.url.clone(), |address| address.to_string())
}

/// Peers for `status`.
pub fn statuses(distant: &Distant) -> Vec<status::Peer> {
    let peer = |peer: PeerStatus| status::Peer {
        address: peer.address.map(|address| address.to_string()).unwrap_or_default(),
        heard_seconds_ago: peer.heard_ago.map(|ago| ago.as_secs()),
        keys: peer.keys.iter().map(ToString::to_string).collect(),
        fault: peer.trouble.map(|(cause, _)| cause),
        url: peer.url,
    };
    distant.peers().map(Peers::statuses).unwrap_or_default().into_iter().map(peer).collect()
}
