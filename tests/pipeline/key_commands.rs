//! `tidegate keys` as an operator types it.

use crate::{
    operating::with_token,
    stage::{DEV, MANIFEST, Replica, SCOPE, Setup, Stage, hold, kid, pull, token},
    support::{gate::Gate, registry::Registry, settings},
    talk::Ask,
};
use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tidegate::{
    decisions::record::seal,
    words::clock::{Clock, UnixTime},
};

/// A gate before a core, and the admin token's file.
pub struct Scene {
    pub stage: Stage,
    pub core: Replica,
    pub gate: Gate,
    pub secret: PathBuf,
}

impl Scene {
    pub fn new() -> Self {
        Self::of("")
    }

    /// With more at the top of the gate's configuration.
    fn of(top: &str) -> Self {
        let stage = Stage::new();
        let core = stage.replica("core", |_| {});
        core.seed();
        let setup = Setup::before(&[&core], &[&core.key_file]).rest("[replay]\nenabled = false\n").top(top);
        Self::by(stage, core, &setup)
    }

    pub fn by(stage: Stage, core: Replica, setup: &Setup) -> Self {
        let (gate, secret) = with_token(&stage, setup);
        Self { stage, core, gate, secret }
    }

    /// The exit code and all that `tidegate keys …` printed.
    pub fn keys(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.command(arguments).output().expect("tidegate runs");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).expect("text");
        (output.status.code().unwrap_or(-1), text)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let admin = format!("http://{}", self.gate.admin);
        let which = ["--admin", &admin, "--admin-token-file"];
        let mut command = Command::new(settings::tidegate());
        command.arg("keys").args(arguments).args(which).arg(&self.secret);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn done(&self, arguments: &[&str]) -> String {
        let (code, text) = self.keys(arguments);
        assert_eq!(code, 0, "{arguments:?}\n{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        text
    }

    fn refused(&self, arguments: &[&str], words: &str) {
        let (code, text) = self.keys(arguments);
        assert_eq!(code, 1, "{arguments:?}\n{text}");
        assert!(text.starts_with("error: ") && text.contains(words), "{words}\n{text}");
    }

    pub fn is_in_state(&self, key: usize, state: &str) {
        self.gate.wait_for(&format!("key {key} is {state}"), |metrics| {
            metrics.sum("tidegate_key_state", &[("kid", &kid(key)), ("state", state)]) > 0.5
        });
    }

    fn pulled(&self, token: &str) -> u16 {
        pull(MANIFEST).bearer(token).at(self.gate.address).status
    }

    /// A token of another replica, which holds this key.
    fn token_of(&self, key: usize) -> String {
        let other = self.stage.replica("other", |_| {});
        hold(&other.key_file, key);
        token(other.address, DEV, SCOPE)
    }

    /// A file of a key that seals archives.
    pub fn seal_key(&self, name: &str, byte: u8) -> String {
        let path = self.stage.path(name);
        fs::write(&path, &**seal::written(&[byte; seal::KEY])).expect("a key");
        text(&path)
    }

    /// An archive of the keys as they are.
    pub fn backed_up(&self, name: &str, key: &str) -> String {
        let archive = text(&self.stage.path(name));
        self.done(&["back-up", &archive, "--key-file", key]);
        archive
    }

    pub fn upgrade(&self) {
        hold(&self.core.key_file, 1);
        self.is_in_state(1, "signing");
        self.is_in_state(0, "verifying");
    }

    fn held(&self) -> Vec<u8> {
        fs::read(&self.core.key_file).expect("core's key")
    }
}

pub fn mode(path: &Path) -> u32 {
    path.metadata().expect("a file").permissions().mode() & 0o7777
}

pub fn text(path: &Path) -> String {
    path.display().to_string()
}

fn registry_takes(registry: &Registry, token: &str) -> u16 {
    Ask::get("/v2/").on(&registry.address.to_string()).bearer(token).at(registry.address).status
}

#[test]
fn registries_that_are_given_the_keys_take_tokens_of_all_that_verify() {
    let scene = Scene::new();
    let former = token(scene.core.address, DEV, SCOPE);
    hold(&scene.core.key_file, 1);
    scene.is_in_state(0, "verifying");
    scene.is_in_state(1, "signing");
    let present = token(scene.core.address, DEV, SCOPE);
    let foreign = scene.token_of(2);
    let (bundle, jwks) = (scene.stage.path("bundle.pem"), scene.stage.path("keys.json"));
    let publish = ["publish", "--bundle", &text(&bundle), "--jwks", &text(&jwks)];
    let said = scene.done(&publish);
    assert_eq!(said.matches("is written").count(), 2, "{said}");
    for (registry, keys) in [(Registry::with_bundle(&bundle), &bundle), (Registry::with_jwks(&jwks), &jwks)] {
        let taken = [&former, &present, &foreign].map(|token| registry_takes(&registry, token));
        assert_eq!(taken, [200, 200, 401], "{}\n{}", registry.log(), fs::read_to_string(keys).expect("text"));
    }
    let again = scene.done(&publish);
    assert_eq!(again.matches("says this already").count(), 2, "{again}");
    let served = Ask::get("/.tidegate/jwks.json").on(&scene.gate.admin.to_string()).at(scene.gate.admin);
    assert_eq!(served.text().trim(), fs::read_to_string(&jwks).expect("text").trim());
    let (link, says) = (scene.stage.path("link.pem"), fs::read(&bundle).expect("the bundle"));
    std::os::unix::fs::symlink(&bundle, &link).expect("a link");
    fs::write(&bundle, "what was there before").expect("a file");
    scene.done(&["publish", "--bundle", &text(&link)]);
    assert_eq!((link.is_symlink(), fs::read(&bundle).expect("the bundle")), (true, says));
    let nowhere = scene.stage.path("nowhere/bundle.pem");
    scene.refused(&["publish", "--bundle", &text(&nowhere)], "was not written");
}

/// An upgrade that happened before tidegate was put there: core's former key is in no source.
#[test]
fn a_key_that_tidegate_never_saw_verifies_once_it_is_added() {
    let scene = Scene::new();
    let (former, file) = (scene.token_of(2), scene.stage.path("former.pem"));
    hold(&file, 2);
    scene.is_in_state(0, "signing");
    assert_eq!(scene.pulled(&former), 401);
    let now = Clock::system().now().0;
    for (signed_until, words) in [(now - 7_200, "ended at"), (now + 60, "yet to come")] {
        let date = UnixTime(signed_until).rfc3339();
        scene.refused(&["add", &text(&file), "--signed-until", &date], words);
    }
    assert_eq!(scene.pulled(&former), 401);
    let listed = scene.done(&["add", &text(&file), "--alias", "before-tidegate"]);
    assert!(listed.contains(&kid(2)) && listed.contains("public, from keys add"), "{listed}");
    assert_eq!(scene.pulled(&former), 200, "{}", scene.gate.tail());
    scene.refused(&["add", &text(&file)], "in the ring already");
    scene.refused(&["add", &text(&scene.secret)], "neither PEM blocks nor a JWKS");
    scene.refused(&["retire", "before-tidegate"], "--now ends it at once");
    assert_eq!(scene.pulled(&former), 200, "its tokens live, and so does it");
    scene.done(&["retire", "before-tidegate", "--now"]);
    assert_eq!(scene.pulled(&former), 401);
    scene.refused(&["add", &text(&file)], "retired at once");
}

/// The first half is the same without the archive: core alone refuses the tokens of the other side.
#[test]
fn an_upgrade_that_is_backed_out_leaves_the_tokens_of_both_sides_good() {
    let scene = Scene::new();
    // Core is another user, who must be able to read it.
    fs::set_permissions(&scene.core.key_file, fs::Permissions::from_mode(0o444)).expect("a mode");
    let (before, key) = (scene.held(), scene.seal_key("seal.key", 7));
    // Of core's own: the gate would give the answer that it has.
    let former = token(scene.core.address, DEV, SCOPE);
    let archive = scene.backed_up("before.keys", &key);
    assert_eq!(mode(Path::new(&archive)), 0o600);
    scene.upgrade();
    let upgraded = scene.held();
    let present = token(scene.core.address, DEV, SCOPE);
    assert_eq!([&former, &present].map(|token| scene.pulled(token)), [200, 200]);

    let restore = ["restore", &archive, "--key-file", &key];
    let would = scene.done(&[&restore[..], &["--dry-run"]].concat());
    assert!(would.contains("mode 444)") && would.contains("nothing was changed"), "{would}");
    assert!(would.contains(&kid(0)) && would.contains(&kid(1)), "{would}");
    assert_eq!(scene.held(), upgraded);
    let said = scene.done(&restore);
    assert_eq!(said, would.replace("nothing was changed (--dry-run)\n", ""));
    assert_eq!((scene.held(), mode(&scene.core.key_file)), (before, 0o444), "as it was, for core");
    scene.is_in_state(0, "signing");
    scene.is_in_state(1, "verifying");
    let last = token(scene.core.address, DEV, SCOPE);
    let directly = [&former, &present, &last].map(|t| pull(MANIFEST).bearer(t).at(scene.core.address).status);
    assert_eq!(directly, [200, 401, 200], "core alone");
    let taken = [&former, &present, &last].map(|token| scene.pulled(token));
    assert_eq!(taken, [200; 3], "{}", scene.gate.tail());
    assert!(scene.done(&restore).contains("holds the same"));
}

/// Core runs as a user of its own, and reads what that user may.
#[test]
fn a_key_file_is_put_back_with_the_owner_that_it_had() {
    let scene = Scene::new();
    let (path, key) = (&scene.core.key_file, scene.seal_key("seal.key", 7));
    let owner = |path: &Path| {
        let about = path.metadata().expect("a file");
        (about.uid(), about.gid())
    };
    // Who isn't root has to do with one owner.
    let given = chown(path, Some(10_000), Some(10_001)).is_ok();
    let bits = if given { 0o400 } else { 0o444 };
    fs::set_permissions(path, fs::Permissions::from_mode(bits)).expect("a mode");
    let before = owner(path);
    assert!(!given || before == (10_000, 10_001));
    let archive = scene.backed_up("before.keys", &key);
    scene.upgrade();
    assert!(!given || owner(path) != before);
    for (bits, is_open) in [(0o644, true), (0o600, false)] {
        fs::set_permissions(&key, fs::Permissions::from_mode(bits)).expect("a mode");
        let said = scene.done(&["restore", &archive, "--key-file", &key, "--dry-run"]);
        assert_eq!(said.contains("is readable by the world"), is_open, "the archive's key: {said}");
    }
    let said = scene.done(&["restore", &archive, "--key-file", &key]);
    assert!(said.contains(&format!("({}:{}, mode {bits:o})", before.0, before.1)), "{said}");
    assert_eq!((owner(path), mode(path)), (before, bits));
    scene.is_in_state(0, "signing");
}

#[test]
fn a_damaged_or_foreign_archive_is_refused_and_nothing_is_changed() {
    let scene = Scene::of("deployment = \"here\"");
    let (key, other) = (scene.seal_key("seal.key", 7), scene.seal_key("other.key", 8));
    let elsewhere = Scene::of("deployment = \"elsewhere\"");
    let foreign = elsewhere.backed_up("foreign.keys", &key);
    let archive = scene.backed_up("before.keys", &key);
    scene.upgrade();
    let upgraded = scene.held();
    let whole = fs::read(&archive).expect("the archive");
    let bad = scene.stage.path("bad.keys");
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for (bytes, words) in [
        (&flipped[..], "its checksum doesn't fit"),
        (&whole[..whole.len() - 1], "its checksum doesn't fit"),
        (&b""[..], "its checksum doesn't fit"),
        (&upgraded[..], "no archive of tidegate's keys"),
    ] {
        fs::write(&bad, bytes).expect("a file");
        scene.refused(&["restore", &text(&bad), "--key-file", &key], words);
    }
    scene.refused(&["restore", &archive, "--key-file", &other], "sealed with another key");
    scene.refused(&["restore", &archive, "--passphrase-file", &other], "sealed with a key");
    scene.refused(&["restore", &foreign, "--key-file", &key], "for the deployment \"elsewhere\"");
    scene.refused(&["back-up", &archive, "--key-file", &key], "is there already");
    assert_eq!((scene.held(), fs::read(&archive).expect("the archive")), (upgraded, whole));
    scene.is_in_state(1, "signing");
}

#[test]
fn a9_a_key_that_was_retired_since_is_not_put_back() {
    let scene = Scene::new();
    let key = scene.seal_key("seal.key", 7);
    let former = token(scene.gate.address, DEV, SCOPE);
    let archive = scene.backed_up("before.keys", &key);
    scene.upgrade();
    let upgraded = scene.held();
    scene.done(&["retire", &kid(0), "--now"]);
    let listed = scene.done(&["list"]);
    assert!(listed.contains(&kid(0)) && listed.contains("retired since 20"), "{listed}");
    for more in [&["--dry-run"][..], &[]] {
        let (code, said) = scene.keys(&[&["restore", &archive, "--key-file", &key], more].concat());
        assert_eq!(code, 1, "a file is left out: {said}");
        assert!(said.contains("is left out: this key was retired at once"), "{said}");
        assert!(said.contains("not all of it: files that are left out: 1"), "{said}");
    }
    assert_eq!((scene.held(), scene.pulled(&former)), (upgraded, 401));
}

/// What a configuration lists is known to no store: it counts all the same, here and where the archive goes.
#[test]
fn a9_a_key_that_is_listed_as_retired_is_not_put_back() {
    let scene = Scene::new();
    let (key, leaked) = (scene.seal_key("seal.key", 7), scene.stage.path("leaked.pem"));
    let archive = scene.backed_up("before.keys", &key);
    scene.upgrade();
    let upgraded = scene.held();
    hold(&leaked, 0);
    let listed = format!("{{ file = \"{}\", state = \"retired\" }}", leaked.display());
    let setup = Setup::before(&[&scene.core], &[&scene.core.key_file]).source(&listed);
    let (gate, secret) = with_token(&scene.stage, &setup);
    let scene = Scene { gate, secret, ..scene };
    let (code, said) = scene.keys(&["restore", &archive, "--key-file", &key]);
    assert_eq!((code, scene.held()), (1, upgraded), "{said}");
    assert!(said.contains("is left out: this key was retired at once"), "{said}");

    let after = scene.backed_up("after.keys", &key);
    let folder = scene.stage.path("keys");
    fs::create_dir(&folder).expect("a folder");
    let (code, said) = scene.keys(&["restore", &after, "--key-file", &key, "--to", &text(&folder)]);
    assert_eq!(code, 1, "the listed file holds it: {said}");
    assert!(!folder.join("leaked.pem").exists() && folder.join("core.pem").exists(), "{said}");
}

/// Two cores' files have one name, and one of them can't be read by its core any more.
#[test]
fn files_of_one_name_are_all_written_and_who_may_read_a_file_is_put_back() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    let paths = ["x/private_key.pem", "y/private_key.pem"].map(|name| stage.path(name));
    for (key, path) in paths.iter().enumerate() {
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        hold(path, key);
        fs::set_permissions(path, fs::Permissions::from_mode(0o444)).expect("a mode");
    }
    let (gate, secret) = with_token(&stage, &Setup::before(&[&core], &paths.each_ref().map(|path| &**path)));
    let scene = Scene { stage, core, gate, secret };
    let (key, folder) = (scene.seal_key("seal.key", 7), scene.stage.path("keys"));
    let archive = scene.backed_up("before.keys", &key);
    fs::create_dir(&folder).expect("a folder");
    let said = scene.done(&["restore", &archive, "--key-file", &key, "--to", &text(&folder)]);
    for (name, path) in ["private_key.pem", "private_key-2.pem"].into_iter().zip(&paths) {
        assert_eq!(fs::read(folder.join(name)).ok(), fs::read(path).ok(), "{name}\n{said}");
    }
    fs::set_permissions(&paths[1], fs::Permissions::from_mode(0o600)).expect("a mode");
    let said = scene.done(&["restore", &archive, "--key-file", &key]);
    assert!(said.contains("holds the same, and is given to"), "{said}");
    assert_eq!(paths.each_ref().map(|path| mode(path)), [0o444; 2]);
}

/// On another machine, or after everything was lost: what was retired comes back as well.
#[test]
fn a9_what_an_archive_retired_is_retired_where_it_is_restored() {
    let scene = Scene::new();
    let passphrase = scene.stage.path("passphrase");
    fs::write(&passphrase, "a passphrase that nobody types\n").expect("a file");
    let seal = ["--passphrase-file", &text(&passphrase)];
    scene.upgrade();
    scene.done(&["retire", &kid(0), "--now"]);
    let archive = text(&scene.stage.path("after.keys"));
    scene.done(&[&["back-up", &archive][..], &seal].concat());

    let folder = scene.stage.path("keys");
    fs::create_dir(&folder).expect("a folder");
    let to = text(&folder);
    let extract = [&["restore", &archive, "--to", &to][..], &seal].concat();
    scene.done(&[&extract[..], &["--dry-run"]].concat());
    assert_eq!(folder.read_dir().expect("a folder").count(), 0);
    scene.done(&extract);
    let copy = folder.join("core.pem");
    assert_eq!((fs::read(&copy).expect("the key"), mode(&copy)), (scene.held(), 0o600));
    scene.refused(&extract, "is there already");

    let fresh = Scene::new();
    let former = token(fresh.gate.address, DEV, SCOPE);
    assert_eq!(fresh.pulled(&former), 200);
    let restore = [&["restore", &archive][..], &seal].concat();
    fresh.refused(&restore, "add it to keys.sources");
    assert_eq!(fresh.pulled(&former), 200, "nothing was changed");
    let setup = Setup::before(&[&fresh.core], &[&fresh.core.key_file, &scene.core.key_file]);
    let (gate, secret) = with_token(&fresh.stage, &setup.rest("[replay]\nenabled = false\n"));
    let fresh = Scene { gate, secret, ..fresh };
    let link = fresh.stage.path("linked");
    fs::rename(&scene.core.key_file, &link).expect("moved");
    std::os::unix::fs::symlink(&link, &scene.core.key_file).expect("a link, as in a mounted Secret");
    fs::write(&link, fs::read(&fresh.core.key_file).expect("a key")).expect("another key");
    fresh.refused(&restore, "--to FOLDER");
    assert_eq!(fresh.pulled(&former), 200, "nothing was changed");
    fs::remove_file(&scene.core.key_file).expect("the link is gone");
    let said = fresh.done(&restore);
    assert!(said.contains("retired at once") && said.contains("is made"), "{said}");
    assert_eq!(fresh.pulled(&former), 401);
}
