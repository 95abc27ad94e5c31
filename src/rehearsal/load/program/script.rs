//! The commands of each client: what a log-in, a pull and a push are, and what tidies up. Each operation begins without
//! anything of the image on the client's side, so that its layers really travel.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use super::super::{client::Client, place::Place};

/// The tag of an image on the client's own side.
pub(super) const TAG: &str = "v1";
/// Below the home: the image to push as a folder and as a file, and what a pull fills.
pub(super) const LAYOUT: &str = "image";
pub(super) const ARCHIVE: &str = "image.tar";
pub(super) const PULLED: &str = "pulled";

/// A program and its arguments.
pub(super) type Words = Vec<String>;

/// What one operation runs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Script {
    /// One after the other, until one fails.
    pub(super) work: Vec<Words>,
    /// In any case.
    pub(super) after: Vec<Words>,
}

/// Where a client works, and as whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting<'a> {
    /// The registry as the client is told it.
    pub(super) registry: &'a str,
    pub(super) user: &'a str,
    pub(super) password: &'a str,
    pub(super) home: &'a Path,
    /// `ctr` of 1.7 and later takes the credential of its command line only when it is told to do the work itself.
    pub(super) local: bool,
}

/// What tells a client's version, its last word; docker's is its daemon's.
pub(super) fn version(client: Client) -> &'static [&'static str] {
    match client {
        Client::Docker => &["docker", "version", "--format", "{{.Server.Version}}"],
        Client::Containerd => &["ctr", "--version"],
        Client::Podman => &["podman", "--version"],
        Client::Crane => &["crane", "version"],
        Client::Skopeo => &["skopeo", "--version"],
    }
}

/// The name of an image on the client's own side, before it is pushed to `place`.
pub(super) fn local_name(place: &Place) -> String {
    format!("tidegate.test/{}:{TAG}", place.repository)
}

pub(super) fn login(client: Client, at: &Setting<'_>) -> Script {
    let words = match client {
        Client::Skopeo | Client::Podman => {
            let (program, file) = (client.to_string(), at.path("login.json"));
            let login = [&program, "login", "--tls-verify=false", "-u", at.user, "-p", at.password];
            words(&[&login[..], &["--authfile", &file, at.registry]].concat())
        }
        Client::Docker => {
            let folder = at.path("login");
            words(&["docker", "--config", &folder, "login", "-u", at.user, "-p", at.password, at.registry])
        }
        // They take the credential with each command.
        Client::Containerd | Client::Crane => return Script::default(),
    };
    Script { work: vec![words], after: Vec::new() }
}

pub(super) fn pull(client: Client, at: &Setting<'_>, place: &Place) -> Script {
    let (reference, credential) = (at.reference(place), at.credential());
    match client {
        Client::Skopeo => {
            let (from, to) = (format!("docker://{reference}"), format!("dir:{}", at.path(PULLED)));
            let copy = ["skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", "--src-creds"];
            Script { work: vec![words(&[&copy[..], &[&credential, &from, &to]].concat())], after: Vec::new() }
        }
        Client::Podman => {
            let pull = ["podman", "pull", "-q", "--tls-verify=false", "--creds", &credential, &reference];
            Script { work: vec![words(&pull)], after: vec![words(&PODMAN_FORGETS)] }
        }
        Client::Docker => Script {
            work: vec![words(&["docker", "pull", "-q", &reference])],
            after: vec![words(&["docker", "image", "rm", "-f", &reference])],
        },
        Client::Containerd => {
            let with = ["--plain-http", "--snapshotter", "native", "--user", &credential, &reference];
            Script { work: vec![at.ctr("pull", &with)], after: vec![at.ctr_forgets(&reference)] }
        }
        Client::Crane => {
            let to = at.path(PULLED);
            Script {
                work: vec![words(&["crane", "pull", "--format=oci", &reference, &to])],
                after: Vec::new(),
            }
        }
    }
}

pub(super) fn push(client: Client, at: &Setting<'_>, place: &Place) -> Script {
    let (reference, credential, name) = (at.reference(place), at.credential(), local_name(place));
    let (layout, archive) = (at.path(LAYOUT), at.path(ARCHIVE));
    match client {
        Client::Skopeo => {
            let (from, to) = (format!("oci:{layout}:{TAG}"), format!("docker://{reference}"));
            let copy = ["skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", "--dest-creds"];
            Script { work: vec![words(&[&copy[..], &[&credential, &from, &to]].concat())], after: Vec::new() }
        }
        Client::Podman => {
            let to = format!("docker://{reference}");
            let push = ["podman", "push", "-q", "--tls-verify=false", "--creds", &credential, &name, &to];
            let load = ["podman", "load", "-q", "-i", &archive];
            Script { work: vec![words(&load), words(&push)], after: vec![words(&PODMAN_FORGETS)] }
        }
        Client::Docker => Script {
            work: vec![
                words(&["docker", "load", "-q", "-i", &archive]),
                words(&["docker", "tag", &name, &reference]),
                words(&["docker", "push", "-q", &reference]),
            ],
            after: vec![words(&["docker", "image", "rm", "-f", &reference, &name])],
        },
        Client::Containerd => Script {
            work: vec![
                at.ctr("import", &["--no-unpack", &archive]),
                at.ctr("push", &["--plain-http", "--user", &credential, &reference, &name]),
            ],
            after: vec![at.ctr_forgets(&name)],
        },
        Client::Crane => {
            Script { work: vec![words(&["crane", "push", &layout, &reference])], after: Vec::new() }
        }
    }
}

/// What ends a client's leavings: podman without root keeps a process for its namespaces.
pub(super) fn end(client: Client) -> Vec<Words> {
    if client == Client::Podman { vec![words(&["podman", "system", "migrate"])] } else { Vec::new() }
}

/// The settings that a client finds in its home.
pub(super) fn files(client: Client, registry: &str, home: &Path) -> Vec<(&'static str, String)> {
    let folder = home.display();
    match client {
        Client::Skopeo | Client::Crane => Vec::new(),
        // The drivers that need nothing of the kernel.
        Client::Podman => vec![
            // A file of credentials that is named must be there.
            ("auth.json", "{}".to_owned()),
            (
                "storage.conf",
                format!(
                    "[storage]\ndriver = \"vfs\"\ngraphroot = \"{folder}/graph\"\nrunroot = \"{folder}/run\"\n"
                ),
            ),
            (
                "containers.conf",
                "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n".to_owned(),
            ),
        ],
        Client::Docker => {
            let (user, password) = client.sample();
            let pair = STANDARD.encode(format!("{user}:{password}"));
            let config = json!({"auths": {registry: {"auth": pair}}});
            vec![("docker/config.json", config.to_string())]
        }
        // No CRI, which would want a network; no snapshotter that wants a kernel module.
        Client::Containerd => vec![(
            "config.toml",
            format!(
                "version = 2
root = \"{folder}/root\"
state = \"{folder}/state\"
disabled_plugins = [
  \"io.containerd.grpc.v1.cri\", \"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\",
  \"io.containerd.snapshotter.v1.overlayfs\", \"io.containerd.snapshotter.v1.btrfs\",
  \"io.containerd.snapshotter.v1.devmapper\", \"io.containerd.snapshotter.v1.zfs\",
  \"io.containerd.snapshotter.v1.aufs\", \"io.containerd.nri.v1.nri\", \"io.containerd.internal.v1.tracing\",
]
[grpc]
address = \"{folder}/containerd.sock\"
[ttrpc]
address = \"{folder}/containerd.sock.ttrpc\"
"
            ),
        )],
    }
}

const PODMAN_FORGETS: [&str; 5] = ["podman", "image", "rm", "--all", "--force"];

impl Setting<'_> {
    fn reference(&self, place: &Place) -> String {
        format!("{}/{place}", self.registry)
    }

    fn credential(&self) -> String {
        format!("{}:{}", self.user, self.password)
    }

    fn path(&self, name: &str) -> String {
        self.home.join(name).display().to_string()
    }

    fn ctr(&self, verb: &str, rest: &[&str]) -> Words {
        let socket = self.path("containerd.sock");
        let local: &[&str] = if self.local { &["--local"] } else { &[] };
        words(&[&["ctr", "--address", &socket, "images", verb], local, rest].concat())
    }

    fn ctr_forgets(&self, name: &str) -> Words {
        let socket = self.path("containerd.sock");
        words(&["ctr", "--address", &socket, "images", "remove", "--sync", name])
    }
}

fn words(words: &[&str]) -> Words {
    words.iter().map(|&word| word.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(script: &Script) -> String {
        let line = |words: &Words| words.join(" ");
        script.work.iter().chain(&script.after).map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn each_client_is_told_where_and_as_whom_and_tidies_up() {
        let place = Place { repository: "priv/a".to_owned(), tag: "v1".to_owned() };
        let (registry, user, password) = ("127.0.0.1:1", "u", "p");
        let at = |local| Setting { registry, user, password, home: Path::new("/h"), local };
        insta::assert_snapshot!(lines(&push(Client::Skopeo, &at(false), &place)), @"skopeo --insecure-policy copy --dest-tls-verify=false --dest-creds u:p oci:/h/image:v1 docker://127.0.0.1:1/priv/a:v1");
        insta::assert_snapshot!(lines(&push(Client::Docker, &at(false), &place)), @r"
        docker load -q -i /h/image.tar
        docker tag tidegate.test/priv/a:v1 127.0.0.1:1/priv/a:v1
        docker push -q 127.0.0.1:1/priv/a:v1
        docker image rm -f 127.0.0.1:1/priv/a:v1 tidegate.test/priv/a:v1
        ");
        insta::assert_snapshot!(lines(&pull(Client::Containerd, &at(true), &place)), @r"
        ctr --address /h/containerd.sock images pull --local --plain-http --snapshotter native --user u:p 127.0.0.1:1/priv/a:v1
        ctr --address /h/containerd.sock images remove --sync 127.0.0.1:1/priv/a:v1
        ");
        insta::assert_snapshot!(lines(&pull(Client::Podman, &at(false), &place)), @r"
        podman pull -q --tls-verify=false --creds u:p 127.0.0.1:1/priv/a:v1
        podman image rm --all --force
        ");
        insta::assert_snapshot!(lines(&login(Client::Docker, &at(false))), @"docker --config /h/login login -u u -p p 127.0.0.1:1");
    }
}
