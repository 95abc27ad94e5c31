//! What `tidegate rehearse` is asked for, checked as a whole: all faults at once.

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::{Args, ValueEnum};
use zeroize::Zeroizing;

use crate::{
    app::config::{
        Fault, Faults, Place,
        address::{EndpointUrl, Scheme, UrlError, url_remedy},
        amounts::Span,
        written::Written as _,
    },
    edges::tls::{self, ClientSettings, ClientTls},
    rehearsal::{
        against,
        load::{Account, Client, Origin, Site},
        play,
    },
    words::clock::Clock,
};

/// An upgrade in a box, or a load on a Harbor of the operator's.
#[derive(Clone, Debug, Args)]
pub struct Rehearse {
    /// Of the load: the same seed gives the same load
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long the load runs, such as 20s
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    duration: Duration,
    /// Have a real program make the load, found on PATH
    #[arg(long, value_name = "PROGRAM", conflicts_with = "against")]
    client: Option<Program>,
    /// Leave both lanes running afterwards, until Ctrl-C, and say how to use them
    #[arg(long, conflicts_with = "against")]
    stay: bool,
    /// No box: load this Harbor, or a tidegate before it, while you upgrade it. What is pushed is deleted at the end
    #[arg(long, value_name = "URL", requires_all = ["user", "password_file", "project"])]
    against: Option<String>,
    /// The same load at the same time by another way, past tidegate
    #[arg(long, value_name = "URL", requires = "against")]
    direct: Option<String>,
    /// Who may push to, pull from and delete repositories of the projects; a robot's full name is one too
    #[arg(long, value_name = "NAME", requires = "against")]
    user: Option<String>,
    /// The file with the user's password
    #[arg(long, value_name = "FILE", requires = "against")]
    password_file: Option<PathBuf>,
    /// A project to push to; may be given again
    #[arg(long, value_name = "NAME", requires = "against")]
    project: Vec<String>,
    /// The authority of Harbor's certificate, in PEM; else the system's
    #[arg(long, value_name = "FILE", requires = "against")]
    ca_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Programs that can make the load.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Program {
    Skopeo,
    /// The command line, and the daemon of this machine that it uses.
    Docker,
    Podman,
    /// ctr, and a containerd of its own.
    Containerd,
}

/// A sound order.
#[derive(Clone, Debug)]
pub struct Order {
    pub kind: Kind,
    pub json: bool,
}

#[derive(Clone, Debug)]
pub enum Kind {
    InABox { options: play::Options, stay: bool },
    Against(against::Options),
}

fn duration(text: &str) -> Result<Duration, String> {
    Span::read(text).map(Span::duration).ok_or_else(|| "a whole number and s, m or h, such as 20s".to_owned())
}

impl Rehearse {
    /// Reads the files that it names, and lists all that is wrong.
    pub fn order(self) -> Result<Order, Faults> {
        let json = self.json;
        let kind = if let Some(url) = self.against.clone() {
            Kind::Against(self.against(&url)?)
        } else {
            let program = self.client.map(Program::client);
            let options = play::Options { seed: self.seed, duration: self.duration, program };
            Kind::InABox { options, stay: self.stay }
        };
        Ok(Order { kind, json })
    }

    fn against(self, url: &str) -> Result<against::Options, Faults> {
        let mut faults = Vec::new();
        let user = self.user.unwrap_or_default();
        if user.is_empty() || user.contains(':') {
            let expected = "a name that isn't empty and has no colon";
            faults.push(fault("--user", format!("\"{user}\""), expected, ""));
        }
        let account = Account { name: user, password: password(self.password_file, &mut faults) };
        faults.extend(self.project.iter().filter(|name| !is_project(name)).map(|name| {
            let expected = "the name of a project: lower-case letters, digits, and . _ - between them";
            fault("--project", format!("\"{name}\""), expected, "")
        }));
        let origin = origin("--against", url, &mut faults);
        let direct = self.direct.and_then(|url| origin_of_direct(&url, &mut faults));
        let tls = authority(self.ca_file, [&origin, &direct], &mut faults);
        let site = |origin| Arc::new(Site { origin, tls: tls.clone(), account: Some(account.clone()) });
        match origin {
            Some(origin) if faults.is_empty() => Ok(against::Options {
                seed: self.seed,
                duration: self.duration,
                projects: self.project,
                site: site(origin),
                direct: direct.map(site),
            }),
            _ => Err(Faults::sorted(faults)),
        }
    }
}

impl Program {
    fn client(self) -> Client {
        match self {
            Self::Skopeo => Client::Skopeo,
            Self::Docker => Client::Docker,
            Self::Podman => Client::Podman,
            Self::Containerd => Client::Containerd,
        }
    }
}

fn fault(flag: &str, found: String, expected: &str, remedy: &str) -> Fault {
    Fault {
        place: Place::Flag(flag.to_owned()),
        key: String::new(),
        found,
        expected: expected.to_owned(),
        remedy: remedy.to_owned(),
    }
}

fn password(file: Option<PathBuf>, faults: &mut Vec<Fault>) -> Zeroizing<String> {
    let file = file.unwrap_or_default();
    let read = std::fs::read_to_string(&file).map(Zeroizing::new);
    let (found, remedy) =
        match read.map(|text| Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned())) {
            Ok(password) if !password.is_empty() => return password,
            Ok(_) => (format!("{} is empty", file.display()), ""),
            Err(error) => (format!("{}: {error}", file.display()), "name a file that this user may read"),
        };
    faults.push(fault("--password-file", found, "a file with the user's password alone", remedy));
    Zeroizing::default()
}

/// As Harbor takes it.
fn is_project(name: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = [name.bytes().next(), name.bytes().next_back()];
    (1..=255).contains(&name.len())
        && ends.iter().all(|end| end.is_some_and(alphanumeric))
        && name.bytes().all(|b| alphanumeric(b) || matches!(b, b'.' | b'_' | b'-'))
}

fn origin_of_direct(url: &str, faults: &mut Vec<Fault>) -> Option<Origin> {
    origin("--direct", url, faults)
}

fn origin(flag: &str, text: &str, faults: &mut Vec<Fault>) -> Option<Origin> {
    match text.parse::<EndpointUrl>() {
        Ok(EndpointUrl { scheme, host, port }) => {
            Some(Origin { secure: scheme == Scheme::Https, host: host.to_string(), port })
        }
        Err(error) => {
            // A password that stands there by mistake is not shown.
            let shown = if error == UrlError::UserInfo { String::new() } else { format!("\"{text}\": ") };
            let remedy = url_remedy(text).unwrap_or_default();
            faults.push(fault(
                flag,
                format!("{shown}{error}"),
                "https://host[:port] or http://host[:port]",
                &remedy,
            ));
            None
        }
    }
}

/// TLS where any way needs it.
fn authority(
    ca_file: Option<PathBuf>,
    origins: [&Option<Origin>; 2],
    faults: &mut Vec<Fault>,
) -> Option<Arc<ClientTls>> {
    let needed = ca_file.is_some() || origins.into_iter().flatten().any(|origin| origin.secure);
    let settings = ClientSettings { ca_file: ca_file.clone(), ..ClientSettings::default() };
    match tls::client(settings, Clock::system().now()) {
        Ok(tls) => Some(Arc::new(tls)),
        // A realm or a redirection may lead to https; that it can't be followed is seen there.
        Err(_) if !needed => None,
        Err(error) => {
            let file = ca_file.unwrap_or_default();
            faults.push(fault("--ca-file", format!("{}: {error}", file.display()), "", error.remedy()));
            None
        }
    }
}
