//! A registry that records the one request that it gets.

use std::{net::SocketAddr, sync::Arc};

use tempfile::tempdir;
use tidegate::rehearsal::harbor::{
    Core, CoreOptions, RegistryAddress, RegistryBackend, SAMPLE_USER_PASSWORD, Version, World,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::{client::Request, target::spare_key};

/// The head that a registry reads when a user asks the core before it for a blob.
pub(crate) async fn request_behind_a_core(version: Version) -> String {
    let folder = tempdir().expect("a folder");
    let key_file = folder.path().join("private_key.pem");
    spare_key(0).overwrite(&key_file, tidegate::rehearsal::harbor::KeyForm::Pkcs1).expect("a key file");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let registry = TcpListener::bind(any).await.expect("a port");
    let address = registry.local_addr().expect("an address");
    let behind = RegistryBackend::Proxy(Arc::new(RegistryAddress::new(address, "user", "password")));
    let world = Arc::new(World::sample_with(behind));
    let core = Core::start(any, CoreOptions::new(version, &key_file, world, "")).await.expect("a core");
    let host = core.address().to_string();
    let user = ("dev".to_owned(), SAMPLE_USER_PASSWORD.to_owned());
    let request = Request::new(core.address(), &host, "GET", "/v2/priv/small/blobs/sha256:00").basic(&user);
    let (answer, seen) = tokio::join!(request.send(), receive(registry));
    assert_eq!(answer.text(), "from the registry");
    seen
}

async fn receive(registry: TcpListener) -> String {
    let (mut stream, _) = registry.accept().await.expect("a connection");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert!(stream.read_buf(&mut head).await.expect("a request") > 0, "a whole head");
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\nfrom the registry").await.expect("sent");
    String::from_utf8(head).expect("text")
}
