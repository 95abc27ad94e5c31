//! Settings become the process's state.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, atomic::AtomicU64},
};

use anyhow::{Context as _, bail};
use arc_swap::ArcSwap;
use aws_lc_rs::{
    hmac,
    rand::{self, SystemRandom},
};

use crate::{
    app::{
        config::{self, Material, Settings},
        distant, translate,
    },
    decisions::{grace::ends::ProcessId, token::verify::Rules},
    edges::{
        alarm::Alarm,
        fleet::{Opaque, Scheme, Shelf, UpstreamTls},
        key_source::{self, KeyShelf},
        resolve::{Named, Names},
        signer::Signer,
        spool::Spool,
        tls,
    },
    flow::{
        budget::Budget,
        connection::Door,
        context::{Policy, Shared, Upstream},
        evidence::Evidences,
        formers::{self, Formers},
        grace::Graces,
        kept::Stores,
        known::KnownTokens,
        outages::Outages,
        own_token::OwnTokens,
        park::Lot,
        pings::Pings,
        plain::Plain,
        ramps::Ramps,
        replay::Replays,
        revocations::Revocations,
        strangers::{InVain, Strangers},
        token_service::{Answers, WrongCredentials},
        uploads::Uploads,
        windows::UpgradeWindows,
    },
    words::clock::Clock,
};

/// Verified tokens in memory at most, and 256 MiB of them.
const KNOWN_TOKENS: u64 = 100_000;
/// Token answers in memory at most.
const ANSWERS: u64 = 100_000;
/// Threads that sign.
const SIGNERS: usize = 2;

/// Everything that serving needs.
pub(super) struct Wired {
    pub(super) shared: Arc<Shared>,
    pub(super) names: Arc<ArcSwap<Names>>,
    pub(super) doors: Vec<Arc<Door>>,
    pub(super) alarms: Alarms,
}

/// Faults of certificates, asked for when somebody looks.
pub(super) type Alarms = Arc<dyn Fn() -> Vec<Alarm> + Send + Sync>;

/// Builds it all; nothing listens yet.
pub(super) fn wire(settings: &Settings, clock: &Clock) -> anyhow::Result<Wired> {
    let now = clock.now();
    let keys = Arc::new(KeyShelf::new(translate::policy(&settings.keys), translate::sources(&settings.keys)));
    keys.set_keeps_private(settings.keys.keep_private);
    let alarms = key_source::load_once(&keys, now);
    if let Some(alarm) = alarms.iter().find(|alarm| alarm.forbids_start) {
        bail!("{}: {}; {}", alarm.path, alarm.cause, alarm.remedy);
    }
    let random = SystemRandom::new();
    let fresh_key = || hmac::Key::generate(hmac::HMAC_SHA256, &random).context("no randomness");
    let limits = &settings.limits;
    let distant = Arc::new(distant::wire(settings, &keys, clock)?);
    let lot = Arc::new(Lot::new(settings.park.requests, settings.park.bytes));
    let shared = Arc::new(Shared {
        deployment: settings.deployment.clone().into(),
        keys,
        fleet: Arc::new(Shelf::default()),
        policy: ArcSwap::from_pointee(policy(settings)),
        known: KnownTokens::new(fresh_key()?, KNOWN_TOKENS),
        revocations: Arc::<Revocations>::default(),
        windows: Arc::new(UpgradeWindows::new(translate::windows(&settings.grace))),
        evidence: Arc::<Evidences>::default(),
        replays: Replays::new(settings.replay.entries as u64),
        own: OwnTokens::new(&settings.deployment).ok().context("no randomness")?,
        formers: Formers::new(fresh_key()?),
        graces: Arc::new(Graces::new(process_id()?, ANSWERS)),
        pings: Pings::default(),
        ramps: Ramps::default(),
        answers: Arc::new(Answers::new(fresh_key()?, ANSWERS)),
        wrong: WrongCredentials::new(
            fresh_key()?,
            limits.wrong_credentials.count.get(),
            limits.wrong_credentials.per,
        ),
        signer: Signer::start(SIGNERS).context("the signing threads did not start")?,
        heads: Arc::new(Budget::new(settings.uploads.heads_total)),
        uploads: Uploads::new(stores(&settings.uploads)?),
        outages: Outages::new(Lot::beside(&lot)),
        lot,
        clock: clock.clone(),
        probe_now: Arc::default(),
        lifetime_seen: AtomicU64::new(0),
        auth_mode: OnceLock::new(),
        looked: Mutex::default(),
        looked_for_peers: Mutex::default(),
        plain: Plain::default(),
        distant,
        strangers: Strangers::default(),
        unsigned: InVain::default(),
    });
    shared.formers.configure(formers(settings), now);
    let upstream_tls = upstream_tls(settings, clock)?;
    let doors = settings
        .listeners
        .iter()
        .map(|l| door(l, clock).map(Arc::new))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let served: Vec<_> = doors.iter().filter_map(|d| d.tls.clone()).collect();
    let names = Arc::new(ArcSwap::from_pointee(names(settings, upstream_tls.as_ref())));
    let present = names.clone();
    let alarms: Alarms = Arc::new(move || {
        let of_doors = served.iter().flat_map(|tls| tls.alarms().to_vec());
        of_doors.chain(present.load().client().iter().flat_map(|tls| tls.alarms().to_vec())).collect()
    });
    Ok(Wired { shared, names, doors, alarms })
}

/// Former secrets of robots.
pub(super) fn formers(settings: &Settings) -> Vec<formers::Configured> {
    let of = |one: &config::FormerSecret| formers::Configured {
        name: one.name.clone(),
        hash_file: one.former_hash.clone(),
        present_file: one.present.clone(),
        until: one.until,
    };
    settings.credentials.iter().map(of).collect()
}

/// A number that no other process has.
fn process_id() -> anyhow::Result<ProcessId> {
    let mut bytes = [0; 8];
    rand::fill(&mut bytes).ok().context("no randomness")?;
    Ok(ProcessId(u64::from_be_bytes(bytes)))
}

/// Where uploads are kept; an error where the folder takes no file.
fn stores(uploads: &config::settings::Uploads) -> anyhow::Result<Stores> {
    let spool = uploads.spool.clone().map(|folder| {
        let made = Spool::new(folder, uploads.spool_each, uploads.spool_total);
        let folder = made.folder().display().to_string();
        made.try_out().with_context(|| format!("uploads.spool: {folder} takes no files"))?;
        anyhow::Ok(Arc::new(made))
    });
    let memory = Arc::new(Budget::new(uploads.memory_total));
    Ok(Stores { memory, spool: spool.transpose()?, given_up: AtomicU64::new(0) })
}

/// What the settings decide about requests.
pub(super) fn policy(settings: &Settings) -> Policy {
    let timeouts = &settings.upstream.timeouts;
    let upstream = match settings.upstream.kind {
        config::Kind::Harbor => Upstream::Harbor,
        config::Kind::Registry => Upstream::Plain,
    };
    Policy {
        upstream,
        enforce: settings.mode == config::Mode::Enforce,
        rules: Rules {
            issuer: settings.token.issuer.clone(),
            service: settings.token.service.clone(),
            lifetime: settings.keys.token_lifetime,
            leeway: settings.keys.leeway,
            accept_missing_kid: settings.keys.accept_missing_kid,
            by_name: upstream == Upstream::Plain,
        },
        service: settings.token.service.as_str().into(),
        public: settings.public_url.as_ref().map(|url| (scheme(url.scheme), authority(url).into())),
        rewrite_realm: settings.realm == config::Realm::Rewrite,
        token_timeout: timeouts.token,
        api_timeout: timeouts.api,
        registry_timeout: timeouts.registry,
        // A plain registry takes no credential.
        replay: settings.replay.enabled && upstream == Upstream::Harbor,
        replays_each: settings.replay.per_principal,
        head: settings.uploads.head,
        between_looks: settings.limits.unknown_kids.per / settings.limits.unknown_kids.count.get(),
        park: settings.park.timeout,
        answer_cache: settings.token.cache,
        grace: settings.grace.window,
        ramp: settings.ramp.clone().map(Arc::new),
    }
}

fn authority(url: &config::EndpointUrl) -> String {
    let host = match &url.host {
        config::Host::Name(name) => name.clone(),
        config::Host::Ip(std::net::IpAddr::V6(ip)) => format!("[{ip}]"),
        config::Host::Ip(ip) => ip.to_string(),
    };
    if url.port == url.scheme.default_port() { host } else { format!("{host}:{}", url.port) }
}

fn scheme(of: config::Scheme) -> Scheme {
    match of {
        config::Scheme::Http => Scheme::Http,
        config::Scheme::Https => Scheme::Https,
    }
}

fn file_of(material: &Material) -> anyhow::Result<PathBuf> {
    match material {
        Material::File(path) => Ok(path.clone()),
        Material::Inline(_) => bail!(
            "certificates and keys of TLS are read from files, so that they can be replaced while we run"
        ),
    }
}

/// TLS to endpoints, if any has it.
pub(in crate::app) fn upstream_tls(
    settings: &Settings,
    clock: &Clock,
) -> anyhow::Result<Option<Arc<tls::ClientTls>>> {
    let upstream = &settings.upstream;
    let urls = upstream.endpoints.iter().map(|e| &e.url).chain(&upstream.portal);
    if !urls.clone().any(|url| url.scheme == config::Scheme::Https) {
        return Ok(None);
    }
    let tls = &upstream.tls;
    let client = tls::ClientSettings {
        ca_file: tls.ca.as_ref().map(file_of).transpose()?,
        certificate_file: tls.client.as_ref().map(|(c, _)| file_of(c)).transpose()?,
        key_file: tls.client.as_ref().map(|(_, k)| file_of(k)).transpose()?,
        server_name: tls.server_name.clone(),
    };
    Ok(Some(Arc::new(tls::client(client, clock.now()).context("upstream TLS")?)))
}

/// What connections of a listener go through.
pub(in crate::app) fn door(listener: &config::Listener, clock: &Clock) -> anyhow::Result<Door> {
    let server = listener.tls.as_ref().map(|tls| {
        let server = tls::ServerSettings {
            certificate_file: file_of(&tls.certificate)?,
            key_file: file_of(&tls.key)?,
            client_ca_file: tls.client_ca.as_ref().map(file_of).transpose()?,
            oldest: match tls.min {
                config::TlsVersion::V1_2 => tls::Oldest::Tls12,
                config::TlsVersion::V1_3 => tls::Oldest::Tls13,
            },
            http2: listener.http2,
        };
        tls::server(server, clock.now()).with_context(|| format!("TLS of the listener {}", listener.address))
    });
    Ok(Door {
        cluster: listener.scope == config::Scope::Cluster,
        certified: listener.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()),
        http2: listener.http2 && listener.tls.is_none(),
        proxy_protocol: listener.proxy_protocol,
        trusted_proxies: listener.trusted_proxies.clone().into(),
        tls: server.transpose()?.map(Arc::new),
    })
}

/// The endpoints by name.
pub(in crate::app) fn names(settings: &Settings, tls: Option<&Arc<tls::ClientTls>>) -> Names {
    let named = |url: &config::EndpointUrl, opaque, side| {
        let host: Arc<str> = match &url.host {
            config::Host::Name(name) => name.as_str().into(),
            config::Host::Ip(ip) => ip.to_string().into(),
        };
        let upstream = tls.filter(|_| url.scheme == config::Scheme::Https);
        let tls =
            upstream.map(|client| Arc::new(UpstreamTls { client: client.clone(), name: (*host).into() }));
        Named { host, port: url.port, opaque, tls, side }
    };
    let opaque = |o: config::Opaque| match o {
        config::Opaque::Auto => Opaque::Auto,
        config::Opaque::Yes => Opaque::Yes,
        config::Opaque::No => Opaque::No,
    };
    let upstream = &settings.upstream;
    Names {
        cores: upstream.endpoints.iter().map(|e| named(&e.url, opaque(e.opaque), e.side)).collect(),
        portal: upstream.portal.iter().map(|url| named(url, Opaque::No, config::Side::Current)).collect(),
    }
}
