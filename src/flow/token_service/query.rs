//! A token request's query as Harbor reads it.

use aws_lc_rs::hmac;
use http::HeaderValue;
use percent_encoding::percent_decode_str;

use crate::words::scope::{Access, Scope};

/// A query of the usual shape. Any other is passed on and its answer never kept (A2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// `service`.
    pub service: String,
    /// All scopes in their order, several in one parameter taken apart (T5).
    pub scopes: Vec<Scope>,
}

/// Scopes of one request at most; a larger one is passed on, uncached.
const SCOPES: usize = 64;

impl Query {
    /// Reads a query; `None` where its shape is not the usual one: a parameter that we don't know, `service`
    /// twice or not at all, a semicolon (which Go drops), an encoding that is none.
    pub fn read(query: &str) -> Option<Self> {
        if query.contains(';') {
            return None;
        }
        let mut service = None;
        let mut scopes = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value)?;
            match name {
                "service" if service.is_none() => service = Some(value),
                "scope" => scopes.extend(value.split(' ').filter(|s| !s.is_empty()).map(Scope::parse)),
                // Ignored by Harbor (T12).
                "account" | "client_id" | "offline_token" => {}
                _ => return None,
            }
        }
        (scopes.len() <= SCOPES).then_some(Self { service: service?, scopes })
    }

    /// The place of a question under a key: every part with its length before it, so that no two questions share one
    /// (A2).
    pub fn place(&self, key: &hmac::Key, deployment: &str, credential: Option<&HeaderValue>) -> [u8; 32] {
        let mut context = hmac::Context::with_key(key);
        let mut part = |bytes: &[u8]| {
            context.update(&(bytes.len() as u64).to_be_bytes());
            context.update(bytes);
        };
        part(deployment.as_bytes());
        part(&[u8::from(credential.is_some())]);
        part(credential.map_or(&[], |c| c.as_bytes()));
        part(self.service.as_bytes());
        for scope in &self.scopes {
            part(scope.kind.as_bytes());
            part(scope.name.as_bytes());
            part(&(scope.actions.len() as u64).to_be_bytes());
            scope.actions.iter().for_each(|action| part(action.as_bytes()));
        }
        let mut place = [0; 32];
        place.copy_from_slice(context.sign().as_ref());
        place
    }

    /// Whether a token's access grants every action that was asked for.
    pub fn granted_by(&self, access: &[Access]) -> bool {
        self.scopes.iter().all(|scope| scope.granted_by(access))
    }
}

fn decoded(value: &str) -> Option<String> {
    let spaced = value.replace('+', " ");
    let text = percent_decode_str(&spaced).decode_utf8().ok()?;
    (!text.contains(|c: char| c.is_control())).then(|| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_shapes_are_read() {
        let docker = "account=admin&client_id=docker&offline_token=true&service=harbor-registry&scope=repository%3Ap%2Fr%3Apush%2Cpull";
        let read = Query::read(docker).expect("the usual shape");
        assert_eq!((read.service.as_str(), read.scopes.len()), ("harbor-registry", 1));
        assert_eq!(read.scopes[0].actions, ["pull", "push"]);
        let two = Query::read("service=s&scope=repository:a/b:pull+repository:c/d:pull").expect("two in one");
        assert_eq!(
            two,
            Query::read("service=s&scope=repository:a/b:pull&scope=repository:c/d:pull").expect("two")
        );
    }

    #[test]
    fn any_other_shape_is_not_read() {
        let many = "service=s".to_owned() + &"&scope=repository:a/b:pull".repeat(1_000);
        for query in [
            "",
            "scope=x",
            "service=a&service=b",
            "service=a;scope=b",
            "service=%ff",
            "service=a%00",
            "service=a&other=1",
            &many,
        ] {
            assert_eq!(Query::read(query), None, "{query:.60}");
        }
    }
}
