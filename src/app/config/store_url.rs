//! Where the store is, as one text.

use std::{fmt, path::PathBuf, str::FromStr};

use super::address::Host;

/// The value of `store.url`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StoreUrl {
    /// The usual folder where it is there and can be written, else memory.
    #[default]
    Auto,
    Memory,
    /// An absolute path of a redb file.
    File(PathBuf),
    Redis(Servers),
    /// The master of this name, which the sentinels know.
    Sentinel(Servers, String),
    Cluster(Servers),
}

/// Servers of Redis or Valkey.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers {
    pub tls: bool,
    /// The user of its access lists; `None` = the default one.
    pub user: Option<String>,
    /// At least one; exactly one of [`StoreUrl::Redis`].
    pub at: Vec<Server>,
    /// The number of the database; zero with a cluster.
    pub database: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub host: Host,
    pub port: u16,
}

/// It is no place of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no place of a store")]
pub struct NoStoreUrl;

impl StoreUrl {
    /// Whether it is a server, which several replicas may share.
    pub fn servers(&self) -> Option<&Servers> {
        match self {
            Self::Auto | Self::Memory | Self::File(_) => None,
            Self::Redis(servers) | Self::Sentinel(servers, _) | Self::Cluster(servers) => Some(servers),
        }
    }
}

impl FromStr for StoreUrl {
    type Err = NoStoreUrl;

    fn from_str(text: &str) -> Result<Self, NoStoreUrl> {
        if let Some(path) = text.strip_prefix("file:") {
            return if path.starts_with('/') { Ok(Self::File(path.into())) } else { Err(NoStoreUrl) };
        }
        match text {
            "auto" => return Ok(Self::Auto),
            "memory:" => return Ok(Self::Memory),
            _ => {}
        }
        let (scheme, rest) = text.split_once("://").ok_or(NoStoreUrl)?;
        let (scheme, tls) = match scheme.strip_prefix("rediss") {
            Some(kind) => (kind, true),
            None => (scheme.strip_prefix("redis").ok_or(NoStoreUrl)?, false),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let port = if scheme == "-sentinel" { 26_379 } else { 6_379 };
        let servers = |database| servers(authority, tls, port, database);
        match scheme {
            "" => {
                let servers = servers(number(path)?)?;
                if servers.at.len() == 1 { Ok(Self::Redis(servers)) } else { Err(NoStoreUrl) }
            }
            "-sentinel" => {
                let (name, database) = path.split_once('/').unwrap_or((path, ""));
                let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
                if name.is_empty() || !name.bytes().all(fits) {
                    return Err(NoStoreUrl);
                }
                Ok(Self::Sentinel(servers(number(database)?)?, name.to_owned()))
            }
            "-cluster" if path.is_empty() => Ok(Self::Cluster(servers(0)?)),
            _ => Err(NoStoreUrl),
        }
    }
}

fn number(text: &str) -> Result<u32, NoStoreUrl> {
    if text.is_empty() { Ok(0) } else { text.parse().map_err(|_| NoStoreUrl) }
}

fn servers(authority: &str, tls: bool, port: u16, database: u32) -> Result<Servers, NoStoreUrl> {
    let (user, list) = match authority.rsplit_once('@') {
        Some((user, list)) => (Some(user), list),
        None => (None, authority),
    };
    // A password in a URL would be shown wherever the URL is.
    let fits = |user: &str| !user.is_empty() && user.bytes().all(|b| b.is_ascii_graphic() && b != b':');
    if user.is_some_and(|user| !fits(user)) {
        return Err(NoStoreUrl);
    }
    let at = list.split(',').map(|one| server(one, port)).collect::<Result<_, _>>()?;
    Ok(Servers { tls, user: user.map(str::to_owned), at, database })
}

fn server(text: &str, usual: u16) -> Result<Server, NoStoreUrl> {
    let end = text.rfind(']').map_or_else(|| text.find(':').unwrap_or(text.len()), |at| at + 1);
    let (host, rest) = text.split_at_checked(end).ok_or(NoStoreUrl)?;
    let port = match rest.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or(NoStoreUrl)?,
        None if rest.is_empty() => usual,
        None => return Err(NoStoreUrl),
    };
    Ok(Server { host: Host::parse(host).ok_or(NoStoreUrl)?, port })
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Servers {
    fn write(&self, kind: &str) -> String {
        let scheme = if self.tls { "rediss" } else { "redis" };
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        let at: Vec<String> = self.at.iter().map(ToString::to_string).collect();
        format!("{scheme}{kind}://{user}{}", at.join(","))
    }

    fn numbered(&self) -> String {
        if self.database == 0 { String::new() } else { format!("/{}", self.database) }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Memory => f.write_str("memory:"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Redis(servers) => write!(f, "{}{}", servers.write(""), servers.numbered()),
            Self::Sentinel(servers, name) => {
                write!(f, "{}/{name}{}", servers.write("-sentinel"), servers.numbered())
            }
            Self::Cluster(servers) => f.write_str(&servers.write("-cluster")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_stores_come_back_as_they_were_written() {
        for text in [
            "auto",
            "memory:",
            "file:/var/lib/tidegate/store.redb",
            "redis://127.0.0.1:6379",
            "rediss://tidegate@redis.example:6380/3",
            "redis://[::1]:6379",
            "redis-sentinel://a:26379,b:26379/mymaster",
            "rediss-sentinel://u@a:26379/mymaster/1",
            "redis-cluster://a:7000,b:7001,c:7002",
            "rediss-cluster://a:7000",
        ] {
            assert_eq!(text.parse::<StoreUrl>().map(|url| url.to_string()).as_deref(), Ok(text));
        }
        let usual = |text: &str| text.parse::<StoreUrl>().map(|url| url.to_string());
        assert_eq!(usual("redis://redis").as_deref(), Ok("redis://redis:6379"));
        assert_eq!(usual("redis-sentinel://a/m").as_deref(), Ok("redis-sentinel://a:26379/m"));
    }

    #[test]
    fn what_is_no_place_of_a_store_is_refused() {
        for text in [
            "",
            "memory",
            "file:",
            "file:store.redb",
            "redis:",
            "redis://",
            "http://redis:6379",
            "redis://user:password@host",
            "redis://:password@host",
            "redis://a,b",
            "redis://a/b",
            "redis://a:0",
            "redis-sentinel://a:26379",
            "redis-sentinel://a/",
            "redis-cluster://a/1",
            "redis-moon://a",
        ] {
            assert_eq!(text.parse::<StoreUrl>(), Err(NoStoreUrl), "{text}");
        }
    }
}
