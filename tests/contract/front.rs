//! F: realm, health and version, and the headers that clients send many of.

use tidegate::rehearsal::harbor::Version;

use crate::target::{Need, OCI_MANIFEST, on_each, skip};

/// The realm of a `Bearer` challenge.
fn realm(challenge: &str) -> &str {
    let after = challenge.strip_prefix(r#"Bearer realm=""#).expect("a Bearer challenge");
    after.split('"').next().expect("a realm")
}

#[tokio::test]
async fn f1_the_realm_is_the_external_endpoint_or_follows_the_host() {
    on_each("F1", &[Need::ExtEndpoint], async |harbor| {
        let external = harbor.ext_endpoint.clone().expect("asked for");
        let (scheme, _) = external.split_once("://").expect("a URL");
        for (host, port) in [("reg.example.test", ""), ("reg.example.test", ":8443")] {
            let host = format!("{host}{port}");
            let ping = harbor.get("/v2/").host(&host);
            let forwarded =
                ping.clone().header("X-Forwarded-Proto", "https").header("X-Forwarded-Host", "x.test");
            let expected = if harbor.version == Version::V2_15_2 {
                format!("{scheme}://{host}/service/token")
            } else {
                format!("{external}/service/token")
            };
            for request in [ping, forwarded] {
                assert_eq!(realm(request.send().await.challenge()), expected);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn f1_the_internal_host_is_told_the_internal_realm() {
    on_each("F1 (internal)", &[Need::CoreHost], async |harbor| {
        let host = harbor.core_host.clone().expect("asked for");
        let answer = harbor.get("/v2/").host(&host).send().await;
        assert_eq!(realm(answer.challenge()), format!("http://{host}/service/token"));
    })
    .await;
}

#[test]
fn f2_harbors_nginx() {
    skip("F2", "was read, not observed; it is nginx's, not core's");
}

#[tokio::test]
async fn f3_ping_health_and_version() {
    on_each("F3", &[], async |harbor| {
        let ping = harbor.get("/api/v2.0/ping").send().await;
        assert_eq!((ping.status, ping.text().as_str()), (200, "Pong"));
        assert_eq!(ping.header("content-type"), Some("text/plain"));
        let head = harbor.request("HEAD", "/api/v2.0/ping").send().await;
        assert_eq!((head.status, head.header("content-length")), (405, Some("97")));
        let health = harbor.get("/api/v2.0/health").send().await;
        assert_eq!(health.status, 200);
        let components = health.json()["components"].as_array().cloned().expect("components");
        assert!(components.iter().any(|component| component["name"] == "database"));
        let anonymous = harbor.get("/api/v2.0/systeminfo").send().await;
        assert_eq!((anonymous.status, anonymous.json()["auth_mode"].is_string()), (200, true));
        let told = anonymous.json().get("harbor_version").is_some();
        assert_eq!(told, harbor.version != Version::V2_15_2, "the version is hidden from 2.13 on");
        let known = harbor.get("/api/v2.0/systeminfo").basic(&harbor.user).send().await;
        let number = known.json()["harbor_version"].as_str().unwrap_or_default().to_owned();
        assert!(number.starts_with(&format!("v{}", harbor.version)), "{number}");
    })
    .await;
}

#[test]
fn f4_the_components_secret() {
    skip("F4", "needs the secret that Harbor's components share");
}

#[tokio::test]
async fn f5_an_accept_header_of_many_lines_counts_whole() {
    on_each("F5", &[], async |harbor| {
        let get = harbor.get(&harbor.private.manifest()).basic(&harbor.admin);
        let docker = "application/vnd.docker.distribution.manifest.v2+json";
        let both = get.clone().header("Accept", docker).header("Accept", OCI_MANIFEST).send().await;
        assert_eq!(both.status, 200, "{}", both.text());
        let kind = both.header("content-type").expect("a type").to_owned();
        assert_eq!(both.json()["mediaType"].as_str().unwrap_or(&kind), kind);
        if kind == OCI_MANIFEST {
            let one = get.header("Accept", docker).send().await;
            assert_eq!(one.status, 404);
            let message = "OCI manifest found, but accept header does not support OCI manifests";
            assert_eq!(one.error(), ("MANIFEST_UNKNOWN".into(), message.into()));
        }
    })
    .await;
}
