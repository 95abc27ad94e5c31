//! What a path below `/v2/` asks for, by Harbor's own patterns.

/// A path that names a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RepositoryPath {
    pub(super) repository: String,
    pub(super) what: What,
}

/// What of the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// `manifests/<tag or digest>`
    Manifest(String),
    /// `tags/list`
    Tags,
    /// `blobs/<digest>`
    Blob(String),
    /// `blobs/uploads/<id>`; empty where one is to be opened.
    Upload(String),
    /// `referrers/<digest>`
    Referrers(String),
}

impl RepositoryPath {
    /// Reads a decoded path; `None` for all that names no repository.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("/v2/")?;
        let found = |repository: &str, what| {
            is_repository(repository).then(|| Self { repository: repository.to_owned(), what })
        };
        if let Some((repository, reference)) = rest.rsplit_once("/manifests/") {
            return found(repository, What::Manifest(reference.to_owned()));
        }
        if let Some(repository) = rest.strip_suffix("/tags/list") {
            return found(repository, What::Tags);
        }
        if let Some((repository, id)) = rest.rsplit_once("/blobs/uploads") {
            return found(repository, What::Upload(id.trim_matches('/').to_owned()));
        }
        if let Some((repository, digest)) = rest.rsplit_once("/blobs/") {
            return digest.contains(':').then(|| found(repository, What::Blob(digest.to_owned())))?;
        }
        let (repository, digest) = rest.rsplit_once("/referrers/")?;
        found(repository, What::Referrers(digest.to_owned()))
    }

    /// The project: what stands before the first slash.
    pub(super) fn project(&self) -> &str {
        self.repository.split('/').next().unwrap_or_default()
    }
}

fn is_repository(name: &str) -> bool {
    let part_is_fine = |part: &str| {
        let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let (first, last) = (part.bytes().next(), part.bytes().next_back());
        first.is_some_and(alphanumeric)
            && last.is_some_and(alphanumeric)
            && part.bytes().all(|b| alphanumeric(b) || matches!(b, b'.' | b'_' | b'-'))
    };
    !name.is_empty() && name.split('/').all(part_is_fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_what_they_ask_for() {
        let of = |path: &str| RepositoryPath::parse(path).map(|p| (p.repository, p.what));
        let repo = |name: &str, what| Some((name.to_owned(), what));
        assert_eq!(of("/v2/a/b/manifests/latest"), repo("a/b", What::Manifest("latest".into())));
        assert_eq!(of("/v2/a/b/c/blobs/sha256:00"), repo("a/b/c", What::Blob("sha256:00".into())));
        assert_eq!(of("/v2/a/b/blobs/uploads/"), repo("a/b", What::Upload(String::new())));
        assert_eq!(of("/v2/a/b/blobs/uploads/u-1"), repo("a/b", What::Upload("u-1".into())));
        assert_eq!(of("/v2/a/b/tags/list"), repo("a/b", What::Tags));
        for none in ["/v2", "/v2/", "/v2/_catalog", "/v2/A/b/tags/list", "/v2//tags/list"] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
