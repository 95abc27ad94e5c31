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

/// Accepts until told to stop, then waits for the connections that are busy.
pub(super) async fn accept(listener: TcpListener, inner: Arc<Inner>, stopping: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let mut told = stopping.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    add(&inner.counters.connections);
                    connections.spawn(serve(stream, Arc::clone(&inner), stopping.clone()));
                }
                // Out of files, or a peer that left before it was accepted: neither ends a server.
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            },
            Some(_) = connections.join_next() => {}
            () = told_to_stop(&mut told) => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// The requests of one connection, one after the other.
async fn serve(stream: TcpStream, inner: Arc<Inner>, mut stopping: watch::Receiver<bool>) {
    let mut connection = Connection::new(stream);
    let peer = connection.peer().ok();
    loop {
        let head = tokio::select! {
            biased;
            head = connection.head() => head,
            () = told_to_stop(&mut stopping) => return,
        };
        let head = match head {
            Ok(Some(head)) => head,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                _ = connection.write(BAD_REQUEST).await;
                return;
            }
            Ok(None) | Err(_) => return,
        };
        match exchange(&inner, &head, &mut connection, peer, &stopping).await {
            Ok(Next::Request) => {}
            Ok(Next::Linger) => return connection.linger().await,
            Ok(Next::Close) | Err(_) => return,
        }
    }
}

/// Returns when the core is to stop, or is gone.
async fn told_to_stop(stopping: &mut watch::Receiver<bool>) {
    _ = stopping.wait_for(|stop| *stop).await;
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
    stopping: &watch::Receiver<bool>,
) -> io::Result<Next> {
    let mut body = RequestBody::of(head, connection)?;
    let reply = inner.answer(head, &mut body, peer).await;
    let unread = body.settle().await == Afterwards::Linger;
    let asked = head.minor == 0
        || head.header("connection").is_some_and(|value| value.to_ascii_lowercase().contains("close"));
    let close = unread || asked || *stopping.borrow();
    let written = reply.write(&mut body, &head.method, inner.clock.now_precise(), close).await?;
    if written == Written::Short {
        return Ok(Next::Close);
    }
    if unread {
        body.read_on().await;
        return Ok(Next::Linger);
    }
    Ok(if close { Next::Close } else { Next::Request })
}
