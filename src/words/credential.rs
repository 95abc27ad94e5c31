//! What a client says who it is.

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use zeroize::Zeroizing;

/// The `Authorization` of a request, unverified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential<'a> {
    /// No `Authorization`.
    None,
    /// RFC 7617; the whole header value as it came.
    Basic(&'a HeaderValue),
    /// RFC 6750; the token's bytes without the scheme and the white space around it. May be empty, and
    /// need not be text.
    Bearer(&'a [u8]),
    /// `Harbor-Secret`: Harbor's own components (contract F4).
    HarborSecret,
    /// A bearer behind another scheme's name, or without the blank after its own: core takes what follows the word
    /// `Bearer` wherever it stands (`strings.Split`), so it would find a token that no one else sees.
    HiddenBearer(&'a HeaderValue),
    /// Any other scheme.
    Other,
}

/// More than one `Authorization`: two readers could take different ones (CVE-2025-64527).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than one Authorization header")]
pub struct SeveralAuthorizations;

/// A bearer that means nothing: no parser of core's accepts it, so the request is served as anonymous or
/// challenged with `Basic` (C4, C5). Without any header core would challenge every read (C2).
pub const BLANK: HeaderValue = HeaderValue::from_static("Bearer blank");

impl<'a> Credential<'a> {
    /// Reads the `Authorization` of a request. Schemes are compared without case (RFC 9110, 11.1).
    pub fn of(headers: &'a HeaderMap) -> Result<Self, SeveralAuthorizations> {
        let mut all = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = all.next() else { return Ok(Self::None) };
        if all.next().is_some() {
            return Err(SeveralAuthorizations);
        }
        Ok(Self::read(value))
    }

    fn read(value: &'a HeaderValue) -> Self {
        let bytes = value.as_bytes();
        let end = bytes.iter().position(|b| matches!(b, b' ' | b'\t')).unwrap_or(bytes.len());
        let scheme = &bytes[..end];
        if scheme.eq_ignore_ascii_case(b"bearer") {
            Self::Bearer(trimmed(&bytes[end..]))
        } else if hides_bearer(bytes) {
            Self::HiddenBearer(value)
        } else if scheme.eq_ignore_ascii_case(b"basic") {
            Self::Basic(value)
        } else if scheme.eq_ignore_ascii_case(b"harbor-secret") {
            Self::HarborSecret
        } else {
            Self::Other
        }
    }
}

/// Whether core would find a token in it. Basic's alphabet has no point, every token has two.
fn hides_bearer(bytes: &[u8]) -> bool {
    const WORD: &[u8] = b"Bearer";
    if !bytes.contains(&b'.') {
        return false;
    }
    let word = bytes.windows(WORD.len()).position(|part| part == WORD);
    word.is_some_and(|at| bytes[at..].contains(&b'.'))
}

/// Without the spaces and tabs around it.
fn trimmed(bytes: &[u8]) -> &[u8] {
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let start = bytes.iter().position(|b| !blank(b)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|b| !blank(b)).map_or(start, |last| last + 1);
    &bytes[start..end]
}

/// The user name of a Basic credential, for fairness among names (A7); `None` where it can't be read.
pub fn basic_user(value: &HeaderValue) -> Option<String> {
    basic_pair(value).map(|(name, _)| String::from_utf8_lossy(&name).into_owned())
}

/// Bytes that are wiped when they are let go.
pub type Wiped = Zeroizing<Vec<u8>>;

/// Name and password of a Basic credential; `None` where it can't be read.
pub fn basic_pair(value: &HeaderValue) -> Option<(Wiped, Wiped)> {
    use base64::Engine as _;
    let text = value.to_str().ok()?;
    let encoded = text.get(5..)?.trim_matches([' ', '\t']);
    let mut name = Zeroizing::new(base64::engine::general_purpose::STANDARD.decode(encoded).ok()?);
    let colon = name.iter().position(|b| *b == b':')?;
    let password = Zeroizing::new(name.split_off(colon + 1));
    name.pop();
    Some((name, password))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&'static str]) -> Result<String, SeveralAuthorizations> {
        let mut headers = HeaderMap::new();
        for v in values {
            headers.append(AUTHORIZATION, HeaderValue::from_static(v));
        }
        Credential::of(&headers).map(|c| match c {
            Credential::None => "none".to_owned(),
            Credential::Basic(_) => "basic".to_owned(),
            Credential::Bearer(t) => format!("bearer[{}]", String::from_utf8_lossy(t)),
            Credential::HarborSecret => "secret".to_owned(),
            Credential::HiddenBearer(_) => "hidden".to_owned(),
            Credential::Other => "other".to_owned(),
        })
    }

    #[test]
    fn each_form_of_authorization_is_told_apart() {
        let table: [(&[&'static str], &str); 17] = [
            (&[], "none"),
            (&["Basic YTpi"], "basic"),
            (&["bAsIc YTpi"], "basic"),
            (&["Bearer a.b.c"], "bearer[a.b.c]"),
            (&["bearer  a.b.c "], "bearer[a.b.c]"),
            (&["BEARER\ta.b.c"], "bearer[a.b.c]"),
            (&["Bearer"], "bearer[]"),
            (&["Bearer a, Bearer b"], "bearer[a, Bearer b]"),
            (&["Harbor-Secret x"], "secret"),
            (&["Negotiate x"], "other"),
            (&["Bearera.b.c"], "hidden"),
            (&["X Bearer a.b.c"], "hidden"),
            (&["Basic YTpiBearer a.b.c"], "hidden"),
            (&["Harbor-Secret Bearer a.b.c"], "hidden"),
            // May be Basic's own letters, and holds no token.
            (&["Basic YTpiBearer"], "basic"),
            (&["xBearer"], "other"),
            (&[""], "other"),
        ];
        for (values, want) in table {
            assert_eq!(of(values).as_deref(), Ok(want), "{values:?}");
        }
        assert_eq!(of(&["Basic YTpi", "Bearer x"]), Err(SeveralAuthorizations));
    }

    #[test]
    fn a_name_is_read_up_to_the_first_colon() {
        let user = |v: &'static str| basic_user(&HeaderValue::from_static(v));
        assert_eq!(user("Basic cm9ib3QkY2k6YTpi").as_deref(), Some("robot$ci"));
        let pair = basic_pair(&HeaderValue::from_static("Basic cm9ib3QkY2k6YTpi"));
        let pair = pair.map(|(name, password)| (name.to_vec(), password.to_vec()));
        assert_eq!(pair, Some((b"robot$ci".to_vec(), b"a:b".to_vec())));
        for unreadable in ["Basic", "Basic !!", "Basic YWI="] {
            assert_eq!(user(unreadable), None, "{unreadable}");
        }
    }
}
