//! The clients' own words for what went wrong, as recorded of the real ones, with `…` for what differs each time.

use http::{Method, StatusCode};
use serde_json::Value;

use super::{client::Client, wire::Answer};

/// Where in a command something went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Ping,
    Token,
    Login,
    ReadManifest,
    ReadBlob,
    LookForBlob,
    OpenUpload,
    SendUpload,
    CloseUpload,
    WriteManifest,
    /// What was pushed is looked at again, by the rehearsal.
    Check,
}

/// An answer that a client can't go on with.
pub(super) fn refused(client: Client, step: Step, repository: &str, answer: &Answer) -> String {
    let status = answer.status;
    // A log-in has no repository, and an empty text is found everywhere.
    let named = |said: String| if repository.is_empty() { said } else { said.replace(repository, "…") };
    let message = message(answer).map(named);
    let error = distribution(status, message.as_deref());
    match (client, step) {
        (Client::Podman | Client::Skopeo, Step::Token | Step::Login)
            if status == StatusCode::UNAUTHORIZED =>
        {
            "logging into \"…\": invalid username/password".to_owned()
        }
        (Client::Podman | Client::Skopeo, Step::ReadBlob) if status == StatusCode::UNAUTHORIZED => {
            format!("{}unable to retrieve auth token: invalid username/password: {error}", podman(step))
        }
        (Client::Podman | Client::Skopeo, step) => format!("{}{error}", podman(step)),
        (Client::Docker, Step::Login) => {
            format!("Error response from daemon: login attempt to http://…/v2/ failed with status: {status}")
        }
        (Client::Docker, Step::ReadManifest | Step::ReadBlob) => {
            format!("Error response from daemon: {error}")
        }
        (Client::Docker, _) => error,
        (Client::Containerd, step) => format!("{}unexpected status: {status}", containerd(step)),
        (Client::Crane, step) => match message {
            Some(message) => format!("{} …: UNAUTHORIZED: {message}", method(step)),
            None => format!("{} …: unexpected status code {status}", method(step)),
        },
    }
}

/// An error as the distribution client words it, which docker and podman share.
fn distribution(status: StatusCode, message: Option<&str>) -> String {
    match (message, status) {
        (Some(message), StatusCode::UNAUTHORIZED) => format!("unauthorized: {message}"),
        (None, StatusCode::UNAUTHORIZED) => "unauthorized: authentication required".to_owned(),
        (Some(message), _) => message.to_owned(),
        (None, _) => format!("received unexpected HTTP status: {status}"),
    }
}

/// No answer came.
pub(super) fn cut(client: Client, step: Step, cut: &str) -> String {
    match client {
        Client::Podman | Client::Skopeo => format!("{}{} \"…\": {cut}", podman(step), method(step)),
        Client::Containerd => format!("{}{} \"…\": {cut}", containerd(step), method(step)),
        Client::Docker | Client::Crane => format!("{} \"…\": {cut}", method(step)),
    }
}

/// The bytes are not those that were asked for.
pub(super) fn other_bytes(client: Client, step: Step) -> String {
    match client {
        Client::Docker => "filesystem layer verification failed for digest …".to_owned(),
        Client::Podman | Client::Skopeo => format!("{}digest did not match, expected …, got …", podman(step)),
        Client::Containerd => "unexpected commit digest …, expected …: failed precondition".to_owned(),
        Client::Crane => "error verifying sha256 checksum; got …, want …".to_owned(),
    }
}

/// distribution's `message` of the first error; what Harbor says twice, with a colon between, once.
pub(super) fn message(answer: &Answer) -> Option<String> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    let message = body["errors"][0]["message"].as_str()?;
    let middle = message.len() / 2;
    let halves = message.get(..middle.saturating_sub(1)).zip(message.get(middle + 1..));
    let once = halves.filter(|(first, second)| first == second).map_or(message, |(first, _)| first);
    Some(once.to_owned())
}

fn podman(step: Step) -> &'static str {
    match step {
        Step::Ping | Step::Token => "",
        Step::Login => "logging into \"…\": ",
        Step::ReadManifest | Step::Check => "reading manifest … in …: ",
        Step::ReadBlob => "reading blob …: ",
        Step::LookForBlob => "trying to reuse blob … at destination: checking whether a blob … exists in …: ",
        Step::OpenUpload => "writing blob: initiating layer upload to … in …: ",
        Step::SendUpload => "writing blob: uploading layer chunked: ",
        Step::CloseUpload => "writing blob: uploading layer to …: ",
        Step::WriteManifest => "writing manifest: uploading manifest … to …: ",
    }
}

fn containerd(step: Step) -> &'static str {
    match step {
        Step::Ping | Step::Login | Step::Check => "",
        Step::Token => "failed to authorize: failed to fetch oauth token: ",
        Step::ReadManifest => "failed to resolve reference \"…\": ",
        Step::ReadBlob => "failed to copy: httpReadSeeker: failed open: ",
        Step::LookForBlob | Step::OpenUpload => "failed to push: ",
        Step::SendUpload | Step::CloseUpload => "failed to copy: ",
        Step::WriteManifest => "failed commit on ref \"manifest-…\": ",
    }
}

fn method(step: Step) -> Method {
    match step {
        Step::Ping | Step::Token | Step::Login | Step::ReadManifest | Step::ReadBlob => Method::GET,
        Step::LookForBlob | Step::Check => Method::HEAD,
        Step::OpenUpload => Method::POST,
        Step::SendUpload => Method::PATCH,
        Step::CloseUpload | Step::WriteManifest => Method::PUT,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    fn refusal(body: &'static str) -> Answer {
        Answer {
            status: StatusCode::UNAUTHORIZED,
            headers: HeaderMap::new(),
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[test]
    fn each_client_speaks_for_itself_and_says_once_what_harbor_says_twice() {
        let twice = refusal(
            r#"{"errors":[{"code":"UNAUTHORIZED","message":"unauthorized to access repository: p/r, action: pull: unauthorized to access repository: p/r, action: pull"}]}"#,
        );
        let said = |client, step| refused(client, step, "p/r", &twice);
        assert_eq!(
            said(Client::Podman, Step::ReadManifest),
            "reading manifest … in …: unauthorized: unauthorized to access repository: …, action: pull"
        );
        assert_eq!(
            said(Client::Docker, Step::ReadBlob),
            "Error response from daemon: unauthorized: unauthorized to access repository: …, action: pull"
        );
        assert_eq!(
            refused(Client::Docker, Step::LookForBlob, "p/r", &refusal("")),
            "unauthorized: authentication required"
        );
        assert_eq!(
            cut(Client::Docker, Step::SendUpload, "write: broken pipe"),
            "PATCH \"…\": write: broken pipe"
        );
    }
}
