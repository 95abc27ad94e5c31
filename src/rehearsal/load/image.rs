//! Images that a seed decides.

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
    pub(super) fn of(seed: u64) -> Self {
        let mut seeded = Seeded::new(seed, 0);
        let layers = 1 + seeded.below(3);
        let mut blobs: Vec<Blob> = (0..layers)
            .map(|_| {
                let length = match seeded.below(3) {
                    0 => 300_000 + seeded.below(400_000),
                    _ => 2_000 + seeded.below(60_000),
                };
                Blob::of(seeded.bytes(length as usize))
            })
            .collect();
        let descriptors: Vec<_> = blobs.iter().map(|blob| descriptor(LAYER, blob)).collect();
        let diffs: Vec<&str> = blobs.iter().map(|blob| blob.digest.as_str()).collect();
        let config =
            json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diffs}});
        let config = Blob::of(config.to_string().into());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config), "layers": descriptors,
        });
        blobs.push(config);
        Self { blobs, manifest: Blob::of(manifest.to_string().into()) }
    }
}

impl Blob {
    fn of(bytes: Bytes) -> Self {
        Self { digest: sha256(&bytes), bytes }
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
        assert_eq!(Image::of(3).manifest.digest, Image::of(3).manifest.digest);
        assert_ne!(Image::of(3).manifest.digest, Image::of(4).manifest.digest);
        assert_eq!(sha256(b""), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
