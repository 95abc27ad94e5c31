//! Binding the admin listener to its address, or to its socket of mode 0600.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};

use super::Peer;
use crate::{app::config::AdminAddress, edges::listener};

/// A bound listener. A Unix socket is removed when it is dropped.
pub struct Bound {
    listener: Listener,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Bound {
    /// Binds it. Why not, where not, is said by `app::binding`.
    pub async fn bind(address: &AdminAddress) -> io::Result<Self> {
        let listener = match address {
            AdminAddress::Tcp(address) => Listener::Tcp(TcpListener::bind(address).await?),
            AdminAddress::Unix(path) => Listener::Unix(bind_unix(path)?, path.clone()),
        };
        Ok(Self { listener })
    }

    /// The address that was bound; `None` for a Unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.listener {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(..) => None,
        }
    }

    /// The next connection. Errors are of single connections, or pass (no file descriptors): after a moment, again.
    pub(super) async fn accept(&self) -> (Stream, Peer) {
        loop {
            let accepted = match &self.listener {
                Listener::Tcp(listener) => listener.accept().await.and_then(|(stream, _)| {
                    let ours = stream.local_addr()?;
                    Ok((Stream::Tcp(stream), Peer::Tcp(ours)))
                }),
                Listener::Unix(listener, _) => {
                    listener.accept().await.map(|(stream, _)| (Stream::Unix(stream), Peer::Unix))
                }
            };
            match accepted {
                Ok(connection) => return connection,
                Err(error) => {
                    tracing::warn!(%error, "the admin listener couldn't accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = &self.listener
            && let Err(error) = fs::remove_file(path)
        {
            tracing::debug!(%error, path = %path.display(), "the admin socket was gone already");
        }
    }
}

/// Whether the listener could be bound now; what is made for it is gone again.
pub fn can_bind(address: &AdminAddress) -> io::Result<()> {
    match address {
        AdminAddress::Tcp(address) => listener::can_bind(*address),
        AdminAddress::Unix(path) => {
            is_free(path)?;
            let trial = beside(path, ".check")?;
            std::os::unix::net::UnixListener::bind(&trial)?;
            fs::remove_file(&trial)
        }
    }
}

/// The socket is made under another name, given its mode, and renamed: at its path it never has a wider one.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    is_free(path)?;
    let hidden = beside(path, ".new")?;
    let listener = UnixListener::bind(&hidden)?;
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o600))?;
    fs::rename(&hidden, path)?;
    Ok(listener)
}

fn is_free(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => {
            let found = "the path is taken by something that is no socket";
            Err(io::Error::new(io::ErrorKind::AlreadyExists, found))
        }
        // A socket that nobody listens on is what a crash left behind; on a live one we mustn't climb.
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens on this socket"))
        }
        _ => Ok(()),
    }
}

/// A path beside the socket's, where no other socket is left.
fn beside(path: &Path, ending: &str) -> io::Result<PathBuf> {
    let mut hidden = path.as_os_str().to_owned();
    hidden.push(ending);
    let hidden = PathBuf::from(hidden);
    if fs::symlink_metadata(&hidden).is_ok_and(|meta| meta.file_type().is_socket()) {
        fs::remove_file(&hidden)?;
    }
    Ok(hidden)
}

/// A connection of either kind.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
