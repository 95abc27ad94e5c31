//! The part of `tidegate check` that asks: names, connections, held keys, and whether core hides behind its sidecar.

use std::{net::SocketAddr, time::Duration};

use http::StatusCode;
use tokio::net::TcpStream;

use crate::{
    app::{
        config::{Fault, Host, Kind, Place, Scope, Settings},
        serve::wiring,
        store,
    },
    decisions::plan::Held,
    edges::{
        fleet::{Endpoint, Shelf},
        listener::own_addresses,
        probe::{self, Finding},
        resolve,
    },
    words::clock::Clock,
};

/// How long core may take to be noticed on another address.
const KNOCK: Duration = Duration::from_secs(1);

/// What the endpoints said.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Core's, in the order of the configuration.
    pub endpoints: Vec<Answered>,
    /// What goes wrong, a fault each.
    pub faults: Vec<Fault>,
    /// Where Harbor sends clients for tokens, and the endpoint that said so.
    pub realm: Option<(String, String)>,
}

/// One endpoint of core's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    pub name: String,
    /// Whether it answers as a Harbor core does.
    pub up: bool,
    pub held: Held,
}

/// Resolves every name, connects to every address and asks it for its key, then one of them for its challenge.
pub fn ask(settings: &Settings) -> Asked {
    let asked = || -> anyhow::Result<Asked> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // Certificates that can't be used are named with their files by the part of the check that reads them.
        let Ok(tls) = wiring::upstream_tls(settings, &Clock::system()) else { return Ok(Asked::default()) };
        let names = wiring::names(settings, tls.as_ref());
        Ok(runtime.block_on(ask_all(settings, &names)))
    };
    asked().unwrap_or_else(|error| Asked {
        faults: vec![fault("all", "upstream", format!("{error:#}"), "")],
        ..Asked::default()
    })
}

async fn ask_all(settings: &Settings, names: &resolve::Names) -> Asked {
    let shelf = Shelf::default();
    let (_, unresolved) = resolve::resolve(&shelf, names).await;
    let remedy = "check the name in upstream.endpoints and upstream.portal, and this machine's DNS";
    let unresolved =
        unresolved.into_iter().map(|found| fault("by name", "upstream.endpoints", found, remedy));
    let mut asked = Asked { faults: unresolved.collect(), ..Asked::default() };
    let within = settings.upstream.timeouts.connect + settings.upstream.probe.timeout;
    for status in &shelf.snapshot().statuses {
        let endpoint = &status.endpoint;
        let answer = match settings.upstream.kind {
            Kind::Harbor => ask_for_key(endpoint, within).await,
            Kind::Registry => ask_registry(endpoint, within).await,
        };
        let (held, wrong) = match answer {
            Ok(held) => (held, None),
            Err(fault) => (Held::Unknown, Some(fault)),
        };
        let up = wrong.is_none();
        if up && asked.realm.is_none() && settings.upstream.kind == Kind::Harbor {
            asked.realm = realm(endpoint, within).await.map(|realm| (endpoint.name.to_string(), realm));
        }
        if held == Held::CannotSign {
            asked.faults.push(cannot_sign(endpoint));
        }
        asked.faults.extend(wrong);
        asked.endpoints.push(Answered { name: endpoint.name.to_string(), up, held });
    }
    for status in &shelf.snapshot().portal {
        if let Err(error) = probe::ask(&status.endpoint, "/", None, within).await {
            asked.faults.push(unanswered("upstream.portal", &status.endpoint, error));
        }
    }
    asked.faults.extend(core_past_its_sidecar(settings).await);
    // Serving begins without it, so that this keeps nothing from starting either.
    asked.faults.extend(store::server_fault(settings).await.map(|found| {
        let remedy = "look at the server, the network, and the user and its rights (docs/store.md)";
        fault(&settings.store.url.to_string(), "store.url", found, remedy)
    }));
    asked
}

async fn ask_for_key(endpoint: &Endpoint, within: Duration) -> Result<Held, Fault> {
    let answer = probe::ask(endpoint, probe::KEY_TARGET, None, within)
        .await
        .map_err(|error| unanswered("upstream.endpoints", endpoint, error))?;
    match probe::read_key(answer.status, &answer.body) {
        Finding::Holds(held) => Ok(Held::One(held.kid)),
        Finding::CannotSign => Ok(Held::CannotSign),
        Finding::Strange => Err(fault(
            &endpoint.name,
            "upstream.endpoints",
            format!("it answers {} to a token request, as no Harbor core does", answer.status),
            "give the address of core itself, or of what stands before it",
        )),
    }
}

/// A plain registry: which key it knows is asked by signing, when we serve.
async fn ask_registry(endpoint: &Endpoint, within: Duration) -> Result<Held, Fault> {
    let answer = probe::ask(endpoint, "/v2/", None, within)
        .await
        .map_err(|error| unanswered("upstream.endpoints", endpoint, error))?;
    if answer.status == StatusCode::UNAUTHORIZED && probe::rounds::realm(&answer).is_some() {
        return Ok(Held::Unknown);
    }
    Err(fault(
        &endpoint.name,
        "upstream.endpoints",
        format!("it answers {} to /v2/, without a Bearer challenge", answer.status),
        "give the address of a registry with auth.token, or set upstream.kind = \"harbor\"",
    ))
}

fn cannot_sign(endpoint: &Endpoint) -> Fault {
    fault(
        &endpoint.name,
        "upstream.endpoints",
        "it can't sign tokens: it answers token requests with 500 or an empty token".to_owned(),
        "give core, at TOKEN_PRIVATE_KEY_PATH, an RSA key in PKCS#1 that its uid 10000 can read: openssl genrsa -traditional 4096",
    )
}

async fn realm(endpoint: &Endpoint, within: Duration) -> Option<String> {
    let answer = probe::ask(endpoint, "/v2/", None, within).await.ok()?;
    probe::rounds::realm(&answer).map(str::to_owned)
}

fn unanswered(key: &str, endpoint: &Endpoint, error: probe::AskFault) -> Fault {
    let why = anyhow::Error::new(error);
    let remedy = "is it running, and are scheme, port and network right?";
    fault(&endpoint.name, key, format!("{why:#}"), remedy)
}

/// Rule A26: in a sidecar core must listen on loopback alone, else its components' paths are open past us.
async fn core_past_its_sidecar(settings: &Settings) -> Vec<Fault> {
    let mut faults = Vec::new();
    if settings.listeners.iter().all(|listener| listener.scope != Scope::Cluster) {
        return faults;
    }
    for endpoint in &settings.upstream.endpoints {
        let Host::Ip(ip) = endpoint.url.host else { continue };
        let own = if ip.is_loopback() { own_addresses() } else { Vec::new() };
        for own in own.into_iter().map(|own| SocketAddr::from((own, endpoint.url.port))) {
            if is_open(own).await {
                let remedy = "set httpaddr = \"127.0.0.1\" in core's app.conf";
                let found = "core answers here too, past tidegate".to_owned();
                faults.push(fault(&own.to_string(), "upstream.endpoints", found, remedy));
            }
        }
    }
    faults
}

async fn is_open(address: SocketAddr) -> bool {
    tokio::time::timeout(KNOCK, TcpStream::connect(address)).await.is_ok_and(|connected| connected.is_ok())
}

fn fault(place: &str, key: &str, found: String, remedy: &str) -> Fault {
    Fault {
        place: Place::Endpoint(place.to_owned()),
        key: key.to_owned(),
        found,
        expected: String::new(),
        remedy: remedy.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::config::{Flags, Sources, load};

    fn settings(harbor: &str) -> Settings {
        let flags = Flags { harbor: Some(harbor.to_owned()), ..Flags::default() };
        load(&Sources { flags, ..Sources::default() }).expect("settings")
    }

    #[test]
    fn an_address_where_nothing_listens_is_named_with_its_cause() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
        let asked = ask(&settings(&format!("http://{free}")));
        let up: Vec<_> = asked.endpoints.iter().map(|endpoint| endpoint.up).collect();
        assert_eq!((up, asked.realm), (vec![false], None));
        let faults = asked.faults;
        assert_eq!(faults.len(), 1);
        assert_eq!(faults[0].place.to_string(), format!("endpoint {free}"));
        assert!(faults[0].found.contains("refused"), "{}", faults[0].found);
    }

    #[test]
    fn what_is_no_harbor_is_said() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = server.local_addr().expect("an address");
        let answers = std::thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            let (mut stream, _) = server.accept().expect("a connection");
            let mut head = [0; 4096];
            assert_ne!(stream.read(&mut head).expect("a request"), 0);
            stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").expect("an answer");
        });
        let faults = ask(&settings(&format!("http://{address}"))).faults;
        answers.join().expect("an end");
        assert_eq!(faults.len(), 1);
        assert!(faults[0].found.contains("404 Not Found"), "{}", faults[0].found);
    }

    #[test]
    fn certificates_that_cannot_be_used_are_named_once_and_elsewhere() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tidegate.toml");
        let text = "[upstream]\nendpoints = [{ url = \"https://127.0.0.1:9\" }]\ntls = { ca_file = \"/nowhere/ca.crt\" }\n";
        std::fs::write(&file, text).expect("a file");
        let sources = Sources { file: Some(file), ..Sources::default() };
        let report = crate::app::check::check(&sources, &Clock::system(), Some(&ask));
        assert_eq!((report.faults.len(), report.unreachable.len()), (1, 0), "{report:?}");
        assert_eq!(report.faults[0].place.to_string(), "/nowhere/ca.crt");
    }

    #[test]
    fn only_a_sidecar_is_knocked_at_for_other_addresses() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let public = settings("http://127.0.0.1:8081");
        assert_eq!(runtime.block_on(core_past_its_sidecar(&public)), []);
    }
}
