//! A write that may end something is heard to its end, whoever leaves meanwhile: what Harbor has taken is over here too.

use std::{rc::Rc, sync::Arc};

use http::{HeaderMap, Method, Response, header};

use super::{Ended, EndedGrace, ended_by, grace_ended_by};
use crate::{
    flow::{
        body::DownBody,
        context::{Downstream, Policy, Worker},
        registry::{self, Ask},
        story::Story,
    },
    words::{credential::Credential, reason::Reason},
};

/// Sends it up, and forgets what it has ended. It goes on when its client leaves.
pub async fn forward(
    worker: &Rc<Worker>,
    downstream: &Rc<Downstream>,
    policy: &Arc<Policy>,
    (ask, path): (Ask<'_>, &str),
    story: &mut Story,
) -> Result<Response<DownBody>, Reason> {
    let Ask { outgoing, within, park, patience, need, portal, of_client, .. } = ask;
    let ask = Ask { outgoing, registry: None, bearer: None, within, park, patience, need, portal, of_client };
    let (worker, downstream, policy) = (worker.clone(), downstream.clone(), policy.clone());
    let mut told = Story::silent(&worker, story.client);
    told.client_text = story.client_text.clone();
    let path = path.to_owned();
    let heard = tokio::task::spawn_local(async move {
        let (method, known) = (ask.outgoing.method.clone(), is_known(&worker, &ask.outgoing.headers));
        let result = registry::forward(&worker, Some(&downstream), &policy, ask, &mut told).await;
        if may_be_done(&result, known) {
            forget(&worker, &method, &path);
        }
        (result, told)
    });
    // It ends early only with the process.
    let Ok((result, told)) = heard.await else { return Err(Reason::UpstreamBroke) };
    story.sends = told.sends;
    (story.plan, story.rescue, story.refusal) = (told.plan, told.rescue, told.refusal);
    story.endpoint.clone_from(&told.endpoint);
    result
}

/// Whether Harbor may have done it. Without an answer that counts only for somebody whom Harbor may know: else anybody
/// could end everybody's grace in the very outage.
fn may_be_done(result: &Result<Response<DownBody>, Reason>, known: bool) -> bool {
    match result {
        Ok(answer) => answer.status().is_success(),
        Err(Reason::UpstreamBroke | Reason::UpstreamSlow) => known,
        Err(_) => false,
    }
}

/// Whether it carries a session, or a password that Harbor has accepted before.
fn is_known(worker: &Worker, headers: &HeaderMap) -> bool {
    let basic = match Credential::of(headers) {
        Ok(Credential::Basic(basic)) => worker.shared.wrong.has_accepted(basic),
        _ => false,
    };
    basic || headers.contains_key(header::COOKIE)
}

fn forget(worker: &Worker, method: &Method, path: &str) {
    let (shared, ended) = (&worker.shared, ended_by(method, path));
    if ended >= Ended::Answers {
        shared.answers.forget_all();
    }
    match grace_ended_by(method, path) {
        EndedGrace::Nobodys => {}
        EndedGrace::Of(project) => shared.graces.forget_project(project, shared.clock.now()),
        EndedGrace::Everybodys => shared.graces.forget_all(shared.clock.now()),
    }
    if ended >= Ended::Credentials {
        shared.replays.forget_all();
    }
    if ended >= Ended::Answers {
        // After what it ended of grace: it is to be known by then.
        shared.graces.tell_of_answers(ended >= Ended::Credentials, shared.clock.now());
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn what_has_no_answer_may_be_done_where_somebody_known_asked() {
        let answer = |status| {
            let mut response = Response::new(DownBody::whole(bytes::Bytes::new()));
            *response.status_mut() = status;
            Ok(response)
        };
        let table = [
            (answer(StatusCode::OK), [true, true]),
            (answer(StatusCode::FORBIDDEN), [false, false]),
            (answer(StatusCode::INTERNAL_SERVER_ERROR), [false, false]),
            (Err(Reason::UpstreamBroke), [false, true]),
            (Err(Reason::UpstreamSlow), [false, true]),
            (Err(Reason::NoEndpoint), [false, false]),
            (Err(Reason::BodyBroke), [false, false]),
        ];
        for (result, want) in table {
            assert_eq!([false, true].map(|known| may_be_done(&result, known)), want);
        }
    }
}
