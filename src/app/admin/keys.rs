//! `/v1/keys` and the JWKS.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header, request::Parts};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

use super::{NotRetired, Operator, answer, body, orders};
use crate::{
    app::status::render,
    decisions::{
        archive::Known,
        key::{self, Key},
        ring::{AddFault, RetireFault},
    },
    words::{clock::UnixTime, kid::Kid},
};

/// Where the keys that verify are for everybody to read, as on listeners for the cluster.
pub(super) const JWKS: &str = "/.tidegate/jwks.json";
/// A key that was retired at once is in no copy for longer.
const JWKS_CACHE: &str = "public, max-age=10";
/// Thousands of records.
const LONGEST_RESTORE: usize = 4 << 20;

/// The keys that verify, for other programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// For distribution 3's `auth.token.jwks`.
    pub jwks: String,
    /// For distribution's `auth.token.rootcertbundle`.
    pub bundle: String,
}

/// What `keys add` asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Added {
    pub keys: Vec<AddedKey>,
    /// When core signed with them last, in seconds since 1970; `None` = now.
    pub signed_until: Option<i64>,
}

/// A public half.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddedKey {
    /// `SubjectPublicKeyInfo` in DER, in base64.
    pub spki: String,
    /// One more name.
    pub alias: Option<String>,
}

/// What an archive of keys is made of: private halves are in the files alone, which whoever asks reads by itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Archivable {
    pub deployment: String,
    /// Files that hold keys now.
    pub files: Vec<String>,
    /// PKCS#11 tokens that do: their private halves are in no archive.
    #[serde(default)]
    pub tokens: Vec<String>,
    pub known: Known,
}

/// What `keys restore` asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    pub deployment: String,
    pub known: Known,
    /// Change nothing.
    pub dry_run: bool,
    /// The paths of its files.
    #[serde(default)]
    pub files: Vec<String>,
}

/// What became of it, or would.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// Keys that the archive retired.
    pub retired: Vec<String>,
    pub windows: Vec<RestoredWindow>,
    /// Every key that is retired at once then: none of these is put back into a file.
    pub banned: Vec<String>,
    /// Files of the archive that are no source of this tidegate.
    #[serde(default)]
    pub strangers: Vec<String>,
    /// Users and tokens that the archive revoked.
    #[serde(default)]
    pub revoked: usize,
    /// Why what the archive ended isn't known everywhere yet (A20). The files can be put back all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsettled: Option<String>,
}

/// A key that verifies again, until then (seconds since 1970).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredWindow {
    pub kid: String,
    pub until: i64,
}

impl AddedKey {
    pub fn of(key: &Key) -> Self {
        Self { spki: STANDARD.encode(key.spki()), alias: key.declared().map(ToString::to_string) }
    }

    fn key(&self) -> Option<Key> {
        let alias = match &self.alias {
            Some(alias) => Some(Kid::parse(alias)?),
            None => None,
        };
        Key::of_spki(&STANDARD.decode(&self.spki).ok()?, alias).ok()
    }
}

/// `None` where the path is none of keys'.
pub(super) async fn handle<O: Operator>(
    head: &Parts,
    sent: Incoming,
    operator: &O,
) -> Option<Response<Full<Bytes>>> {
    let reads = head.method == Method::GET || head.method == Method::HEAD;
    let posts = head.method == Method::POST;
    Some(match head.uri.path() {
        JWKS | "/v1/keys/published" | "/v1/keys/archivable" if !reads => answer::method("GET, HEAD"),
        JWKS => jwks(head, operator.published().jwks),
        "/v1/keys/published" => answer::json(StatusCode::OK, &operator.published()),
        "/v1/keys/archivable" => answer::json(StatusCode::OK, &operator.archivable()),
        "/v1/keys/restore" if posts => restore(sent, operator).await,
        "/v1/keys/restore" => answer::method("POST"),
        "/v1/keys" if posts => add(sent, operator).await,
        "/v1/keys" if !reads => answer::method("GET, HEAD, POST"),
        "/v1/keys" => list(operator),
        path => {
            let kid = path.strip_prefix("/v1/keys/")?.strip_suffix("/retire")?;
            let at_once = head.uri.query() != Some("unless=alive");
            if posts { retire(kid, at_once, operator).await } else { answer::method("POST") }
        }
    })
}

fn list<O: Operator>(operator: &O) -> Response<Full<Bytes>> {
    answer::json(StatusCode::OK, &operator.status().keys)
}

fn jwks(head: &Parts, text: String) -> Response<Full<Bytes>> {
    let tag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(&digest(&SHA256, text.as_bytes()).as_ref()[..15]));
    let mut asked =
        head.headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let is_known = asked.any(|tags| is_among(&tag, tags));
    let mut response = if is_known {
        answer::of(StatusCode::NOT_MODIFIED, "application/jwk-set+json", String::new())
    } else {
        answer::of(StatusCode::OK, "application/jwk-set+json", text)
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(JWKS_CACHE));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

/// RFC 9110, 13.1.2: a list of tags, compared weakly, or `*`. Ours hold no comma.
fn is_among(tag: &str, tags: &str) -> bool {
    tags.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

async fn add<O: Operator>(sent: Incoming, operator: &O) -> Response<Full<Bytes>> {
    let asked: Added = match body::json(sent, 2 * key::LONGEST_FILE).await {
        Ok(asked) => asked,
        Err(answer) => return answer,
    };
    let Some(keys) = asked.keys.iter().map(AddedKey::key).collect::<Option<Vec<_>>>() else {
        return answer::error(StatusCode::BAD_REQUEST, "a key or an alias can't be used");
    };
    let kids: Vec<String> = keys.iter().map(|key| key.kid().to_string()).collect();
    match operator.add(keys, asked.signed_until.map(UnixTime)) {
        Ok(()) => {
            tracing::warn!(key.kids = ?kids, "an operator added keys");
            list(operator)
        }
        Err(fault) => refused(&fault),
    }
}

fn refused(fault: &AddFault) -> Response<Full<Bytes>> {
    answer::error(StatusCode::CONFLICT, &format!("{fault}; {}", fault.remedy()))
}

async fn restore<O: Operator>(sent: Incoming, operator: &O) -> Response<Full<Bytes>> {
    let asked: Restore = match body::json(sent, LONGEST_RESTORE).await {
        Ok(asked) => asked,
        Err(answer) => return answer,
    };
    let dry_run = asked.dry_run;
    match operator.restore(asked) {
        Ok((mut restored, ordered)) => {
            if !dry_run {
                let (retired, windows) = (restored.retired.len(), restored.windows.len());
                tracing::warn!(
                    key.retired = retired,
                    key.windows = windows,
                    "an operator restored an archive of keys"
                );
                restored.unsettled =
                    orders::settle(&ordered, operator).await.err().map(|why| why.to_string());
            }
            answer::json(StatusCode::OK, &restored)
        }
        Err(fault) => answer::error(StatusCode::CONFLICT, &fault.to_string()),
    }
}

async fn retire<O: Operator>(encoded: &str, at_once: bool, operator: &O) -> Response<Full<Bytes>> {
    let kid = percent_encoding::percent_decode_str(encoded).decode_utf8_lossy();
    match operator.retire(&kid, at_once) {
        Ok(ordered) => {
            tracing::warn!(key.kid = %kid.escape_debug(), "an operator retired a key");
            match orders::unsettled("it is retired here", &[ordered], operator).await {
                Some(answer) => answer,
                None => list(operator),
            }
        }
        Err(NotRetired { fault, evidence }) => {
            let status = match fault {
                RetireFault::Unknown => StatusCode::NOT_FOUND,
                RetireFault::Several | RetireFault::Signs(_) | RetireFault::Lives(_) => StatusCode::CONFLICT,
            };
            let used = evidence.map(|evidence| format!("; {}", render::used_by(&evidence)));
            answer::error(status, &format!("{fault}{}", used.unwrap_or_default()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_among;

    #[test]
    fn a_tag_is_found_in_a_list_of_tags() {
        for (tags, expected) in [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("\"b\", \"a\"", true),
            ("*", true),
            ("", false),
            ("a", false),
            ("\"ab\"", false),
        ] {
            assert_eq!(is_among("\"a\"", tags), expected, "{tags}");
        }
    }
}
