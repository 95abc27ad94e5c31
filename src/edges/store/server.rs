//! Redis and Valkey: alone, behind Sentinel, or as a Cluster.
//!
//! All records of a kind are the fields of one hash, `{prefix}{deployment}:{kind}`, and so on one node of a Cluster:
//! a write that depends on what is there is one script on it, and reading all of them is one walk. The field with the
//! empty name counts the writes, for those who ask whether anything has changed; others are told on the channel
//! `{prefix}{deployment}:changed`, where the server is no Cluster and lets us. Nothing has a time to live there: a
//! server that evicts what has one takes none of it.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::StreamExt as _;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, FromRedisValue,
    IntoConnectionInfo as _, RedisConnectionInfo, RedisError, RedisResult, TlsCertificates, TlsMode,
    aio::{ConnectionLike, MultiplexedConnection, PubSub, PubSubStream},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType},
};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::backend::{Backend, Cursor, Doing, Ear, Kept, Page, StoreFault, Write, Written};
use crate::{
    decisions::record::{Kind, Place},
    edges::{alarm, small_file},
    words::file_fault::FileFault,
};

/// Of a connection and of one answer: below what the store's own patience is, so that the cause is told.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// KEYS: the hash. ARGV: field, generation that must be there or nothing, value or nothing, channel or nothing. A user
/// who may not publish writes all the same.
const WRITE: &str = "
local at = redis.call('HGET', KEYS[1], ARGV[1])
local present = ''
if at then present = string.sub(at, 1, 8) end
if present ~= ARGV[2] then return {0, present} end
if ARGV[3] == '' then redis.call('HDEL', KEYS[1], ARGV[1]) else redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
redis.call('HINCRBY', KEYS[1], '', 1)
if ARGV[4] ~= '' then redis.pcall('PUBLISH', ARGV[4], '') end
return {1, ''}
";

/// What [`WRITE`] answers: whether it wrote, and the generation that was there where it didn't.
type Answer = RedisResult<(i64, Vec<u8>)>;

/// How the servers are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    One,
    Sentinel,
    Cluster,
}

/// What a connection takes.
#[derive(Clone)]
pub struct ServerSettings {
    pub form: Form,
    /// Of the server, of the sentinels, or of some of the cluster's nodes.
    pub at: Vec<(String, u16)>,
    /// The name under which sentinels know the master.
    pub master: String,
    pub database: u32,
    pub user: Option<String>,
    pub password: Password,
    /// With TLS.
    pub tls: Option<ServerTls>,
    /// `{prefix}{deployment}:`.
    pub prefix: String,
    /// What an operator calls it.
    pub name: String,
}

/// A server's password.
#[derive(Clone)]
pub enum Password {
    None,
    Text(Zeroizing<String>),
    /// Read at every connection, so that it can be changed.
    File(PathBuf),
}

/// Files of TLS, read at every connection.
#[derive(Clone, Debug)]
pub struct ServerTls {
    pub ca_file: Option<PathBuf>,
    pub client: Option<(PathBuf, PathBuf)>,
}

/// One server, or several that are one store.
pub struct Server {
    settings: ServerSettings,
    line: Mutex<Option<Line>>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.settings.name)
    }
}

/// A connection that many calls share.
#[derive(Clone)]
enum Line {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum DialFault {
    #[error("{}: {fault}", path.display())]
    File { path: PathBuf, fault: FileFault },
    #[error(transparent)]
    Redis(#[from] RedisError),
}

impl Server {
    /// Nothing is connected yet: a server that isn't there is no reason not to start.
    pub fn new(settings: ServerSettings) -> Self {
        Self { settings, line: Mutex::new(None) }
    }

    async fn line(&self) -> Result<Line, StoreFault> {
        let mut kept = self.line.lock().await;
        if let Some(line) = &*kept {
            return Ok(line.clone());
        }
        let line =
            self.settings.dial().await.map_err(|fault| StoreFault::Unavailable(alarm::cause(&fault)))?;
        Ok(kept.insert(line).clone())
    }

    /// One command.
    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreFault> {
        let asked = match self.line().await? {
            Line::One(mut line) => ask(command, &mut line).await,
            Line::Cluster(mut line) => ask(command, &mut line).await,
        };
        if let Err(error) = &asked {
            self.leave(error).await;
        }
        asked.map_err(|error| StoreFault::Unavailable(alarm::cause(&error)))
    }

    /// After an error the next command begins with a new connection: behind Sentinel the master may be another by
    /// then. A Cluster's finds its nodes by itself, also where those that are named are gone; but who it is was settled
    /// when it began.
    async fn leave(&self, error: &RedisError) {
        let code = error.code().unwrap_or_default();
        if self.settings.form != Form::Cluster || ["NOAUTH", "WRONGPASS"].contains(&code) {
            *self.line.lock().await = None;
        }
    }

    fn hash(&self, kind: Kind) -> String {
        format!("{}{}", self.settings.prefix, kind.name())
    }

    fn channel(&self) -> String {
        format!("{}changed", self.settings.prefix)
    }

    /// The script, for one write.
    fn command(&self, write: &Write) -> Cmd {
        let over = write.over.map(|generation| generation.to_be_bytes().to_vec()).unwrap_or_default();
        let value = write.kept.as_ref().map(Kept::write).unwrap_or_default();
        let mut command = redis::cmd("EVAL");
        command.arg(WRITE).arg(1).arg(self.hash(write.place.kind));
        let tells = self.settings.form != Form::Cluster && Kind::WATCHED.contains(&write.place.kind);
        let channel = if tells { self.channel() } else { String::new() };
        command.arg(&write.place.key).arg(over).arg(value).arg(channel);
        command
    }

    /// Writes of one kind, in one round trip: they are on one node.
    async fn write(&self, writes: &[Write]) -> Result<Vec<Written>, StoreFault> {
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors();
        for write in writes {
            pipeline.add_command(self.command(write));
        }
        let asked: RedisResult<Vec<Answer>> = match self.line().await? {
            Line::One(mut line) => pipeline.query_async(&mut line).await,
            Line::Cluster(mut line) => pipeline.query_async(&mut line).await,
        };
        let refused = asked.as_ref().map_or_else(Some, |all| all.iter().find_map(|one| one.as_ref().err()));
        if let Some(error) = refused {
            self.leave(error).await;
        }
        let asked = asked.map_err(|error| StoreFault::Unavailable(alarm::cause(&error)))?;
        Ok(asked.into_iter().map(written).collect())
    }
}

fn written(answer: Answer) -> Written {
    match answer {
        Ok((1, _)) => Written::Done,
        // Of what is no record the generation that nobody writes over.
        Ok((_, present)) => {
            let generation = <[u8; 8]>::try_from(present.as_slice()).map_or(u64::MAX, u64::from_be_bytes);
            Written::Other((!present.is_empty()).then_some(generation))
        }
        Err(error) => Written::Refused(alarm::cause(&error)),
    }
}

async fn ask<T: FromRedisValue>(
    command: &Cmd,
    line: &mut (impl ConnectionLike + Send),
) -> Result<T, RedisError> {
    command.query_async(line).await
}

impl ServerSettings {
    async fn dial(&self) -> Result<Line, DialFault> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let (certificates, password) = self.files()?;
        match self.form {
            Form::One => {
                let client = self.client(password.as_deref(), certificates)?;
                Ok(Line::One(client.get_multiplexed_async_connection_with_config(&config).await?))
            }
            Form::Sentinel => {
                let mut sentinels = self.sentinels(password.as_deref(), certificates)?;
                Ok(Line::One(sentinels.get_async_connection_with_config(&config).await?))
            }
            Form::Cluster => {
                let client = self.cluster(password.as_deref(), certificates)?;
                Ok(Line::Cluster(client.get_async_connection().await?))
            }
        }
    }

    /// A connection that is told what is published.
    async fn dial_to_listen(&self) -> Result<PubSub, DialFault> {
        let (certificates, password) = self.files()?;
        let client = if self.form == Form::Sentinel {
            self.sentinels(password.as_deref(), certificates)?.async_get_client().await?
        } else {
            self.client(password.as_deref(), certificates)?
        };
        Ok(client.get_async_pubsub().await?)
    }

    fn files(&self) -> Result<(Option<TlsCertificates>, Option<Zeroizing<String>>), DialFault> {
        Ok((self.tls.as_ref().map(ServerTls::certificates).transpose()?, self.password.read()?))
    }

    fn client(
        &self,
        password: Option<&String>,
        certificates: Option<TlsCertificates>,
    ) -> Result<Client, DialFault> {
        let info = self.info(password)?;
        Ok(match certificates {
            Some(certificates) => Client::build_with_tls(info, certificates)?,
            None => Client::open(info)?,
        })
    }

    fn addresses(&self) -> impl Iterator<Item = ConnectionAddr> {
        let tls = self.tls.is_some();
        self.at.iter().cloned().map(move |(host, port)| {
            if tls {
                ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
            } else {
                ConnectionAddr::Tcp(host, port)
            }
        })
    }

    fn info(&self, password: Option<&String>) -> Result<redis::ConnectionInfo, DialFault> {
        let none = || RedisError::from((redis::ErrorKind::InvalidClientConfig, "no server is named"));
        let address = self.addresses().next().ok_or_else(none)?;
        let mut of = RedisConnectionInfo::default().set_db(self.database.into());
        if let Some(user) = &self.user {
            of = of.set_username(user);
        }
        if let Some(password) = password {
            of = of.set_password(password);
        }
        Ok(address.into_connection_info()?.set_redis_settings(of))
    }

    /// The password is the servers'; sentinels are asked without one.
    fn sentinels(
        &self,
        password: Option<&String>,
        certificates: Option<TlsCertificates>,
    ) -> Result<SentinelClient, DialFault> {
        let mut builder =
            SentinelClientBuilder::new(self.addresses(), &self.master, SentinelServerType::Master)?
                .set_client_to_redis_db(self.database.into());
        if let Some(user) = &self.user {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = password {
            builder = builder.set_client_to_redis_password(password);
        }
        if let Some(certificates) = certificates {
            builder = builder
                .set_client_to_redis_tls_mode(TlsMode::Secure)
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_tls_mode(TlsMode::Secure)
                .set_client_to_sentinel_certificates(certificates);
        }
        Ok(builder.build()?)
    }

    fn cluster(
        &self,
        password: Option<&String>,
        certificates: Option<TlsCertificates>,
    ) -> Result<ClusterClient, DialFault> {
        let mut builder = ClusterClient::builder(self.addresses())
            .connection_timeout(PATIENCE)
            .response_timeout(PATIENCE)
            .retries(2);
        if let Some(user) = &self.user {
            builder = builder.username(user);
        }
        if let Some(password) = password {
            builder = builder.password(password);
        }
        if let Some(certificates) = certificates {
            builder = builder.tls(TlsMode::Secure).certs(certificates);
        }
        Ok(builder.build()?)
    }
}

impl Password {
    fn read(&self) -> Result<Option<Zeroizing<String>>, DialFault> {
        match self {
            Self::None => Ok(None),
            Self::Text(text) => Ok(Some(text.clone())),
            Self::File(path) => {
                let bytes = file(path)?;
                Ok(Some(Zeroizing::new(String::from_utf8_lossy(bytes.trim_ascii()).into_owned())))
            }
        }
    }
}

impl ServerTls {
    fn certificates(&self) -> Result<TlsCertificates, DialFault> {
        let client = |(certificate, key): &(PathBuf, PathBuf)| -> Result<ClientTlsConfig, DialFault> {
            Ok(ClientTlsConfig { client_cert: file(certificate)?.to_vec(), client_key: file(key)?.to_vec() })
        };
        Ok(TlsCertificates {
            client_tls: self.client.as_ref().map(client).transpose()?,
            root_cert: self.ca_file.as_deref().map(file).transpose()?.map(|bytes| bytes.to_vec()),
        })
    }
}

fn file(path: &Path) -> Result<Zeroizing<Vec<u8>>, DialFault> {
    let read = small_file::read(path);
    read.map(|read| read.bytes).map_err(|fault| DialFault::File { path: path.to_owned(), fault })
}

/// What is published on one channel.
struct Channel(PubSubStream);

impl Ear for Channel {
    fn heard(&mut self) -> Doing<'_, ()> {
        Box::pin(async {
            let next = self.0.next().await;
            next.map(drop).ok_or_else(|| StoreFault::Unavailable("the server said no more".to_owned()))
        })
    }
}

impl Backend for Server {
    fn get<'a>(&'a self, place: &'a Place) -> Doing<'a, Option<Kept>> {
        Box::pin(async move {
            let mut command = redis::cmd("HGET");
            command.arg(self.hash(place.kind)).arg(&place.key);
            let bytes: Option<Vec<u8>> = self.ask(&command).await?;
            bytes.map(|bytes| Kept::read(&bytes)).transpose()
        })
    }

    fn put(&self, writes: Vec<Write>) -> Doing<'_, Vec<Written>> {
        Box::pin(async move {
            let mut all = Vec::with_capacity(writes.len());
            for same in writes.chunk_by(|a, b| a.place.kind == b.place.kind) {
                all.extend(self.write(same).await?);
            }
            Ok(all)
        })
    }

    fn page<'a>(&'a self, kind: Kind, from: Option<&'a Cursor>, about: usize) -> Doing<'a, Page> {
        Box::pin(async move {
            let mut command = redis::cmd("HSCAN");
            command.arg(self.hash(kind)).arg(from.map_or("0", |cursor| &cursor.0)).arg("COUNT").arg(about);
            let (next, flat): (String, Vec<Vec<u8>>) = self.ask(&command).await?;
            let mut page = Page { next: (next != "0").then_some(Cursor(next)), ..Page::default() };
            for pair in flat.chunks_exact(2) {
                let [field, value] = pair else { continue };
                match (std::str::from_utf8(field), Kept::read(value)) {
                    // The count of writes.
                    (Ok(""), _) => {}
                    (Ok(key), Ok(kept)) => page.records.push((key.to_owned(), kept)),
                    _ => page.junk.push(String::from_utf8_lossy(field).into_owned()),
                }
            }
            Ok(page)
        })
    }

    fn revision(&self, kind: Kind) -> Doing<'_, u64> {
        Box::pin(async move {
            let mut command = redis::cmd("HGET");
            command.arg(self.hash(kind)).arg("");
            Ok(self.ask::<Option<u64>>(&command).await?.unwrap_or_default())
        })
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn listen(&self) -> Option<Doing<'_, Box<dyn Ear>>> {
        if self.settings.form == Form::Cluster {
            return None;
        }
        Some(Box::pin(async {
            let dialled = self.settings.dial_to_listen().await;
            let mut line = dialled.map_err(|fault| StoreFault::Unavailable(alarm::cause(&fault)))?;
            let begun = line.subscribe(self.channel()).await;
            begun.map_err(|fault| StoreFault::Unavailable(alarm::cause(&fault)))?;
            let ear: Box<dyn Ear> = Box::new(Channel(line.into_on_message()));
            Ok(ear)
        }))
    }

    fn name(&self) -> &str {
        &self.settings.name
    }
}
