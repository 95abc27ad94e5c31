//! Asking a running process: one request, one answer, over the address of its admin listener.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use zeroize::Zeroizing;

use crate::app::config::{EndpointUrl, Host, Scheme, Secret};

/// How long a running process may take to answer an operator.
const PATIENCE: Duration = Duration::from_secs(10);
/// A status of 1,000 endpoints has a tenth of it.
const LONGEST_ANSWER: usize = 4 << 20;

/// Where to ask, and with which token.
#[derive(Clone, Debug)]
pub struct Client {
    pub target: Target,
    pub token: Option<Secret>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Url(EndpointUrl),
    Unix(PathBuf),
}

impl Target {
    /// `http://host:port` or `unix:/path`, as `--admin` has it.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("unix:") {
            Some(path) => path.starts_with('/').then(|| Self::Unix(path.into())),
            None => text.parse().ok().filter(|url: &EndpointUrl| url.scheme == Scheme::Http).map(Self::Url),
        }
    }
}

impl Client {
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.ask(Method::POST, path, Bytes::new()).await
    }

    /// The same with a body of JSON.
    pub async fn post_json<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        let body = serde_json::to_vec(body).context("the request is no JSON")?;
        self.ask(Method::POST, path, body.into()).await
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<T> {
        let asked = async {
            match &self.target {
                Target::Unix(socket) => {
                    let stream =
                        UnixStream::connect(socket).await.with_context(|| unreached(&socket.display()))?;
                    self.send(stream, "localhost".to_owned(), method, path, body).await
                }
                Target::Url(url) => {
                    let address = match &url.host {
                        Host::Name(name) => (name.clone(), url.port),
                        Host::Ip(ip) => (ip.to_string(), url.port),
                    };
                    let stream = TcpStream::connect(address).await.with_context(|| unreached(url))?;
                    self.send(stream, format!("{}:{}", url.host, url.port), method, path, body).await
                }
            }
        };
        let (status, body) = tokio::time::timeout(PATIENCE, asked)
            .await
            .map_err(|_| anyhow!("no answer within {PATIENCE:?}"))??;
        if status != StatusCode::OK {
            bail!("{}", said(status, &body));
        }
        serde_json::from_slice(&body).context("the answer is none of this version's tidegate")
    }

    async fn send<S>(
        &self,
        stream: S,
        host: String,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, Bytes)>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, host);
        if let Some(token) = &self.token {
            let value = Zeroizing::new(format!("Bearer {}", token.expose().trim()));
            request = request.header(header::AUTHORIZATION, value.as_str());
        }
        let request =
            request.body(Full::new(body)).context("the token is no text that a header can carry")?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
            let body = body.map_err(|error| anyhow!("the answer can't be read: {error}"))?;
            anyhow::Ok((status, body.to_bytes()))
        };
        // The connection drives the exchange; whether it ends well afterwards is of no interest.
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            answer = &mut exchange => answer,
            _ = connection => exchange.await,
        }
    }
}

fn unreached(target: &dyn std::fmt::Display) -> String {
    format!(
        "nothing answers at {target}: is tidegate running, and is this its admin.address? (--admin names another)"
    )
}

/// The words of the other side, where it has any.
fn said(status: StatusCode, body: &[u8]) -> String {
    let words = serde_json::from_slice::<serde_json::Value>(body).ok();
    match words.as_ref().and_then(|words| words["error"].as_str()) {
        Some(error) if status == StatusCode::UNAUTHORIZED => {
            format!("{error} (--admin-token-file names the file with it)")
        }
        Some(error) => error.to_owned(),
        None => format!("answered {status}"),
    }
}
