//! Harbor's key is replaced just before, at the start of and in the middle of an upload.

use crate::{
    lane::{self, Lane, Ledger, Side},
    support::{
        client::{Client as _, skopeo::Skopeo},
        gate::{self, Gate},
        harbor::{self, Harbor},
        image::Image,
        settings,
        tap::{Moment, Tap},
    },
};

const MIB: u64 = 1024 * 1024;

#[test]
fn a_key_replaced_just_before_the_upload_harms_no_push() {
    push("key replaced just before a chunked push", |_| Moment::Head("POST"));
}

#[test]
fn a_key_replaced_at_the_start_of_the_upload_harms_no_push() {
    push("key replaced at the start of a chunked push", |_| Moment::Head("PATCH"));
}

#[test]
fn a_key_replaced_in_the_middle_of_the_upload_harms_no_push() {
    push("key replaced in the middle of a chunked push", |size| Moment::Inside("PATCH", size / 2 * MIB));
}

/// One push in each lane; on the wire to core the key is replaced at the moment.
fn push(title: &str, moment: impl Fn(u64) -> Moment) {
    let size = if settings::long() { 1024 } else { 256 };
    let (harbor, image, ledger) = (Harbor::start(), Image::uncompressed(3, size), Ledger::default());
    let mut gates = Vec::new();
    for side in [Side::Direct, Side::Through] {
        let replica = harbor.replica(&format!("{side:?}"));
        let key_file = replica.key_file.clone();
        let tap = Tap::start(replica.address, moment(size), move || drop(harbor::replace_key(&key_file)));
        let front = match side {
            Side::Direct => tap.address,
            Side::Through => {
                gates.push(Gate::start(&gate::configuration(&[tap.address], "auto", &[&replica.key_file])));
                gates[0].address
            }
        };
        let lane = &Lane::both(front, front)[side as usize];
        let skopeo = Skopeo::new();
        assert!(ledger.login(lane, &skopeo), "{ledger}");
        let repository = format!("priv/chunked-{side:?}:v1").to_lowercase();
        let pushed = ledger.push(lane, &skopeo, &image, &repository);
        assert!(tap.fired(), "the key was replaced");
        if pushed {
            let heads = tap.heads();
            assert!(heads.iter().any(|head| is_chunked_patch(head)), "the upload was chunked: {heads:?}");
            let core = harbor::account(replica.address);
            skopeo.login(&core).unwrap_or_else(|failure| panic!("{failure}"));
            assert_eq!(lane::stored_as_sent(&skopeo, &core, &repository, &image.diff_id), Ok(()));
        }
    }
    ledger.judge(title, &gates[0]);
}

fn is_chunked_patch(head: &str) -> bool {
    head.starts_with("PATCH ") && head.to_ascii_lowercase().contains("transfer-encoding: chunked")
}
