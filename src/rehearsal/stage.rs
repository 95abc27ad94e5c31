//! One lane's Harbor and its upgrade: two replicas, and one after the other gives way to one with the new key and the
//! next version.

mod balancer;
mod folder;
mod front;

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::net::TcpSocket;

use super::harbor::{
    Core, CoreKey, CoreOptions, KeyForm, Latency, MemoryRegistry, RegistryBackend, Version, World,
};
pub use folder::Folder;
use front::Front;
pub use front::{Gate, Gated, StartGate, Wanted};

/// What Harbor is upgraded from, and to.
pub const VERSIONS: [Version; 2] = [Version::V2_10_2, Version::V2_15_2];
/// Bytes of layers in a lane's registry at most; what was pushed is forgotten at once.
const REGISTRY: u64 = 512 << 20;
/// What core's work costs beyond what the stand-in really does (contract N).
const LATENCY: Latency = Latency {
    token: Duration::from_millis(15),
    bearer: Duration::from_millis(5),
    password: Duration::from_millis(7),
};

/// How long a replica that was killed is gone: core serves again 1 to 2 s after its start (U8).
const GONE: Duration = Duration::from_millis(1_200);

/// The key files of both.
const FILES: [&str; 2] = ["former.pem", "new.pem"];
/// A free port.
const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The keys of the rehearsal: the same for both lanes.
#[derive(Debug)]
pub struct Keys {
    /// Before the upgrade, and after it.
    pub both: [CoreKey; 2],
}

impl Keys {
    /// Two new keys of the size that Harbor's chart makes.
    pub fn generate() -> io::Result<Self> {
        Ok(Self { both: [CoreKey::generate(2048)?, CoreKey::generate(2048)?] })
    }
}

/// A lane's Harbor with what stands before it.
pub struct Stage {
    /// Where clients come in.
    pub front: SocketAddr,
    /// Where images end.
    pub registry: Arc<MemoryRegistry>,
    folder: PathBuf,
    world: Arc<World>,
    keys: Arc<Keys>,
    door: Front,
    replicas: Vec<Replica>,
}

/// A core before (0) or after (1) the upgrade.
struct Replica {
    core: Core,
    which: usize,
}

impl Stage {
    /// Two replicas of the former version with the former key, behind a balancer, or behind tidegate where there is
    /// something that starts it. `folder` is the lane's own.
    pub async fn set(folder: PathBuf, keys: Arc<Keys>, start: Option<StartGate>) -> io::Result<Self> {
        fs::create_dir(&folder)?;
        for (key, name) in keys.both.iter().zip(FILES) {
            key.overwrite(&folder.join(name), KeyForm::Pkcs1)?;
        }
        let registry = Arc::new(MemoryRegistry::new(REGISTRY));
        let world = Arc::new(World::sample_with(RegistryBackend::Memory(Arc::clone(&registry))));
        let mut door = Front::nothing(start.is_none()).await?;
        let mut stage = Self {
            front: door.address()?,
            registry,
            folder,
            world,
            keys,
            door: Front::Nothing,
            replicas: Vec::new(),
        };
        for _ in 0..2 {
            stage.replicas.push(stage.replica(0, ANY).await?);
        }
        if let Some(start) = start {
            stage.keys.both[0].overwrite(&stage.known(), KeyForm::Pkcs1)?;
            let wanted = Wanted {
                listen: stage.front,
                folder: stage.folder.clone(),
                key_file: stage.known(),
                replicas: stage.addresses(),
            };
            door = Front::Gate(start(wanted).await?);
        }
        door.serve(&stage.addresses()).await?;
        stage.door = door;
        Ok(stage)
    }

    /// A replica with the new key joins. Where tidegate reads the key file, it was replaced with the upgrade.
    pub async fn join(&mut self) -> io::Result<()> {
        if matches!(self.door, Front::Gate(_)) {
            self.keys.both[1].rename_into(&self.known(), KeyForm::Pkcs1)?;
        }
        self.replicas.push(self.replica(1, ANY).await?);
        self.door.serve(&self.addresses()).await
    }

    /// The oldest replica leaves the endpoints, and stops when its last request has ended.
    pub async fn leave(&mut self) -> io::Result<()> {
        let leaving = self.replicas.remove(0);
        self.door.serve(&self.addresses()).await?;
        leaving.core.stop().await;
        Ok(())
    }

    /// Whether only replicas with the new key are left.
    pub fn is_upgraded(&self) -> bool {
        self.replicas.iter().all(|replica| replica.which == 1)
    }

    /// The oldest replica ends without draining, and is there again a little later, at the same address; nobody is
    /// told (U8).
    pub async fn restart(&mut self) -> io::Result<()> {
        let Replica { core, which } = self.replicas.remove(0);
        let address = core.address();
        core.terminate().await;
        // Bound and not listening, it refuses connections, and keeps the port from becoming one of theirs.
        let kept = TcpSocket::new_v4()?;
        kept.set_reuseaddr(true)?;
        kept.bind(address)?;
        tokio::time::sleep(GONE).await;
        let replica = self.replica(which, address).await?;
        self.replicas.insert(0, replica);
        Ok(())
    }

    /// Core's key file is emptied (K9), as tidegate sees it too.
    pub fn break_key(&self) -> io::Result<()> {
        self.keys.both[1].overwrite(&self.folder.join(FILES[1]), KeyForm::Empty)?;
        self.keys.both[1].overwrite(&self.known(), KeyForm::Empty)
    }

    /// It is whole again.
    pub fn mend_key(&self) -> io::Result<()> {
        self.keys.both[1].overwrite(&self.folder.join(FILES[1]), KeyForm::Pkcs1)?;
        self.keys.both[1].overwrite(&self.known(), KeyForm::Pkcs1)
    }

    /// What tidegate has counted so far; nothing where there is none.
    pub async fn counted(&self) -> io::Result<Gated> {
        self.door.counted().await
    }

    /// Ends it all.
    pub async fn strike(self) -> io::Result<()> {
        let ended = self.door.end().await;
        for replica in self.replicas {
            replica.core.kill().await;
        }
        ended
    }

    /// The file that tidegate knows core's key by.
    fn known(&self) -> PathBuf {
        self.folder.join("private_key.pem")
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.replicas.iter().map(|replica| replica.core.address()).collect()
    }

    async fn replica(&self, which: usize, listen: SocketAddr) -> io::Result<Replica> {
        let key_file = self.folder.join(FILES[which]);
        let public = format!("http://{}", self.front);
        let mut options = CoreOptions::new(VERSIONS[which], key_file, Arc::clone(&self.world), &public);
        options.latency = LATENCY;
        Ok(Replica { core: Core::start(listen, options).await?, which })
    }
}
