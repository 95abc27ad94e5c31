//! U8, U9: core ends in the middle of its work, and is started again.

use std::time::{Duration, Instant};

use crate::{
    client::{Request, Wire},
    parts::{CORE_IS_KILLED, CORE_STOPS},
    target::{Target, on_each, path_of},
};

/// More than the sockets between core and us can hold.
const LONG: usize = 32 << 20;
/// Long enough for an answer that comes at once to be there.
const A_WHILE: Duration = Duration::from_millis(400);
/// A real core is gone within 100 ms; a command that has to find it takes longer.
const SOON: Duration = Duration::from_secs(10);

/// What was in flight when core ended.
struct InFlight {
    /// The upload whose PATCH is half sent.
    upload: String,
    patch: Wire,
    /// A blob of [`LONG`] bytes of which the head was read.
    pull: Wire,
    idle: Wire,
    /// An upload that rests after a whole PATCH, at five bytes.
    whole: String,
}

impl InFlight {
    async fn at(harbor: &Target) -> Self {
        let repository = &harbor.private.repository;
        let first = harbor.open_upload(repository).await;
        let first = harbor.request("PATCH", &first).basic(&harbor.admin).body("hello").send().await;
        let whole = path_of(first.header("location").expect("a location"));

        let digest = harbor.push_blob(repository, &vec![b'x'; LONG]).await;
        let get = harbor.get(&format!("/v2/{repository}/blobs/{digest}")).basic(&harbor.admin);
        let mut pull = Wire::connect(harbor.address).await;
        pull.write(&get.bytes()).await.expect("a small request");
        assert_eq!(pull.head().await.expect("an answer").0, 200);

        let upload = harbor.open_upload(repository).await;
        let head = harbor.request("PATCH", &upload).basic(&harbor.admin).header("Content-Length", "600000");
        let mut patch = Wire::connect(harbor.address).await;
        patch.write(&head.bytes()).await.expect("the head");
        patch.write(&vec![b'x'; 300_000]).await.expect("a part");
        assert!(patch.is_silent_for(A_WHILE).await);
        let idle = Wire::connect(harbor.address).await;
        Self { upload, patch, pull, idle, whole }
    }

    /// All of it ends without an answer, and nobody listens.
    async fn is_cut(&mut self, harbor: &Target) {
        assert!(self.patch.is_closed().await, "an upload gets no answer");
        assert!(self.pull.rest().await < LONG, "a download ends early");
        assert!(self.idle.is_closed().await);
        assert!(tokio::net::TcpStream::connect(harbor.address).await.is_err(), "nobody listens");
    }

    /// What the next core says of the uploads (U9).
    async fn is_told(&self, harbor: &Target) {
        let get =
            |path: &str| Request::new(harbor.address, &harbor.host, "GET", path).basic(&harbor.admin).send();
        let rests = get(&self.whole).await;
        assert_eq!((rests.status, rests.header("range")), (204, Some("0-4")), "{}", rests.text());
        let cut = get(&self.upload).await;
        assert_eq!((cut.status, cut.error().0.as_str()), (404, "BLOB_UPLOAD_INVALID"));
        let patch = harbor.request("PATCH", &self.upload).basic(&harbor.admin).body("x").send().await;
        assert_eq!((patch.status, patch.error().0.as_str()), (404, "BLOB_UPLOAD_INVALID"));
    }
}

#[tokio::test]
async fn u8_sigterm_cuts_what_is_in_flight_at_once() {
    on_each("U8", &[CORE_STOPS], async |harbor| {
        let mut in_flight = InFlight::at(harbor).await;
        let told = Instant::now();
        harbor.terminate_core().await;
        let took = told.elapsed();
        assert!((Duration::from_millis(10)..SOON).contains(&took), "gone after {took:?}");
        in_flight.is_cut(harbor).await;
        harbor.start_core().await;
        in_flight.is_told(harbor).await;
    })
    .await;
}

#[tokio::test]
async fn u8_a_killed_core_leaves_no_more_behind() {
    on_each("U8 (killed)", &[CORE_IS_KILLED], async |harbor| {
        let mut in_flight = InFlight::at(harbor).await;
        harbor.kill_core().await;
        in_flight.is_cut(harbor).await;
        harbor.start_core().await;
        in_flight.is_told(harbor).await;
    })
    .await;
}
