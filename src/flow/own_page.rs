//! Our own page on listeners of scope `cluster`: the keys that our own files held, for peers that prove to be some (A10).

use std::{rc::Rc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts};

use super::{
    body::DownBody,
    context::{Downstream, Policy, Worker},
};
use crate::{
    edges::distant::peers::{Denied, NONCE, PROOF, Peers, TARGET, WANTED},
    words::reason::Reason,
};

/// For a look at files, which takes milliseconds where nothing is wrong.
const LOOK: Duration = Duration::from_secs(1);

/// The answer to whoever asks for it.
pub async fn answer(
    worker: &Rc<Worker>,
    downstream: &Downstream,
    policy: &Policy,
    (path, parts): (&str, &Parts),
) -> Result<Response<DownBody>, Reason> {
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    let is_there = reads && downstream.cluster && path == TARGET;
    let peers = worker.shared.distant.peers().filter(|_| is_there).ok_or(Reason::NoSuchPage)?;
    let headers = &parts.headers;
    let show =
        || peers.show(downstream.certified, one(headers, &NONCE), one(headers, &PROOF)).map_err(reason);
    // Whoever may not read it makes us look at nothing.
    let mut shown = show()?;
    if one(headers, &WANTED).is_some_and(|kid| !peers.holds(kid))
        && worker.shared.may_look_for_peers(policy.between_looks)
    {
        look(worker, peers, headers).await;
        shown = show()?;
    }
    let tag = format!("\"{}\"", shown.tag);
    let is_known = one(headers, &header::IF_NONE_MATCH) == Some(&tag);
    let mut response = Response::new(if is_known {
        DownBody::whole(bytes::Bytes::new())
    } else {
        DownBody::whole(shown.document.into())
    });
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let texts = [
        (header::CONTENT_TYPE, "application/jwk-set+json".to_owned()),
        // Kept by the asker alone, and asked for again: a key that was retired at once is in no copy.
        (header::CACHE_CONTROL, "private, no-cache".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::ETAG, tag),
        (PROOF, shown.proof.unwrap_or_default()),
    ];
    let values = texts.into_iter().filter(|(_, text)| !text.is_empty());
    response
        .headers_mut()
        .extend(values.filter_map(|(name, text)| Some((name, HeaderValue::from_str(&text).ok()?))));
    Ok(response)
}

async fn look(worker: &Rc<Worker>, peers: &Peers, headers: &HeaderMap) {
    let keys = &worker.shared.keys;
    // The first look to end may have begun before the file changed.
    for _ in 0..2 {
        if one(headers, &WANTED).is_some_and(|kid| peers.holds(kid)) {
            return;
        }
        keys.look_soon();
        keys.looked_within(LOOK).await;
    }
}

fn reason(denied: Denied) -> Reason {
    match denied {
        Denied::NoPage => Reason::NoSuchPage,
        Denied::Unproved => Reason::PeerUnproved,
    }
}

/// The value of a header that stands there once.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(first)
}
