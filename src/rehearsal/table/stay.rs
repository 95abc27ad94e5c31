//! What a person can do with lanes that stay.

use std::{fmt, net::SocketAddr};

use serde::Serialize;

use crate::rehearsal::{
    harbor::{SAMPLE_ROBOT_SECRET, SAMPLE_USER_PASSWORD},
    load::Repositories,
};

/// The fronts of lanes that stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Stay {
    pub direct: SocketAddr,
    pub through_tidegate: SocketAddr,
}

impl fmt::Display for Stay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (front, direct) = (self.through_tidegate, self.direct);
        let (user, image) = (SAMPLE_USER_PASSWORD, Repositories::OneEach.pulled(0));
        let mine = "priv/mine:v1";
        write!(
            f,
            "
Both lanes stay until Ctrl-C: through tidegate at {front},
directly at {direct}. User dev has the password {user}, robot
robot$ci the secret {SAMPLE_ROBOT_SECRET}, both in the private project priv.

  docker login -u dev -p {user} {front}
  docker pull {front}/{image}

  skopeo copy --src-tls-verify=false --src-creds dev:{user} \\
    docker://{front}/{image} oci:image:v1
  skopeo copy --dest-tls-verify=false --dest-creds dev:{user} \\
    oci:image:v1 docker://{front}/{mine}

  crane auth login -u dev -p {user} {front}
  crane manifest {front}/{image}
  crane copy {front}/{image} {front}/{mine}
"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_to_copy_fit_a_terminal() {
        let fronts = ["127.0.0.1:65535", "127.0.0.1:65534"].map(|a| a.parse().expect("an address"));
        let text = Stay { direct: fronts[0], through_tidegate: fronts[1] }.to_string();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("docker login -u dev -p Dev12345 127.0.0.1:65534"), "{text}");
    }
}
