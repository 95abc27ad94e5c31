//! A client's connection: kept alive, opened again where the other side has closed it, as Go's transport does.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody, combinators::BoxBody};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
};

use super::site::{Origin, Site};
use crate::edges::tls::ClientTls;

/// docker's patience for a token (contract P); here for each answer of any client.
const PATIENCE: Duration = Duration::from_secs(15);
/// How much a client writes at once into a chunked upload.
const CHUNK: usize = 32 << 10;

/// One request, to be sent as often as it takes.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    /// Path and query.
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Content,
}

/// A body and how it is framed.
#[derive(Clone, Debug)]
pub(super) enum Content {
    None,
    /// With its length.
    Whole(Bytes),
    Chunked(Bytes),
}

impl Call {
    pub(super) fn new(method: Method, target: impl Into<String>) -> Self {
        Self { method, target: target.into(), headers: HeaderMap::new(), body: Content::None }
    }

    pub(super) fn with(mut self, name: header::HeaderName, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }

    pub(super) fn body(mut self, body: Content) -> Self {
        self.body = body;
        self
    }

    fn request(&self, host: &str, authorization: Option<&HeaderValue>) -> io::Result<Request<Outgoing>> {
        let mut request = Request::new(self.body.outgoing());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target.parse().map_err(io::Error::other)?;
        request.headers_mut().clone_from(&self.headers);
        request.headers_mut().insert(header::HOST, HeaderValue::from_str(host).map_err(io::Error::other)?);
        if let Some(value) = authorization {
            request.headers_mut().insert(header::AUTHORIZATION, value.clone());
        }
        Ok(request)
    }
}

type Outgoing = BoxBody<Bytes, std::convert::Infallible>;

impl Content {
    fn outgoing(&self) -> Outgoing {
        match self {
            Self::None => Empty::new().boxed(),
            Self::Whole(bytes) => Full::new(bytes.clone()).boxed(),
            Self::Chunked(bytes) => {
                let pieces: Vec<_> = (0..bytes.len())
                    .step_by(CHUNK)
                    .map(|at| bytes.slice(at..bytes.len().min(at + CHUNK)))
                    .collect();
                StreamBody::new(stream::iter(pieces.into_iter().map(|piece| Ok(Frame::data(piece))))).boxed()
            }
        }
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// No answer came, in Go's words.
pub(super) type Cut = String;

/// A connection to a front door, or to where that one leads.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) origin: Origin,
    tls: Option<Arc<ClientTls>>,
    sender: Option<SendRequest<Outgoing>>,
    connection: JoinSet<()>,
}

impl Wire {
    pub(super) fn to(origin: Origin, site: &Site) -> Self {
        Self { origin, tls: site.tls.clone(), sender: None, connection: JoinSet::new() }
    }

    pub(super) async fn send(
        &mut self,
        call: &Call,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, Cut> {
        match tokio::time::timeout(PATIENCE, self.exchange(call, authorization)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                self.sender = None;
                Err(words(&error))
            }
            Err(_) => {
                self.sender = None;
                Err("context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned())
            }
        }
    }

    async fn exchange(&mut self, call: &Call, authorization: Option<&HeaderValue>) -> io::Result<Answer> {
        let mut request = call.request(&self.origin.authority(), authorization)?;
        let response = loop {
            let reused = self.sender.is_some();
            match self.sender().await?.try_send_request(request).await {
                Ok(response) => break response,
                // The other side had closed it before a byte of this went out.
                Err(mut unsent) => match unsent.take_message() {
                    Some(message) if reused => {
                        self.sender = None;
                        request = message;
                    }
                    _ => return Err(io::Error::other(unsent.into_error())),
                },
            }
        };
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }

    async fn sender(&mut self) -> io::Result<&mut SendRequest<Outgoing>> {
        let ready = match &mut self.sender {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        if !ready {
            self.connection.abort_all();
            let stream = TcpStream::connect((self.origin.name(), self.origin.port)).await?;
            stream.set_nodelay(true)?;
            let sender = match (&self.tls, self.origin.secure) {
                (_, false) => self.begin(stream).await?,
                (Some(tls), true) => {
                    let stream = tls.connect(self.origin.name(), stream).await?;
                    self.begin(stream).await?
                }
                (None, true) => return Err(io::Error::other("no TLS is set up for https")),
            };
            self.sender = Some(sender);
        }
        self.sender.as_mut().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
    }

    async fn begin<S>(&mut self, stream: S) -> io::Result<SendRequest<Outgoing>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // How a connection ends is seen by the request that runs on it.
        self.connection.spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}

/// What a client written in Go says of it.
fn words(error: &io::Error) -> Cut {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            match io.kind() {
                io::ErrorKind::BrokenPipe => return "write: broken pipe".to_owned(),
                io::ErrorKind::ConnectionReset => return "read: connection reset by peer".to_owned(),
                io::ErrorKind::ConnectionRefused => return "connect: connection refused".to_owned(),
                _ => {}
            }
            source = io.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static));
            if source.is_some() {
                continue;
            }
        } else if cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message) {
            return "EOF".to_owned();
        }
        source = cause.source();
    }
    error.to_string()
}
