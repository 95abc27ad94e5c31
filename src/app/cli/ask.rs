//! Commands that ask a running tidegate.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::Args;

use super::{Failure, output};
use crate::{
    app::{
        admin::client::{Client, Target},
        config::{self, AdminAddress, EndpointUrl, Flags, Host, Material, Scheme, Secret, Sources},
        status,
    },
    words::clock::Clock,
};

/// Which tidegate. Without `--admin` it is the one of the configuration that `serve` would take.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// `http://address:port` or `unix:/path` of the admin listener; else as the configuration says
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// The file with its token; else as the configuration says, if that names the listener too
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// Configuration; else as serve takes it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    which: Which,
    /// Again every two seconds
    #[arg(long)]
    watch: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Between two looks of `--watch`.
const PAUSE: Duration = Duration::from_secs(2);

impl Status {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let client = self.which.client()?;
        Ok(block_on(async {
            if self.watch {
                return watch(&client, self.json).await;
            }
            let (text, is_ready) = look(&client, self.json).await?;
            Ok(output::print(&text).max(u8::from(!is_ready)))
        })?)
    }
}

/// What there is to print, and whether that tidegate is ready.
async fn look(client: &Client, json: bool) -> anyhow::Result<(String, bool)> {
    let status: status::Status = client.get("/v1/status").await?;
    let text = if json { serde_json::to_string(&status)? + "\n" } else { status::render::screen(&status) };
    Ok((text, status.readiness.ready))
}

/// Until it is interrupted, or nobody reads: a restart of tidegate is something to watch too.
async fn watch(client: &Client, json: bool) -> anyhow::Result<u8> {
    loop {
        let looked = look(client, json).await.map(|(text, _)| text);
        let text = looked.unwrap_or_else(|error| format!("{error:#}\n"));
        let head = status::render::watch_head(Clock::system().now(), PAUSE);
        let code = if json { output::print(&text) } else { output::print_anew(&(head + &text)) };
        if code != 0 {
            return Ok(code);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Which {
    pub(super) fn client(self) -> Result<Client, Failure> {
        let given = self.admin_token_file.map(|path| token(Material::File(path))).transpose()?;
        if let Some(url) = self.admin {
            let target = Target::parse(&url).context("--admin is http://address:port or unix:/path")?;
            return Ok(Client { target, token: given });
        }
        let admin = config::load(&Sources::of_process(self.config, Flags::default()))?.admin;
        let configured = match (given, admin.token, &admin.address) {
            (Some(given), ..) => Some(given),
            (None, Some(material), AdminAddress::Tcp(_)) => Some(token(material)?),
            (None, ..) => None,
        };
        Ok(Client { target: target(admin.address), token: configured })
    }
}

/// Where a listener on this address is reached from here.
fn target(address: AdminAddress) -> Target {
    match address {
        AdminAddress::Unix(path) => Target::Unix(path),
        AdminAddress::Tcp(address) => {
            let ip = match address {
                std::net::SocketAddr::V4(v4) if v4.ip().is_unspecified() => {
                    std::net::Ipv4Addr::LOCALHOST.into()
                }
                std::net::SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
                    std::net::Ipv6Addr::LOCALHOST.into()
                }
                other => other.ip(),
            };
            Target::Url(EndpointUrl { scheme: Scheme::Http, host: Host::Ip(ip), port: address.port() })
        }
    }
}

fn token(material: Material) -> anyhow::Result<Secret> {
    match material {
        Material::Inline(secret) => Ok(secret),
        Material::File(path) => std::fs::read_to_string(&path)
            .map(|text| Secret::new(text.trim().to_owned()))
            .with_context(|| format!("the token file {} can't be read", path.display())),
    }
}

pub(super) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("no runtime for the call")?.block_on(work)
}
