//! A real Harbor as the environment names it: `docs/contract-suite.md`.

use std::{
    net::{SocketAddr, ToSocketAddrs as _},
    path::PathBuf,
};

use tidegate::rehearsal::harbor::Version;

use crate::{
    parts::Commands,
    target::{Image, Target},
};

impl Target {
    /// The Harbor of `TIDEGATE_CONTRACT_URL`, where that is set.
    pub(crate) fn by_environment() -> Option<Self> {
        let url = environment("URL")?;
        let wanted =
            |name: &str| environment(name).unwrap_or_else(|| panic!("TIDEGATE_CONTRACT_{name} is needed"));
        let credential = |name: &str| {
            let text = wanted(name);
            let (user, password) = text.split_once(':').expect("name:password");
            (user.to_owned(), password.to_owned())
        };
        let (host, address) = authority(&url);
        Some(Self {
            version: Version::parse(&wanted("VERSION")).expect("a version that was recorded"),
            address,
            host,
            replica: environment("REPLICA_URL").map(|url| authority(&url).1),
            ext_endpoint: environment("EXT_ENDPOINT"),
            core_host: environment("CORE_HOST"),
            admin: credential("ADMIN"),
            user: credential("USER"),
            robot: credential("ROBOT"),
            public: Image::parse(&wanted("PUBLIC")),
            private: Image::parse(&wanted("PRIVATE")),
            key_file: environment("KEY_FILE").map(PathBuf::from),
            commands: Commands::by(environment),
            stand_in: None,
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "the suite's own environment, read here alone")]
fn environment(name: &str) -> Option<String> {
    std::env::var(format!("TIDEGATE_CONTRACT_{name}")).ok().filter(|value| !value.is_empty())
}

fn authority(url: &str) -> (String, SocketAddr) {
    let host = url.strip_prefix("http://").expect("an http:// URL").trim_end_matches('/');
    let with_port = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let address = with_port.to_socket_addrs().expect("a name that resolves").next().expect("an address");
    (host.to_owned(), address)
}
