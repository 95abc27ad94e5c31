//! A token of SoftHSM in a folder of its own, and ways to it: the module itself, one that writes every call down, one
//! whose token is in another process.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;
use tidegate::rehearsal::harbor::{CoreKey, KeyForm};

use crate::support::{
    process::{self, Program},
    settings,
};

/// What logs in to the token.
pub const PIN: &str = "a PIN";
/// The token's label.
pub const TOKEN: &str = "harbor";
/// The label of its keys.
pub const LABEL: &str = "core";

const PATIENCE: Duration = Duration::from_secs(20);

pub struct SoftHsm {
    folder: TempDir,
}

impl SoftHsm {
    /// An empty token.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("tokens")).expect("a folder");
        let configuration =
            format!("directories.tokendir = {}/tokens\nlog.level = ERROR\n", folder.path().display());
        fs::write(folder.path().join("softhsm2.conf"), configuration).expect("a configuration");
        let hsm = Self { folder };
        hsm.util(&["--init-token", "--free", "--label", TOKEN, "--so-pin", "another PIN"]);
        let version = Command::new(settings::packaged("softhsm2-util")).arg("--version").output();
        let version = String::from_utf8_lossy(&version.expect("SoftHSM").stdout).into_owned();
        settings::took_part("softhsm2", &version);
        hsm
    }

    /// The environment variable by which the module finds its token.
    pub fn environment(&self) -> String {
        format!("SOFTHSM2_CONF={}", self.path("softhsm2.conf").display())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new("env");
        command.arg(self.environment()).arg(settings::packaged(program)).args(arguments);
        process::run(&mut command, PATIENCE).unwrap_or_else(|failure| panic!("{failure}"))
    }

    fn util(&self, arguments: &[&str]) -> String {
        self.run("softhsm2-util", &[arguments, &["--pin", PIN]].concat())
    }

    /// What `pkcs11-tool` says, logged in.
    pub fn tool(&self, arguments: &[&str]) -> String {
        let module = module().display().to_string();
        let token = ["--module", &module, "--token-label", TOKEN, "--login", "--pin", PIN];
        self.run("pkcs11-tool", &[&token, arguments].concat())
    }

    /// Puts a key into the token that core has in a file.
    pub fn import(&self, key: &CoreKey, id: &str) {
        self.import_as(key, LABEL, id);
    }

    pub fn import_as(&self, key: &CoreKey, label: &str, id: &str) {
        self.import_into(TOKEN, key, label, id);
    }

    /// Another token of the same module, with this key and the same PIN.
    pub fn second_token(&self, name: &str, key: &CoreKey) {
        self.util(&["--init-token", "--free", "--label", name, "--so-pin", "another PIN"]);
        self.import_into(name, key, LABEL, "01");
    }

    fn import_into(&self, token: &str, key: &CoreKey, label: &str, id: &str) {
        let file = self.path("import.pem");
        fs::write(&file, key.text(KeyForm::Pkcs8).expect("a key")).expect("a file");
        let file_name = file.display().to_string();
        self.util(&["--import", &file_name, "--token", token, "--label", label, "--id", id]);
        fs::remove_file(file).expect("the key is in the token alone");
    }

    /// Removes a key.
    pub fn delete(&self, id: &str) {
        for kind in ["privkey", "pubkey"] {
            self.tool(&["--delete-object", "--type", kind, "--id", id]);
        }
    }

    /// The token's private keys, with who may have them.
    pub fn private_keys(&self) -> String {
        self.tool(&["--list-objects", "--type", "privkey"])
    }

    /// A file with this PIN.
    pub fn pin_file(&self, pin: &str) -> PathBuf {
        let (file, beside) = (self.path("pin"), self.path("pin.next"));
        fs::write(&beside, format!("{pin}\n")).expect("a file");
        fs::rename(beside, &file).expect("a file");
        file
    }

    /// An entry of `keys.sources`, of the keys with [`LABEL`].
    pub fn source(&self, module: &Path) -> String {
        self.source_of(module, &format!("label = \"{LABEL}\""))
    }

    /// One with another selection.
    pub fn source_of(&self, module: &Path, objects: &str) -> String {
        let pin = if self.path("pin").exists() { self.path("pin") } else { self.pin_file(PIN) };
        format!(
            "{{ pkcs11 = {{ module = \"{}\", token = \"{TOKEN}\", {objects}, pin_file = \"{}\" }} }}",
            module.display(),
            pin.display()
        )
    }

    /// The environment of a process in which [`spy`] writes down every call.
    pub fn spied(&self) -> [String; 3] {
        [
            self.environment(),
            format!("PKCS11SPY={}", module().display()),
            format!("PKCS11SPY_OUTPUT={}", self.path("spy.log").display()),
        ]
    }

    /// What was written down so far.
    pub fn calls(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("spy.log")).unwrap_or_default()).into_owned()
    }

    /// How often this was called.
    pub fn called(&self, name: &str) -> usize {
        self.calls().lines().filter(|line| line.split(": ").nth(1) == Some(name)).count()
    }

    /// Another process that has the token, for [`remote`].
    pub fn serve(&self) -> Server<'_> {
        let mut server = Server { hsm: self, program: None };
        server.start();
        server
    }
}

/// A process that has the token and does what [`remote`] asks for.
pub struct Server<'h> {
    hsm: &'h SoftHsm,
    program: Option<Program>,
}

impl Server<'_> {
    /// The environment of a process that asks it.
    pub fn environment(&self) -> String {
        format!("P11_KIT_SERVER_ADDRESS=unix:path={}", self.hsm.path("socket").display())
    }

    pub fn start(&mut self) {
        let socket = self.hsm.path("socket");
        // What a killed one left.
        let _ = fs::remove_file(&socket);
        let mut command = Command::new("env");
        command.arg(self.hsm.environment()).arg(settings::packaged("p11-kit"));
        command.args(["server", "--foreground", "--provider"]).arg(module());
        command.arg("--name").arg(&socket).arg("pkcs11:");
        let mut program = Program::start(&mut command, self.hsm.folder.path(), "p11-kit");
        program.kill_at_once();
        program.wait_until(PATIENCE, || socket.exists());
        self.program = Some(program);
    }

    /// Ends it with all that it does.
    pub fn kill(&mut self) {
        self.signal("KILL");
        self.program = None;
    }

    /// Sends a signal to it and to the processes that serve its clients.
    pub fn signal(&self, name: &str) {
        let parent = self.program.as_ref().expect("it runs").id();
        // So that it makes no more while they are counted.
        send("STOP", parent);
        for id in with_children(parent) {
            send(name, id);
        }
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        if self.program.is_some() {
            self.kill();
        }
    }
}

/// Sends a signal to a process, if it hasn't ended by itself.
fn send(name: &str, id: u32) {
    let sent = Command::new("kill").args([&format!("-{name}"), &id.to_string()]).output().expect("kill runs");
    let is_gone = || !Path::new(&format!("/proc/{id}")).exists();
    assert!(sent.status.success() || is_gone(), "{id} takes a signal");
}

/// A process and its children, and theirs.
fn with_children(parent: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .expect("processes")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|id: u32| Some((id, parent_of(id)?)))
        .collect();
    let mut family = vec![parent];
    let mut at = 0;
    while let Some(of) = family.get(at).copied() {
        family.extend(parents.iter().filter(|(_, parent)| *parent == of).map(|(id, _)| *id));
        at += 1;
    }
    family
}

fn parent_of(id: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// SoftHSM's own module.
pub fn module() -> PathBuf {
    library("softhsm/libsofthsm2.so")
}

/// The module that asks a [`Server`].
pub fn remote() -> PathBuf {
    library("pkcs11/p11-kit-client.so")
}

/// The module that writes down every call of another one.
pub fn spy() -> PathBuf {
    library("pkcs11-spy.so")
}

fn library(name: &str) -> PathBuf {
    let folders = fs::read_dir("/usr/lib").expect("libraries").filter_map(|entry| Some(entry.ok()?.path()));
    let mut folders = folders.chain([PathBuf::from("/usr/lib")]);
    let found = folders.find_map(|folder| Some(folder.join(name)).filter(|path| path.exists()));
    found.unwrap_or_else(|| panic!("{name} is not installed: run tests/install"))
}
