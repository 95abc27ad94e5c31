//! What core does below `/v2/` once a request is allowed: a few answers of its own, the rest is the registry's.

use serde_json::json;

use super::{
    registry_client::{Answer, RegistryAddress},
    replica::Inner,
    repository_path::{RepositoryPath, What},
    times::http_date,
    wire::{
        head::Head,
        reply::{Reply, ReplyBody},
        request_body::RequestBody,
    },
    world::{RegistryBackend, deeds::Begun},
};
use std::{net::SocketAddr, sync::Arc};

impl Inner {
    /// Answers an allowed request.
    pub(super) async fn registry(
        &self,
        head: &Head,
        path: &str,
        body: &mut RequestBody<'_>,
        peer: Option<SocketAddr>,
    ) -> Reply {
        if path == "/v2/" {
            return Reply::new(200)
                .with("Content-Length", "2")
                .with("Content-Type", "application/json; charset=utf-8")
                .with("Date", self.date())
                .with("Docker-Distribution-Api-Version", "registry/2.0")
                .body("{}");
        }
        let Some(asked) = RepositoryPath::parse(path) else { return self.catalog() };
        if !asked.repository.contains('/') {
            let message = format!("invalid repository name: {}", asked.repository);
            return Reply::error(400, "BAD_REQUEST", &message);
        }
        let begun = self.begun(head);
        let mut reply = match &self.world.registry {
            // The registry's own `Date` stands among its headers, core's behind them.
            RegistryBackend::Memory(memory) => {
                memory.answer(head, &asked, body).await.of(begun).with("Date", self.date())
            }
            RegistryBackend::Proxy(registry) => forward(registry, head, body, (peer, begun)).await,
        };
        reply.spoilt_by_expect = body.expects_continue();
        self.as_harbor_says(head, &asked, reply).await
    }

    fn date(&self) -> String {
        http_date(self.clock.now_precise())
    }

    fn catalog(&self) -> Reply {
        let mut names: Vec<String> = self.world.tables().repositories.iter().cloned().collect();
        names.sort_unstable();
        let body = json!({"repositories": names}).to_string() + "\n";
        Reply::new(200).with("Content-Type", "application/json; charset=utf-8").body(body)
    }

    /// Core knows its artifacts: an unknown one is told in its own words (C9), without asking the registry.
    async fn as_harbor_says(&self, head: &Head, asked: &RepositoryPath, reply: Reply) -> Reply {
        let What::Manifest(reference) = &asked.what else { return reply };
        let reads = matches!(head.method.as_str(), "GET" | "HEAD");
        match reply.status {
            200 | 201 => self.world.note_repository(&asked.repository),
            404 if reads => return self.unknown_artifact(&asked.repository, reference, reply).await,
            _ => {}
        }
        reply
    }

    async fn unknown_artifact(&self, repository: &str, reference: &str, reply: Reply) -> Reply {
        let (kept, text) = text_of(reply).await;
        // F5: the registry refuses for the sake of `Accept`; a HEAD shows no text and needs no words.
        if text.contains("accept header does not support") {
            return kept;
        }
        let message = if self.world.knows_repository(repository) {
            let at = if reference.contains(':') { '@' } else { ':' };
            format!("artifact {repository}{at}{reference} not found")
        } else {
            format!("repository {repository} not found")
        };
        Reply::error(404, "NOT_FOUND", &message)
    }
}

async fn forward(
    registry: &Arc<RegistryAddress>,
    head: &Head,
    body: &mut RequestBody<'_>,
    for_whom: (Option<SocketAddr>, Option<Begun>),
) -> Reply {
    match registry.send(head, body, for_whom).await {
        Ok(answer) => streamed(answer),
        Err(_) => Reply::new(502),
    }
}

fn streamed(mut answer: Answer) -> Reply {
    const HOP_BY_HOP: [&str; 3] = ["connection", "keep-alive", "transfer-encoding"];
    let mut reply = Reply::new(answer.status);
    reply.deed = answer.deed;
    reply.headers = std::mem::take(&mut answer.headers);
    reply.headers.retain(|(name, _)| !HOP_BY_HOP.iter().any(|hop| name.eq_ignore_ascii_case(hop)));
    reply.body = ReplyBody::Registry(Box::new(answer));
    reply
}

/// A short answer's text, and the answer again.
async fn text_of(mut reply: Reply) -> (Reply, String) {
    let bytes = match reply.body {
        ReplyBody::Here(ref pieces) => pieces.concat(),
        ReplyBody::Registry(mut answer) => {
            let whole = answer.whole().await.unwrap_or_default();
            answer.done();
            whole
        }
    };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    reply.body = ReplyBody::Here(vec![bytes.into()]);
    (reply, text)
}
