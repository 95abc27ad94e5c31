//! What can be wrong with a small file of keys or certificates, before anyone reads what is in it.

/// Why a file gave no bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileFault {
    #[error("the file is empty")]
    Empty,
    #[error("the file is larger than 1 MiB")]
    TooLarge,
    #[error("the file is not there")]
    Missing,
    #[error("the file may not be read by this process")]
    Unreadable,
    #[error("the path is a directory")]
    Directory,
    #[error("the path is a FIFO, a socket or a device")]
    NoRegularFile,
    #[error("reading failed: {0}")]
    Read(String),
}

impl FileFault {
    /// What mends it, in words for the operator.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Empty => "write the whole content beside the path, then rename it over the path",
            Self::TooLarge => "give a file of at most 1 MiB",
            Self::Missing => "check the path and the mount",
            Self::Unreadable => {
                "run as the file's owner (core's uid is 10000), or set `fsGroup` and `defaultMode` so that tidegate may read it"
            }
            Self::Directory => "give a file in the directory, or `folder` in place of `file` for keys",
            Self::NoRegularFile => "give a regular file",
            Self::Read(_) => "check the disk and the mount",
        }
    }
}
