//! What a request is for, by method and path alone.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

/// What a request is for. Total: whatever is no other route is the portal's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// `/v2` and below.
    Registry(Registry<'a>),
    /// `/service/token`, and what core's router takes for it.
    Token,
    /// Harbor's log-in and log-out pages: `/c/login`, `/c/log_out`, `/c/oidc/…`.
    UiLogin,
    /// What else core answers: `/api/…`, `/c/…`, `/service/…`.
    Api,
    /// Static pages: all the rest.
    Portal,
    /// `/v1/` and `/service/notifications`: for Harbor's own components, never from a public listener (A26).
    Components,
    /// `/.tidegate/…`: ours.
    Own,
}

/// A request to the registry API (OCI distribution specification 1.1, *Endpoints*).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry<'a> {
    /// Which endpoint of the registry API.
    pub kind: Kind,
    /// The repository's whole name, project first; empty where the path names none.
    pub repository: &'a str,
}

/// The endpoints of the registry API that differ in what they need or in what may be sent twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `/v2/`.
    Base,
    /// `/v2/_catalog`.
    Catalog,
    /// `…/manifests/{reference}`.
    Manifest,
    /// `…/blobs/{digest}`.
    Blob,
    /// `…/blobs/uploads/`: opens an upload.
    UploadOpen,
    /// `…/blobs/uploads/{uuid}`: a step of an upload.
    Upload,
    /// `…/tags/list`.
    Tags,
    /// `…/referrers/{digest}`.
    Referrers,
    /// Anything else below `/v2`.
    Other,
}

/// A path that two readers could read differently; it is refused with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmbiguousPath {
    /// A segment `.` or `..`, plain or encoded.
    #[error("path has a dot segment")]
    DotSegment,
    /// Two slashes side by side, plain or encoded.
    #[error("path has an empty segment")]
    EmptySegment,
    /// NUL, a control character, a backslash or bytes that are not UTF-8.
    #[error("path has a byte that no path of Harbor has")]
    StrangeByte,
    /// Not absolute: `*`, an authority, nothing.
    #[error("request target is not an absolute path")]
    NotAbsolute,
}

impl<'a> Route<'a> {
    /// The route of a path that [`plain`] has read.
    pub fn of(path: &'a str) -> Self {
        classify(path)
    }

    /// The name of the route in metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Route::Registry(_) => "registry",
            Route::Token => "token",
            Route::UiLogin => "ui_login",
            Route::Api => "api",
            Route::Portal => "portal",
            Route::Components => "components",
            Route::Own => "own",
        }
    }
}

impl Registry<'_> {
    /// Harbor's project: the repository's first segment.
    pub fn project(&self) -> &str {
        project_of(self.repository)
    }

    /// Whether a request with a body may be kept whole and sent twice after it got no answer (A22).
    pub fn opens_upload(&self, method: &Method) -> bool {
        self.kind == Kind::UploadOpen && method == Method::POST
    }
}

/// Harbor's project of a repository's name: its first segment.
pub fn project_of(repository: &str) -> &str {
    repository.split('/').next().unwrap_or_default()
}

/// A path as Harbor reads it: it matches the decoded one (Go's `URL.Path`). What goes up is the path as it came.
pub fn plain(path: &str) -> Result<Cow<'_, str>, AmbiguousPath> {
    if !path.starts_with('/') {
        return Err(AmbiguousPath::NotAbsolute);
    }
    let plain = if has_percent(path) {
        percent_decode_str(path).decode_utf8().map_err(|_| AmbiguousPath::StrangeByte)?
    } else {
        Cow::Borrowed(path)
    };
    let bytes = plain.as_bytes();
    // Folded over all bytes, without a way out in between, this takes a few instructions for sixteen of them.
    let strange = bytes.iter().fold(false, |found, b| found | matches!(b, b'\\' | 0..=31 | 127));
    if strange {
        return Err(AmbiguousPath::StrangeByte);
    }
    let pairs = bytes.iter().zip(bytes.iter().skip(1));
    #[expect(clippy::needless_bitwise_bool, reason = "a way out in between would cost the sixteen at once")]
    let suspect = pairs.fold(false, |found, (a, b)| found | ((*a == b'/') & ((*b == b'/') | (*b == b'.'))));
    if suspect {
        check_segments(bytes)?;
    }
    Ok(plain)
}

fn check_segments(path: &[u8]) -> Result<(), AmbiguousPath> {
    let mut segments = path.split(|b| *b == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        check_segment(segment, segments.peek().is_none())?;
    }
    Ok(())
}

fn check_segment(segment: &[u8], last: bool) -> Result<(), AmbiguousPath> {
    match segment {
        b"." | b".." => Err(AmbiguousPath::DotSegment),
        b"" if !last => Err(AmbiguousPath::EmptySegment),
        _ => Ok(()),
    }
}

fn has_percent(path: &str) -> bool {
    path.as_bytes().contains(&b'%')
}

fn classify(path: &str) -> Route<'_> {
    if let Some(rest) = path.strip_prefix("/v2/") {
        return Route::Registry(registry(rest));
    }
    let below = |prefix: &str| path.strip_prefix(prefix).is_some_and(|r| r.is_empty() || r.starts_with('/'));
    match path {
        "/v2" => Route::Registry(Registry { kind: Kind::Other, repository: "" }),
        _ if is_token_service(path) => Route::Token,
        "/c/login" | "/c/log_out" => Route::UiLogin,
        _ if below("/c/oidc") => Route::UiLogin,
        _ if below("/v1") || below("/service/notifications") => Route::Components,
        _ if below("/api") || below("/c") || below("/service") => Route::Api,
        _ if below("/.tidegate") => Route::Own,
        _ => Route::Portal,
    }
}

/// Core's router (beego's) serves a path with one of its suffixes, or with a slash behind it, all the same.
fn is_token_service(path: &str) -> bool {
    let Some(rest) = path.strip_prefix("/service/token") else { return false };
    matches!(rest.strip_suffix('/').unwrap_or(rest), "" | ".json" | ".xml" | ".html")
}

fn registry(rest: &str) -> Registry<'_> {
    let (kind, repository) = match rest {
        "" => (Kind::Base, ""),
        "_catalog" => (Kind::Catalog, ""),
        _ => repository_route(rest).unwrap_or((Kind::Other, first_segment(rest))),
    };
    Registry { kind, repository }
}

/// The last marker wins, as in distribution: a repository may be called `a/blobs/b`.
fn repository_route(rest: &str) -> Option<(Kind, &str)> {
    let (head, reference) = rest.rsplit_once('/')?;
    if let Some(repository) = head.strip_suffix("/blobs/uploads") {
        return Some((if reference.is_empty() { Kind::UploadOpen } else { Kind::Upload }, repository));
    }
    let (repository, marker) = head.rsplit_once('/')?;
    match (marker, reference) {
        ("blobs", "uploads") => return Some((Kind::UploadOpen, repository)),
        ("tags", "list") => return Some((Kind::Tags, repository)),
        _ => {}
    }
    match marker {
        "manifests" => Some((Kind::Manifest, repository)),
        "blobs" => Some((Kind::Blob, repository)),
        "referrers" => Some((Kind::Referrers, repository)),
        _ => None,
    }
}

/// Of an endpoint that is not known, the project alone can be read.
fn first_segment(rest: &str) -> &str {
    project_of(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(path: &str) -> (Kind, String) {
        match Route::of(&plain(path).expect(path)) {
            Route::Registry(r) => (r.kind, r.repository.to_owned()),
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn the_registry_api_is_read_as_distribution_reads_it() {
        let table = [
            ("/v2/", Kind::Base, ""),
            ("/v2", Kind::Other, ""),
            ("/v2/_catalog", Kind::Catalog, ""),
            ("/v2/p/r/manifests/latest", Kind::Manifest, "p/r"),
            ("/v2/p/r/manifests/sha256:ab", Kind::Manifest, "p/r"),
            ("/v2/p/r/x/blobs/sha256:ab", Kind::Blob, "p/r/x"),
            ("/v2/p/r/blobs/uploads/", Kind::UploadOpen, "p/r"),
            ("/v2/p/r/blobs/uploads", Kind::UploadOpen, "p/r"),
            ("/v2/p/r/blobs/uploads/uuid", Kind::Upload, "p/r"),
            ("/v2/p/r/tags/list", Kind::Tags, "p/r"),
            ("/v2/p/r/referrers/sha256:ab", Kind::Referrers, "p/r"),
            ("/v2/p%2Fr/manifests/latest", Kind::Manifest, "p/r"),
            ("/v2/p/manifests/blobs/sha256:ab", Kind::Blob, "p/manifests"),
            ("/v2/p/r/unheard", Kind::Other, "p"),
        ];
        for (path, want, repository) in table {
            assert_eq!(kind(path), (want, repository.to_owned()), "{path}");
        }
    }

    #[test]
    fn other_routes_by_prefix_of_whole_segments() {
        let table = [
            ("/service/token", Route::Token),
            ("/service/token/", Route::Token),
            ("/service/token.json", Route::Token),
            ("/service/token.xml", Route::Token),
            ("/service/token.html/", Route::Token),
            ("/service/%74oken%2Ejson", Route::Token),
            ("/service/token.txt", Route::Api),
            ("/service/tokens", Route::Api),
            ("/service/token/json", Route::Api),
            ("/service/notifications/tasks/1", Route::Components),
            ("/v1/x", Route::Components),
            ("/v1x", Route::Portal),
            ("/%63/oidc/login", Route::UiLogin),
            ("/c/userExists", Route::Api),
            ("/api/v2.0/ping", Route::Api),
            ("/apiary", Route::Portal),
            ("/", Route::Portal),
            ("/.tidegate/jwks.json", Route::Own),
        ];
        for (path, want) in table {
            assert_eq!(Route::of(&plain(path).expect(path)), want, "{path}");
        }
    }

    #[test]
    fn a_path_with_two_readings_is_refused() {
        use AmbiguousPath::{DotSegment, EmptySegment, NotAbsolute, StrangeByte};
        let table = [
            ("/c/../v2/", DotSegment),
            ("/c/%2e%2e/v2/", DotSegment),
            ("/v2/./x", DotSegment),
            ("/v2/..", DotSegment),
            ("//v2/", EmptySegment),
            ("/v2/%2fx", EmptySegment),
            ("/v2//x", EmptySegment),
            ("/v2/a%00b", StrangeByte),
            ("/v2/a%5cb", StrangeByte),
            ("/v2/a\\b", StrangeByte),
            ("/v2/%ff", StrangeByte),
            ("*", NotAbsolute),
            ("", NotAbsolute),
        ];
        for (path, want) in table {
            assert_eq!(plain(path), Err(want), "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn routing_is_total(path in "\\PC{0,200}") {
            let _ = plain(&path).map(|path| Route::of(&path).name());
        }
    }
}
