//! How a shared secret is proved without being sent: who asks shows a tag over a nonce of its own, who answers one over the same
//! nonce and the document. Both are bound to the deployment, so that neither says anything to another Harbor's tidegate.

use aws_lc_rs::{
    digest::{SHA256, digest},
    hmac,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// Bytes of the shortest secret: who hears a proof may guess as fast as it can.
pub const SHORTEST: usize = 32;
/// Secrets of a file at most.
const MOST: usize = 8;

const ASK: &[u8] = b"tidegate peer ask 1";
const ANSWER: &[u8] = b"tidegate peer answer 1";

/// A secret that peers share.
pub struct Secret(hmac::Key);

/// Why a text holds no secret. It says nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretFault {
    #[error("it holds no secret")]
    Empty,
    #[error("a secret of it has fewer than {SHORTEST} characters")]
    Short,
    #[error("it has more than {MOST} lines")]
    Many,
}

impl SecretFault {
    /// What mends it, in words for the operator.
    pub const REMEDY: &'static str =
        "make one and give it to all replicas: (umask 077; openssl rand -base64 32 > FILE)";
}

/// One secret a line: the first proves, any is taken, so that it can be changed without a gap.
pub fn secrets(text: &str) -> Result<Vec<Secret>, SecretFault> {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        return Err(SecretFault::Empty);
    }
    if lines.iter().any(|line| line.len() < SHORTEST) {
        return Err(SecretFault::Short);
    }
    if lines.len() > MOST {
        return Err(SecretFault::Many);
    }
    Ok(lines.into_iter().map(|line| Secret(hmac::Key::new(hmac::HMAC_SHA256, line.as_bytes()))).collect())
}

/// The tag of a document, without the quotes of an `ETag`.
pub fn tag(document: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, document))
}

/// Whether a text may be a nonce: 22 to 64 characters of base64url.
pub fn is_nonce(text: &str) -> bool {
    (22..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

impl Secret {
    /// What who asks shows.
    pub fn of_ask(&self, deployment: &str, nonce: &str) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.0, &message(ASK, &[deployment, nonce])))
    }

    /// What who answers shows, with the tag of the document that the asker has then.
    pub fn of_answer(&self, deployment: &str, nonce: &str, tag: &str) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.0, &message(ANSWER, &[deployment, nonce, tag])))
    }

    /// In constant time.
    pub fn proves_ask(&self, deployment: &str, nonce: &str, proof: &str) -> bool {
        self.proves(&message(ASK, &[deployment, nonce]), proof)
    }

    /// In constant time.
    pub fn proves_answer(&self, deployment: &str, nonce: &str, tag: &str, proof: &str) -> bool {
        self.proves(&message(ANSWER, &[deployment, nonce, tag]), proof)
    }

    fn proves(&self, message: &[u8], proof: &str) -> bool {
        URL_SAFE_NO_PAD.decode(proof).is_ok_and(|proof| hmac::verify(&self.0, message, &proof).is_ok())
    }
}

/// Each part with its length before it, so that no two lists of parts are one message.
fn message(label: &[u8], parts: &[&str]) -> Vec<u8> {
    let mut message = label.to_vec();
    for part in parts {
        message.extend((part.len() as u64).to_be_bytes());
        message.extend(part.as_bytes());
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "0123456789abcdefghijkl";

    fn secret(text: &str) -> Secret {
        secrets(text).expect("a secret").remove(0)
    }

    #[test]
    fn a10_a_proof_holds_for_one_secret_deployment_nonce_and_document() {
        let ours = secret(&"a".repeat(32));
        let asked = ours.of_ask("harbor", NONCE);
        assert!(ours.proves_ask("harbor", NONCE, &asked));
        assert!(!ours.proves_ask("another", NONCE, &asked));
        assert!(!ours.proves_ask("harbor", &NONCE.replace('0', "1"), &asked));
        assert!(!secret(&"b".repeat(32)).proves_ask("harbor", NONCE, &asked));
        let answered = ours.of_answer("harbor", NONCE, "tag");
        assert!(ours.proves_answer("harbor", NONCE, "tag", &answered));
        assert!(!ours.proves_answer("harbor", NONCE, "another", &answered));
        assert!(!ours.proves_ask("harbor", NONCE, &answered), "one is not the other");
        assert!(!ours.proves_answer("harbor", NONCE, "", &asked));
        for none in ["", "****", &asked[1..], &format!("{asked}=")] {
            assert!(!ours.proves_ask("harbor", NONCE, none), "{none}");
        }
    }

    #[test]
    fn a_file_holds_one_secret_a_line_and_none_that_can_be_guessed() {
        let long = "x".repeat(32);
        assert_eq!(secrets(&format!("{long}\n\n  {long}y \n")).map(|secrets| secrets.len()), Ok(2));
        for (text, fault) in [
            (String::new(), SecretFault::Empty),
            (" \n ".to_owned(), SecretFault::Empty),
            (format!("{long}\nshort"), SecretFault::Short),
            (format!("{long}\n").repeat(MOST + 1), SecretFault::Many),
        ] {
            assert_eq!(secrets(&text).err(), Some(fault));
        }
    }

    #[test]
    fn only_base64url_of_some_length_is_a_nonce() {
        assert!(is_nonce(NONCE) && is_nonce("-_aaaaaaaaaaaaaaaaaaaa"));
        for none in ["", "short", "a b0123456789abcdefghijkl", &"x".repeat(65)] {
            assert!(!is_nonce(none), "{none}");
        }
    }
}
