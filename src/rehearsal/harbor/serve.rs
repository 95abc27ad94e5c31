//! Connections of a core: accepted, served request by request, ended as Go ends them.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use super::{
    hooks::add,
    replica::Inner,
    wire::{
        connection::Connection,
        head::Head,
        reply::Written,
        request_body::{Afterwards, RequestBody},
    },
};

/// Go's answer to what is no request.
const BAD_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n400 Bad Request";

/// What a core's owner wants of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Serve,
    /// Accept nothing more, end what is idle, finish what is busy.
    Finish,
    /// Close everything at once.
    Die,
}

/// Accepts until told otherwise, then waits for the connections that are busy, or ends them.
pub(super) async fn accept(listener: TcpListener, inner: Arc<Inner>, tells: watch::Receiver<Told>) {
    let mut connections = JoinSet::new();
    let mut told = tells.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    add(&inner.counters.connections);
                    connections.spawn(serve(stream, Arc::clone(&inner), tells.clone()));
                }
                // Out of files, or a peer that left before it was accepted: neither ends a server.
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            },
            Some(_) = connections.join_next() => {}
            () = told_to_stop(&mut told) => break,
        }
    }
    drop(listener);
    if *told.borrow() == Told::Die {
        connections.abort_all();
    }
    while connections.join_next().await.is_some() {}
}

/// The requests of one connection, one after the other.
async fn serve(stream: TcpStream, inner: Arc<Inner>, mut told: watch::Receiver<Told>) {
    let mut connection = Connection::new(stream);
    let peer = connection.peer().ok();
    loop {
        let head = tokio::select! {
            biased;
            head = connection.head() => head,
            () = told_to_stop(&mut told) => return,
        };
        let head = match head {
            Ok(Some(head)) => head,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                _ = connection.write(BAD_REQUEST).await;
                return;
            }
            Ok(None) | Err(_) => return,
        };
        match exchange(&inner, &head, &mut connection, peer, &told).await {
            Ok(Next::Request) => {}
            Ok(Next::Linger) => return connection.linger().await,
            Ok(Next::Close) | Err(_) => return,
        }
    }
}

/// Returns when the core is to stop, or is gone.
async fn told_to_stop(told: &mut watch::Receiver<Told>) {
    _ = told.wait_for(|told| *told != Told::Serve).await;
}

/// What a connection does after an answer.
enum Next {
    Request,
    Linger,
    Close,
}

/// One request and its answer.
async fn exchange(
    inner: &Inner,
    head: &Head,
    connection: &mut Connection,
    peer: Option<SocketAddr>,
    told: &watch::Receiver<Told>,
) -> io::Result<Next> {
    let mut body = RequestBody::of(head, connection)?;
    let Some(reply) = inner.answer(head, &mut body, peer).await else { return Ok(Next::Close) };
    let unread = body.settle().await == Afterwards::Linger;
    let asked = head.minor == 0
        || head.header("connection").is_some_and(|value| value.to_ascii_lowercase().contains("close"));
    let close = unread || asked || *told.borrow() != Told::Serve;
    let deed = reply.deed;
    let written = reply.write(&mut body, &head.method, inner.clock.now_precise(), close).await?;
    if written == Written::Short {
        return Ok(Next::Close);
    }
    inner.world.acknowledge(deed);
    if unread {
        body.read_on().await;
        return Ok(Next::Linger);
    }
    Ok(if close { Next::Close } else { Next::Request })
}
