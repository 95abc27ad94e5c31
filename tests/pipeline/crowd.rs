//! Many clients at once over HTTP/2: thousands of requests that wait need no thread and no connection each.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    net::SocketAddr,
    ops::Range,
    time::{Duration, Instant},
};
use tokio::{
    net::TcpStream,
    runtime::{Builder, Runtime},
    task::JoinHandle,
};

/// Connections with many requests on each.
pub struct Crowd {
    runtime: Runtime,
    connections: Vec<SendRequest<Empty<Bytes>>>,
    bearer: String,
}

/// What one of them got.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub status: StatusCode,
    pub retry_after: Option<String>,
    pub took: Duration,
    pub at: Instant,
}

/// Requests on their way.
pub struct Asked(Vec<JoinHandle<Outcome>>);

impl Crowd {
    /// So many connections.
    pub fn open(address: SocketAddr, connections: usize, bearer: &str) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let serving = runtime.handle().clone();
        let opened = async move {
            let mut opened = Vec::new();
            for _ in 0..connections {
                let stream = TcpStream::connect(address).await.expect("somebody listens");
                let io = TokioIo::new(stream);
                let (sender, connection) =
                    http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2 is spoken");
                serving.spawn(connection);
                opened.push(sender);
            }
            opened
        };
        let connections = runtime.block_on(opened);
        Self { runtime, connections, bearer: format!("Bearer {bearer}") }
    }

    /// Sends a `GET` for each number, which `path` has at its end, spread over the connections.
    pub fn ask(&self, path: &str, numbers: Range<usize>) -> Asked {
        let ask = |number: usize| {
            let mut sender = self.connections[number % self.connections.len()].clone();
            let request = Request::get(format!("http://harbor.example{path}{number}"))
                .header("Authorization", &self.bearer)
                .header("Accept", "application/vnd.oci.image.manifest.v1+json")
                .body(Empty::new());
            let request = request.expect("a request");
            self.runtime.spawn(async move {
                let began = Instant::now();
                let answer = sender.send_request(request).await.expect("an answer");
                let (head, body) = answer.into_parts();
                body.collect().await.expect("its body");
                let retry_after = head.headers.get("retry-after").and_then(|value| value.to_str().ok());
                Outcome {
                    status: head.status,
                    retry_after: retry_after.map(str::to_owned),
                    took: began.elapsed(),
                    at: Instant::now(),
                }
            })
        };
        Asked(numbers.map(ask).collect())
    }

    /// Waits for what they get.
    pub fn outcomes(&self, asked: Asked) -> Vec<Outcome> {
        let all = async move {
            let mut outcomes = Vec::new();
            for one in asked.0 {
                outcomes.push(one.await.expect("no panic"));
            }
            outcomes
        };
        self.runtime.block_on(all)
    }
}
