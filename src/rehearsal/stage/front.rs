//! What stands before a lane's replicas: a balancer, or tidegate.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    pin::Pin,
};

use serde::Serialize;

use super::balancer::Balancer;

type Pending<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// What a tidegate is started with, as an operator would.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Where its clients come in.
    pub listen: SocketAddr,
    /// For its configuration and its admin socket.
    pub folder: PathBuf,
    /// Core's key, as the operator mounts it.
    pub key_file: PathBuf,
    /// Its endpoints at the start.
    pub replicas: Vec<SocketAddr>,
}

/// Starts a tidegate; returns when it is ready. The rehearsal doesn't know how: the assembly does.
pub type StartGate = fn(Wanted) -> Pending<'static, Box<dyn Gate>>;

/// A running tidegate.
pub trait Gate: Send + Sync {
    /// Gives it these endpoints; returns when it serves them and knows their keys.
    fn serve<'a>(&'a self, replicas: &'a [SocketAddr]) -> Pending<'a, ()>;
    /// What it has counted so far.
    fn counted(&self) -> Pending<'_, Gated>;
    /// Ends it.
    fn end(self: Box<Self>) -> Pending<'static, ()>;
}

/// What a tidegate counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Gated {
    /// Rescued requests, by reason.
    pub rescues: BTreeMap<String, u64>,
    /// Answers of its own in place of Harbor's, by reason.
    pub rejections: BTreeMap<String, u64>,
}

pub(super) enum Front {
    /// Not there yet.
    Nothing,
    Balancer(Balancer),
    Gate(Box<dyn Gate>),
}

impl Front {
    /// A balancer without replicas, or nothing.
    pub(super) async fn nothing(direct: bool) -> io::Result<Self> {
        Ok(if direct { Self::Balancer(Balancer::start().await?) } else { Self::Nothing })
    }

    /// Where clients come in; a free port for what isn't there yet.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Balancer(balancer) => Ok(balancer.address()),
            Self::Nothing | Self::Gate(_) => {
                std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
            }
        }
    }

    pub(super) async fn serve(&self, replicas: &[SocketAddr]) -> io::Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::Balancer(balancer) => {
                balancer.serve(replicas).await;
                Ok(())
            }
            Self::Gate(gate) => gate.serve(replicas).await,
        }
    }

    pub(super) async fn counted(&self) -> io::Result<Gated> {
        match self {
            Self::Nothing | Self::Balancer(_) => Ok(Gated::default()),
            Self::Gate(gate) => gate.counted().await,
        }
    }

    pub(super) async fn end(self) -> io::Result<()> {
        match self {
            Self::Nothing | Self::Balancer(_) => Ok(()),
            Self::Gate(gate) => gate.end().await,
        }
    }
}
