//! A connection of an asker: its own over HTTP/1.1, shared over HTTP/2; opened again where it ended.

use bytes::Bytes;
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpStream, sync::Mutex};

/// Longer than anything that tidegate waits for.
const PATIENCE: Duration = Duration::from_secs(90);

/// An answer, read to its end.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// What is asked.
#[derive(Debug)]
pub struct Ask<'a> {
    pub method: &'a str,
    pub target: &'a str,
    pub headers: Vec<(&'a str, String)>,
    pub body: Bytes,
}

#[derive(Clone)]
pub struct Wire {
    address: SocketAddr,
    line: Line,
}

#[derive(Clone)]
enum Line {
    Http1(Arc<Mutex<Option<http1::SendRequest<Full<Bytes>>>>>),
    Http2(Arc<Mutex<Option<http2::SendRequest<Full<Bytes>>>>>),
}

impl Wire {
    pub fn http1(address: SocketAddr) -> Self {
        Self { address, line: Line::Http1(Arc::default()) }
    }

    /// Its clones share one connection.
    pub fn http2(address: SocketAddr) -> Self {
        Self { address, line: Line::Http2(Arc::default()) }
    }

    /// Sends it and reads the answer; an error says why there is none.
    pub async fn ask(&self, ask: Ask<'_>) -> Result<Reply, String> {
        let asked = tokio::time::timeout(PATIENCE, self.exchange(self.request(ask)));
        asked.await.map_err(|_| format!("no answer within {PATIENCE:?}"))?
    }

    fn request(&self, ask: Ask<'_>) -> Request<Full<Bytes>> {
        let request = match &self.line {
            Line::Http1(_) => {
                Request::builder().uri(ask.target).header(header::HOST, self.address.to_string())
            }
            Line::Http2(_) => Request::builder().uri(format!("http://{}{}", self.address, ask.target)),
        };
        let request = ask
            .headers
            .iter()
            .fold(request.method(ask.method), |request, (name, value)| request.header(*name, value));
        request.body(Full::new(ask.body)).expect("a request")
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Reply, String> {
        let error = |error: hyper::Error| format!("{error:?}");
        match &self.line {
            Line::Http1(line) => {
                let mut line = line.lock().await;
                let mut sender = match line.take() {
                    Some(sender) if !sender.is_closed() => sender,
                    _ => self.connect1().await?,
                };
                sender.ready().await.map_err(error)?;
                let reply = read(sender.send_request(request).await.map_err(error)?).await?;
                *line = Some(sender);
                Ok(reply)
            }
            Line::Http2(line) => {
                let mut held = line.lock().await;
                let mut sender = match held.clone() {
                    Some(sender) if !sender.is_closed() => sender,
                    _ => self.connect2().await?,
                };
                *held = Some(sender.clone());
                drop(held);
                sender.ready().await.map_err(error)?;
                read(sender.send_request(request).await.map_err(error)?).await
            }
        }
    }

    async fn stream(&self) -> Result<TokioIo<TcpStream>, String> {
        let stream = TcpStream::connect(self.address).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok(TokioIo::new(stream))
    }

    async fn connect1(&self) -> Result<http1::SendRequest<Full<Bytes>>, String> {
        let (sender, connection) =
            http1::handshake(self.stream().await?).await.map_err(|error| error.to_string())?;
        tokio::runtime::Handle::current().spawn(connection);
        Ok(sender)
    }

    async fn connect2(&self) -> Result<http2::SendRequest<Full<Bytes>>, String> {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), self.stream().await?)
            .await
            .map_err(|error| error.to_string())?;
        tokio::runtime::Handle::current().spawn(connection);
        Ok(sender)
    }
}

async fn read(answer: http::Response<hyper::body::Incoming>) -> Result<Reply, String> {
    let (head, body) = answer.into_parts();
    let status = head.status.as_u16();
    let body =
        body.collect().await.map_err(|error| format!("{status}, and the body broke off: {error:?}"))?;
    Ok(Reply { status, headers: head.headers, body: body.to_bytes() })
}
