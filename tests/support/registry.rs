//! The real registry: docker-registry with one user by htpasswd, as it stands behind Harbor core, or one that takes
//! tokens by itself.

use super::{
    http, ports,
    process::{self, Program},
    settings,
};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tempfile::TempDir;

/// The name under which core is known to its registry, as in Harbor.
pub const USER: &str = "harbor_registry_user";
/// That user's password in the tests.
pub const PASSWORD: &str = "registry-password";

/// A running registry.
#[derive(Debug)]
pub struct Registry {
    pub address: SocketAddr,
    program: Program,
    folder: TempDir,
}

impl Registry {
    /// Starts one with an empty storage folder.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let htpasswd = folder.path().join("htpasswd");
        let hashed = process::run(
            Command::new(settings::packaged("htpasswd")).args(["-Bbn", "-C", "4", USER, PASSWORD]),
            Duration::from_secs(10),
        );
        fs::write(&htpasswd, hashed.expect("htpasswd hashes a password").trim())
            .expect("the user file is written");
        let auth =
            format!("htpasswd: {{ realm: harbor-registry-basic-realm, path: {} }}", htpasswd.display());
        Self::start_with(&debians(), &auth, folder)
    }

    /// distribution 2.8 by itself, which takes tokens of Harbor's that a key of this bundle of certificates signed.
    #[allow(dead_code, reason = "not every suite has one")]
    pub fn with_bundle(bundle: &Path) -> Self {
        Self::with_tokens(&debians(), &format!("rootcertbundle: {}", bundle.display()))
    }

    /// The same on this address, whose clients get their tokens from there.
    #[allow(dead_code, reason = "not every suite has one")]
    pub fn with_bundle_of(bundle: &Path, realm: &str, address: SocketAddr) -> Self {
        let keys = format!("rootcertbundle: {}", bundle.display());
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::start_at(address, &debians(), &tokens(realm, &keys), folder)
    }

    /// Ends it and starts it again with another bundle, on the same address and storage.
    #[allow(dead_code, reason = "not every suite has one")]
    pub fn again(self, bundle: &Path, realm: &str) -> Self {
        let Self { address, program, folder } = self;
        drop(program);
        let keys = format!("rootcertbundle: {}", bundle.display());
        Self::start_at(address, &debians(), &tokens(realm, &keys), folder)
    }

    /// distribution 3, which takes those that a key of this JWKS signed.
    #[allow(dead_code, reason = "not every suite has one")]
    pub fn with_jwks(jwks: &Path) -> Self {
        Self::with_tokens(&settings::built("registry-3"), &format!("jwks: {}", jwks.display()))
    }

    /// distribution 3 with a bundle of certificates, whose keys it knows by their thumbprints.
    #[allow(dead_code, reason = "not every suite has one")]
    pub fn third_with_bundle(bundle: &Path) -> Self {
        Self::with_tokens(&settings::built("registry-3"), &format!("rootcertbundle: {}", bundle.display()))
    }

    fn with_tokens(binary: &Path, keys: &str) -> Self {
        let auth = tokens("http://harbor.example/service/token", keys);
        Self::start_with(binary, &auth, tempfile::tempdir().expect("a temporary folder"))
    }

    fn start_with(binary: &Path, auth: &str, folder: TempDir) -> Self {
        Self::start_at(ports::free(), binary, auth, folder)
    }

    fn start_at(address: SocketAddr, binary: &Path, auth: &str, folder: TempDir) -> Self {
        let configuration = folder.path().join("registry.yml");
        fs::write(&configuration, configure(address, auth, folder.path()))
            .expect("the configuration is written");
        let name = binary.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let mut program =
            Program::start(Command::new(binary).arg("serve").arg(&configuration), folder.path(), name);
        program.wait_until(Duration::from_secs(20), || http::get(address, "/v2/", &[]).is_ok());
        let version = process::run(Command::new(binary).arg("--version"), Duration::from_secs(10));
        let version = version.expect("a registry tells its version");
        settings::took_part(name, version.split_whitespace().last().unwrap_or_default());
        Self { address, program, folder }
    }

    /// Bytes on disk of an open upload.
    pub fn stored_of_upload(&self, repository: &str, id: &str) -> u64 {
        let uploads = format!("storage/docker/registry/v2/repositories/{repository}/_uploads");
        let data = self.folder.path().join(uploads).join(id).join("data");
        fs::metadata(data).map_or(0, |data| data.len())
    }

    /// Removes what is on disk of a repository's open uploads.
    pub fn forget_uploads(&self, repository: &str) {
        let uploads = format!("storage/docker/registry/v2/repositories/{repository}/_uploads");
        // It makes the folder with the first upload.
        let _ = fs::remove_dir_all(self.folder.path().join(uploads));
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        self.program.output()
    }
}

fn tokens(realm: &str, keys: &str) -> String {
    format!("token: {{ realm: \"{realm}\", service: harbor-registry, issuer: harbor-token-issuer, {keys} }}")
}

/// distribution 2.8, as Debian has it.
fn debians() -> PathBuf {
    settings::packaged("docker-registry")
}

fn configure(address: SocketAddr, auth: &str, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "version: 0.1
log: {{ level: error, accesslog: {{ disabled: true }} }}
storage:
  filesystem: {{ rootdirectory: {folder}/storage }}
  delete: {{ enabled: true }}
  maintenance: {{ uploadpurging: {{ enabled: false }} }}
auth:
  {auth}
http:
  addr: {address}
  secret: registry-http-secret
"
    )
}
