//! Takes a repository out of a Harbor again.

use std::sync::Arc;

use http::{Method, StatusCode};

use super::{
    client::{Client, basic},
    said,
    site::Site,
    wire::{Call, Wire},
};

/// Why a repository is still there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// In Harbor's words, or the connection's.
    pub why: String,
    /// Whether asking again is of no use.
    pub is_final: bool,
}

/// Deletes a repository (`project/name`) by Harbor's API; well, too, where it isn't there.
pub async fn remove(site: &Arc<Site>, repository: &str) -> Result<(), Refused> {
    let (project, name) = repository.split_once('/').unwrap_or((repository, ""));
    let call = Call::new(Method::DELETE, format!("/api/v2.0/projects/{project}/repositories/{name}"));
    let again = |why: String| Refused { why, is_final: false };
    // The API takes the credential at once; whose habits doesn't matter.
    let credential = basic(site, Client::Crane).map_err(|error| again(error.to_string()))?;
    let answer = Wire::to(site.origin.clone(), site).send(&call, Some(&credential)).await.map_err(again)?;
    match answer.status {
        StatusCode::OK | StatusCode::NOT_FOUND => Ok(()),
        status => Err(Refused {
            why: said::message(&answer)
                .map_or_else(|| status.to_string(), |said| format!("{status}: {said}")),
            is_final: status == StatusCode::FORBIDDEN,
        }),
    }
}
