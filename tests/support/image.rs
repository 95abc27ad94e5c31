//! Images with one layer of random bytes, made on the spot: the same seed and size give the same image.

pub mod gzip;
pub mod tar;

use aws_lc_rs::digest;
use serde_json::json;
use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
};
use tempfile::TempDir;

const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// The tag inside the layout.
pub const TAG: &str = "latest";

/// An image on disk: as an OCI layout, and, where asked for, as an archive.
#[derive(Debug)]
pub struct Image {
    folder: TempDir,
    /// The name under which an archive brings it into a daemon.
    pub name: String,
    /// `sha256:…` of the layer as it is stored and sent.
    pub layer: String,
    /// `sha256:…` of the layer's tar, which stays the same however a client compresses it.
    pub diff_id: String,
    /// `sha256:…` of the configuration: an image's identity in most clients.
    pub config: String,
    /// `sha256:…` of the manifest.
    pub manifest: String,
}

impl Image {
    /// One layer that holds `mebibytes` MiB of bytes drawn from `seed`.
    pub fn generate(seed: u64, mebibytes: u64) -> Self {
        Self::write(seed, mebibytes * 1024 * 1024, Form::Gzip).expect("an image is written")
    }

    /// The same with a layer that isn't compressed: clients that compress it on the way can't know its length
    /// and push it chunked.
    pub fn uncompressed(seed: u64, mebibytes: u64) -> Self {
        Self::write(seed, mebibytes * 1024 * 1024, Form::Tar).expect("an image is written")
    }

    /// The folder of the OCI layout; its tag is [`TAG`].
    pub fn layout(&self) -> PathBuf {
        self.folder.path().join("layout")
    }

    /// The same in one tar file that `docker load`, `podman load` and `ctr images import` read.
    pub fn archive(&self) -> PathBuf {
        let path = self.folder.path().join("archive.tar");
        if !path.exists() {
            write_archive(&self.layout(), &path).expect("an archive is written");
        }
        path
    }

    fn write(seed: u64, size: u64, form: Form) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let layout = folder.path().join("layout");
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs)?;
        let layer = write_layer(&blobs, seed, size, form)?;
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": { "Cmd": ["/payload"] },
            "rootfs": { "type": "layers", "diff_ids": [layer.diff_id] },
            "history": [{ "created": "2026-01-01T00:00:00Z", "created_by": format!("seed {seed}") }],
        });
        let config = write_blob(&blobs, &config)?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST_TYPE,
            "config": { "mediaType": CONFIG_TYPE, "digest": config.0, "size": config.1 },
            "layers": [{ "mediaType": format!("{LAYER_TYPE}{}", form.suffix()), "digest": layer.digest, "size": layer.size }],
        });
        let manifest = write_blob(&blobs, &manifest)?;
        let name = format!("tidegate.test/image-{seed}:{TAG}");
        let annotations =
            json!({ "org.opencontainers.image.ref.name": TAG, "io.containerd.image.name": name });
        let entry = json!({ "mediaType": MANIFEST_TYPE, "digest": manifest.0, "size": manifest.1,
            "annotations": annotations, "platform": { "architecture": "amd64", "os": "linux" } });
        fs::write(layout.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        fs::write(
            layout.join("index.json"),
            json!({ "schemaVersion": 2, "manifests": [entry] }).to_string(),
        )?;
        let docker = json!([{ "Config": blob_path(&config.0), "RepoTags": [name], "Layers": [blob_path(&layer.digest)] }]);
        fs::write(layout.join("manifest.json"), docker.to_string())?;
        Ok(Self {
            folder,
            name,
            layer: layer.digest,
            diff_id: layer.diff_id,
            config: config.0,
            manifest: manifest.0,
        })
    }
}

/// How a layer is stored.
#[derive(Clone, Copy)]
enum Form {
    Tar,
    Gzip,
}

impl Form {
    fn suffix(self) -> &'static str {
        match self {
            Self::Tar => "",
            Self::Gzip => "+gzip",
        }
    }
}

struct Layer {
    digest: String,
    diff_id: String,
    size: u64,
}

/// The layer, hashed on the way as a tar and as it is stored.
fn write_layer(blobs: &Path, seed: u64, size: u64, form: Form) -> io::Result<Layer> {
    let unnamed = blobs.join("layer");
    let stored = Hashed::new(BufWriter::with_capacity(1 << 20, File::create(&unnamed)?));
    let (stored, diff_id) = match form {
        Form::Tar => (write_tar(stored, seed, size)?.out, None),
        Form::Gzip => {
            let (gzip, diff_id, _) = write_tar(gzip::Stored::new(stored)?, seed, size)?.finish();
            (gzip.finish()?, Some(diff_id))
        }
    };
    let (mut file, digest, size) = stored.finish();
    file.flush()?;
    fs::rename(unnamed, blobs.join(&digest["sha256:".len()..]))?;
    Ok(Layer { diff_id: diff_id.unwrap_or_else(|| digest.clone()), digest, size })
}

/// A tar with one file of random bytes.
fn write_tar<W: Write>(out: W, seed: u64, size: u64) -> io::Result<Hashed<W>> {
    let mut tar = Hashed::new(out);
    tar.write_all(&tar::header("payload", size))?;
    write_random(&mut tar, seed, size)?;
    tar::pad(&mut tar, size)?;
    tar::end(&mut tar)?;
    Ok(tar)
}

/// `size` bytes of `SplitMix64`, which is fast and nobody's secret.
fn write_random(out: &mut impl Write, seed: u64, size: u64) -> io::Result<()> {
    let mut state = seed;
    let mut chunk = [0; 16 * 1024];
    let mut left = size;
    while left > 0 {
        for word in chunk.chunks_exact_mut(8) {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes());
        }
        let now = left.min(chunk.len() as u64);
        out.write_all(&chunk[..now as usize])?;
        left -= now;
    }
    Ok(())
}

/// Writes a JSON blob under its digest; digest and size.
fn write_blob(blobs: &Path, value: &serde_json::Value) -> io::Result<(String, u64)> {
    let text = value.to_string();
    let digest = format!("sha256:{}", hex(digest::digest(&digest::SHA256, text.as_bytes()).as_ref()));
    fs::write(blobs.join(&digest["sha256:".len()..]), &text)?;
    Ok((digest, text.len() as u64))
}

fn write_archive(layout: &Path, path: &Path) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut names: Vec<String> = ["oci-layout", "index.json", "manifest.json"].map(str::to_owned).to_vec();
    for blob in fs::read_dir(layout.join("blobs/sha256"))? {
        names.push(format!("blobs/sha256/{}", blob?.file_name().to_string_lossy()));
    }
    for name in names {
        let file = File::open(layout.join(&name))?;
        let size = file.metadata()?.len();
        out.write_all(&tar::header(&name, size))?;
        io::copy(&mut file.take(size), &mut out)?;
        tar::pad(&mut out, size)?;
    }
    tar::end(&mut out)?;
    out.flush()
}

fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

/// Passes on what it gets, and knows its digest and length.
struct Hashed<W> {
    out: W,
    context: digest::Context,
    size: u64,
}

impl<W: Write> Hashed<W> {
    fn new(out: W) -> Self {
        Self { out, context: digest::Context::new(&digest::SHA256), size: 0 }
    }

    fn finish(self) -> (W, String, u64) {
        (self.out, format!("sha256:{}", hex(self.context.finish().as_ref())), self.size)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.context.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}
