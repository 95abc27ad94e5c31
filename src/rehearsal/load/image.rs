//! Images that a seed decides.

mod tar;

use std::{fs, io, path::Path};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use serde_json::json;

use super::seeded::Seeded;

/// What manifests of these images are.
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A layer or a configuration, and its name.
#[derive(Clone, Debug)]
pub(super) struct Blob {
    pub(super) digest: String,
    pub(super) bytes: Bytes,
}

/// An image: blobs and the manifest that lists them.
#[derive(Clone, Debug)]
pub(super) struct Image {
    /// The layers, then the configuration: the order in which clients push.
    pub(super) blobs: Vec<Blob>,
    pub(super) manifest: Blob,
}

impl Image {
    /// One to three layers: most small, one in three over the 256 KiB up to which core reads before it refuses (U2, U3).
    /// `salt` decides the bytes and nothing else.
    pub(super) fn of(seed: u64, salt: u64) -> Self {
        let (mut sizes, mut contents) = (Seeded::new(seed, 0), Seeded::new(seed, 1 + salt));
        let layers = 1 + sizes.below(3);
        let mut blobs: Vec<Blob> = (0..layers)
            .map(|number| {
                let length = match sizes.below(3) {
                    0 => 300_000 + sizes.below(400_000),
                    _ => 2_000 + sizes.below(60_000),
                };
                let file = (&*format!("payload-{number}"), contents.bytes(length as usize));
                Blob::of(tar::archive([file]))
            })
            .collect();
        let descriptors: Vec<_> = blobs.iter().map(|blob| descriptor(LAYER, blob)).collect();
        let diffs: Vec<&str> = blobs.iter().map(|blob| blob.digest.as_str()).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/payload-0"]},
            "rootfs": {"type": "layers", "diff_ids": diffs},
        });
        let config = Blob::of(config.to_string().into());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config), "layers": descriptors,
        });
        blobs.push(config);
        Self { blobs, manifest: Blob::of(manifest.to_string().into()) }
    }

    /// Writes it as an OCI layout in `layout`, and the same as one tar file that `docker load`, `podman load` and
    /// `ctr images import` read.
    pub(super) fn write(&self, layout: &Path, archive: &Path, name: &str, tag: &str) -> io::Result<()> {
        let files = self.files(name, tag);
        fs::create_dir_all(layout.join("blobs/sha256"))?;
        for (path, bytes) in &files {
            fs::write(layout.join(path), bytes)?;
        }
        fs::write(archive, tar::archive(files.iter().map(|(path, bytes)| (path.as_str(), bytes.clone()))))
    }

    /// The files of its layout, and Docker's list of them.
    fn files(&self, name: &str, tag: &str) -> Vec<(String, Bytes)> {
        let paths: Vec<String> = self.blobs.iter().map(Blob::path).collect();
        let (config, layers) = paths.split_last().map_or(("", &[][..]), |(config, rest)| (config, rest));
        let annotations = json!({"org.opencontainers.image.ref.name": tag, "io.containerd.image.name": name});
        let mut entry = descriptor(MANIFEST, &self.manifest);
        entry["annotations"] = annotations;
        entry["platform"] = json!({"architecture": "amd64", "os": "linux"});
        let index = json!({"schemaVersion": 2, "manifests": [entry]});
        let docker = json!([{"Config": config, "RepoTags": [name], "Layers": layers}]);
        let own = [
            ("oci-layout", json!({"imageLayoutVersion": "1.0.0"})),
            ("index.json", index),
            ("manifest.json", docker),
        ];
        let own = own.map(|(path, value)| (path.to_owned(), Bytes::from(value.to_string())));
        let blobs = self.blobs.iter().chain([&self.manifest]).map(|blob| (blob.path(), blob.bytes.clone()));
        own.into_iter().chain(blobs).collect()
    }
}

impl Blob {
    fn of(bytes: Bytes) -> Self {
        Self { digest: sha256(&bytes), bytes }
    }

    /// Where it lies in a layout.
    fn path(&self) -> String {
        format!("blobs/{}", self.digest.replace(':', "/"))
    }
}

fn descriptor(media_type: &str, blob: &Blob) -> serde_json::Value {
    json!({"mediaType": media_type, "size": blob.bytes.len(), "digest": blob.digest})
}

/// A digest as registries write it.
pub(super) fn sha256(bytes: &[u8]) -> String {
    let hash = digest(&SHA256, bytes);
    let hex = hash.as_ref().iter().fold(String::new(), |mut text, byte| {
        text.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
        text.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
        text
    });
    format!("sha256:{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_an_image_and_digests_are_of_the_bytes() {
        assert_eq!(Image::of(3, 0).manifest.digest, Image::of(3, 0).manifest.digest);
        assert_ne!(Image::of(3, 0).manifest.digest, Image::of(4, 0).manifest.digest);
        assert_eq!(sha256(b""), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn salt_changes_every_byte_and_no_size() {
        let (plain, salted) = (Image::of(3, 0), Image::of(3, 1));
        for (one, other) in plain.blobs.iter().zip(&salted.blobs) {
            assert_ne!(one.digest, other.digest);
            assert_eq!(one.bytes.len(), other.bytes.len());
        }
    }
}
