//! What was done, judged: no request twice (A22).

use std::collections::HashMap;
use tidegate::rehearsal::harbor::Deed;

/// Each request that was done more than once, and must not have been. Those without an id came past tidegate.
///
/// The opening of an upload may be done again, and then is another session (A22); a step of an upload done again in
/// another session (A24) has another target. All else is once or not at all.
pub fn twice(deeds: &[Deed]) -> Vec<String> {
    let mut requests: HashMap<_, Vec<&Deed>> = HashMap::new();
    for deed in deeds.iter().filter(|deed| !deed.request_id.is_empty()) {
        requests.entry((&deed.request_id, &deed.method, &deed.target)).or_default().push(deed);
    }
    let violations = requests.into_values().filter(|done| done.len() > 1 && !may_be_again(done));
    violations.map(|done| told(&done)).collect()
}

fn may_be_again(done: &[&Deed]) -> bool {
    let path =
        |deed: &Deed| deed.target.split('?').next().unwrap_or_default().trim_end_matches('/').to_owned();
    let opens = |deed: &Deed| deed.method == "POST" && path(deed).ends_with("/blobs/uploads");
    // A mount names no session, and changes nothing when it is done again.
    let sessions: Vec<&str> =
        done.iter().map(|deed| deed.upload.as_str()).filter(|id| !id.is_empty()).collect();
    let differ = sessions.iter().enumerate().all(|(at, id)| !sessions[..at].contains(id));
    done.iter().all(|deed| opens(deed)) && differ
}

fn told(done: &[&Deed]) -> String {
    let Deed { method, target, request_id, .. } = done[0];
    let each = done.iter().map(|deed| {
        format!("{} at {}{}", deed.status, deed.core, if deed.acknowledged { "" } else { ", unacknowledged" })
    });
    let each = each.collect::<Vec<_>>().join("; ");
    format!("done {} times: {method} {target} of request {request_id} ({each})", done.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deed(request_id: &str, method: &str, target: &str, upload: &str) -> Deed {
        Deed {
            core: ([127, 0, 0, 1], 1).into(),
            method: method.to_owned(),
            target: target.to_owned(),
            request_id: request_id.to_owned(),
            status: 201,
            upload: upload.to_owned(),
            acknowledged: true,
        }
    }

    #[test]
    fn a22_only_openings_and_steps_of_other_sessions_may_be_done_again() {
        let (tag, open, step) =
            ("/v2/p/r/manifests/v1", "/v2/p/r/blobs/uploads/", "/v2/p/r/blobs/uploads/1?_state=x");
        let table = [
            (0, [deed("a", "PUT", tag, ""), deed("b", "PUT", tag, "")]),
            (0, [deed("", "PUT", tag, ""), deed("", "PUT", tag, "")]),
            (0, [deed("a", "POST", open, "1"), deed("a", "POST", open, "2")]),
            (0, [deed("a", "PATCH", step, "1"), deed("a", "PATCH", "/v2/p/r/blobs/uploads/2?_state=y", "2")]),
            (
                0,
                [
                    deed("a", "POST", "/v2/p/r/blobs/uploads/?mount=d&from=q", ""),
                    deed("a", "POST", "/v2/p/r/blobs/uploads/?mount=d&from=q", ""),
                ],
            ),
            (1, [deed("a", "PUT", tag, ""), deed("a", "PUT", tag, "")]),
            (1, [deed("a", "DELETE", tag, ""), deed("a", "DELETE", tag, "")]),
            (1, [deed("a", "POST", "/api/v2.0/labels", ""), deed("a", "POST", "/api/v2.0/labels", "")]),
            (1, [deed("a", "POST", open, "1"), deed("a", "POST", open, "1")]),
            (1, [deed("a", "PATCH", step, "1"), deed("a", "PATCH", step, "1")]),
        ];
        for (wrong, deeds) in table {
            assert_eq!(twice(&deeds).len(), wrong, "{deeds:?}");
        }
    }
}
