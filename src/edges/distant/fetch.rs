//! One bounded GET over a connection of its own. A redirection is an answer like any other: it is not followed.

use std::{error::Error, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Collected, Empty, LengthLimitError, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::{
    decisions::key::LONGEST_FILE,
    edges::{tls::ClientTls, wire::Stream},
};

/// A server by name.
#[derive(Clone, Debug)]
pub struct Site {
    /// Host name or address, without brackets.
    pub host: Arc<str>,
    pub port: u16,
    /// `None` = plain.
    pub tls: Option<Arc<ClientTls>>,
}

/// What came back. The body is that of a 200, and empty with any other status.
#[derive(Debug)]
pub struct Fetched {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Why nothing did.
#[derive(Debug, thiserror::Error)]
pub enum FetchFault {
    #[error("no answer in time")]
    Slow,
    #[error("its name can't be looked up")]
    Name(#[source] io::Error),
    #[error("no connection")]
    Connect(#[source] io::Error),
    #[error("no TLS")]
    Tls(#[source] io::Error),
    #[error("the connection broke")]
    Http(#[source] hyper::Error),
    #[error("the answer is longer than 1 MiB")]
    TooLong,
    #[error("the answer broke off")]
    Cut,
}

impl Site {
    /// For `Host`, brackets around IPv6.
    pub fn authority(&self) -> String {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        format!("{open}{}{close}:{}", self.host, self.port)
    }

    /// As an operator writes it.
    pub fn url(&self) -> String {
        format!("http{}://{}", if self.tls.is_some() { "s" } else { "" }, self.authority())
    }

    /// All addresses of the name, in their order.
    pub async fn addresses(&self, within: Duration) -> Result<Vec<SocketAddr>, FetchFault> {
        let found = tokio::time::timeout(within, tokio::net::lookup_host((&*self.host, self.port)));
        let found = found.await.map_err(|_| FetchFault::Slow)?.map_err(FetchFault::Name)?;
        let mut addresses: Vec<SocketAddr> = found.collect();
        addresses.sort_unstable();
        addresses.dedup();
        Ok(addresses)
    }
}

/// Asks the site at one of its addresses for `target`.
pub async fn get(
    site: &Site,
    address: SocketAddr,
    target: &str,
    headers: HeaderMap,
    within: Duration,
) -> Result<Fetched, FetchFault> {
    let exchange = async { exchange(connect(site, address).await?, request(site, target, headers)).await };
    tokio::time::timeout(within, exchange).await.map_err(|_| FetchFault::Slow)?
}

async fn connect(site: &Site, address: SocketAddr) -> Result<Stream, FetchFault> {
    let tcp = TcpStream::connect(address).await.map_err(FetchFault::Connect)?;
    tcp.set_nodelay(true).map_err(FetchFault::Connect)?;
    match &site.tls {
        None => Ok(Stream::Plain(tcp)),
        Some(tls) => {
            let stream = tls.connect(&site.host, tcp).await.map_err(FetchFault::Tls)?;
            Ok(Stream::TlsClient(Box::new(stream)))
        }
    }
}

fn request(site: &Site, target: &str, headers: HeaderMap) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    if let Ok(uri) = target.parse() {
        *request.uri_mut() = uri;
    }
    *request.headers_mut() = headers;
    let headers = request.headers_mut();
    if let Ok(host) = HeaderValue::from_str(&site.authority()) {
        headers.insert(header::HOST, host);
    }
    let agent = HeaderValue::from_static(concat!("tidegate/", env!("CARGO_PKG_VERSION")));
    headers.insert(header::USER_AGENT, agent);
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    request
}

async fn exchange(stream: Stream, request: Request<Empty<Bytes>>) -> Result<Fetched, FetchFault> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(FetchFault::Http)?;
    let exchange = async {
        let (head, body) = sender.send_request(request).await.map_err(FetchFault::Http)?.into_parts();
        let body = if head.status == StatusCode::OK { whole(body).await? } else { Bytes::new() };
        Ok(Fetched { status: head.status, headers: head.headers, body })
    };
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        // The connection may end with its answer already read. Where there is none, it knows why: in TLS 1.3 a missing
        // client certificate is told after the handshake.
        ended = connection => match (exchange.await, ended) {
            (Err(FetchFault::Http(_)), Err(why)) => Err(FetchFault::Http(why)),
            (fetched, _) => fetched,
        },
        fetched = &mut exchange => fetched,
    }
}

async fn whole(body: Incoming) -> Result<Bytes, FetchFault> {
    let fault = |error: Box<dyn Error + Send + Sync>| {
        if error.is::<LengthLimitError>() { FetchFault::TooLong } else { FetchFault::Cut }
    };
    Limited::new(body, LONGEST_FILE).collect().await.map(Collected::to_bytes).map_err(fault)
}
