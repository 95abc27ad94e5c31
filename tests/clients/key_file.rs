//! The key file that tidegate reads is broken in every way and mended again: what serves goes on serving.

use crate::{
    lane::{Lane, Ledger, Side},
    support::{
        balancer::{Balancer, Choice},
        client::{Client, skopeo::Skopeo},
        gate::{self, Gate},
        harbor::{self, Harbor},
        image::Image,
    },
};
use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};
use tidegate::rehearsal::harbor::{CoreKey, KeyForm};

#[test]
fn a_broken_key_file_is_told_and_stops_nothing() {
    let harbor = Harbor::start();
    let (first, second) = (harbor.replica("first"), harbor.replica("second"));
    second.hold_the_key_of(&first);
    let known = harbor.key_path("known-to-tidegate");
    harbor::copy_key(&first.key_file, &known);
    let replicas = [first.address, second.address];
    let balancer = Balancer::nginx(Choice::RoundRobin, &replicas);
    let configuration = gate::configuration(&replicas, "auto", &[&known, &second.key_file]);
    // Root reads what nobody may read: tidegate runs without that right.
    let gate = Gate::start_by(&["setpriv", "--bounding-set=-dac_override,-dac_read_search"], &configuration);
    let (ledger, skopeo) = (Ledger::default(), Skopeo::new());
    let lanes = Lane::both(balancer.address, gate.address);
    for lane in &lanes {
        assert!(ledger.login(lane, &skopeo), "{ledger}");
    }
    first.seed("priv/seed:v1", &Image::generate(4, 1));
    second.take_a_key_of_its_own();
    for (state, break_it) in broken_states() {
        let alarms = gate.alarms(&known).len();
        break_it(&known);
        gate.wait_for(&format!("the alarm of a key file that is {state}"), |_| {
            gate.alarms(&known).len() > alarms
        });
        serve(&ledger, &lanes, &skopeo);
        mend(&first.key_file, &known);
        println!("  {state}: {}", gate.alarms(&known).last().expect("the alarm"));
    }
    // It is read again: a key that core takes next is known as soon as this file has it.
    harbor::replace_key(&first.key_file);
    mend(&first.key_file, &known);
    serve(&ledger, &lanes, &skopeo);
    ledger.judge("tidegate's key file broken and mended", &gate);
    assert!(ledger.operations(Side::Through) > 20, "{ledger}");
}

fn serve(ledger: &Ledger, lanes: &[Lane], skopeo: &dyn Client) {
    for lane in lanes {
        ledger.inspect(lane, skopeo, "priv/seed:v1");
        ledger.pull(lane, skopeo, "priv/seed:v1");
        ledger.push_new(lane, skopeo, 1);
    }
}

type Break = Box<dyn Fn(&Path)>;

/// How a key file goes wrong, and how to bring it about.
fn broken_states() -> Vec<(&'static str, Break)> {
    let written = |form: KeyForm| -> Break {
        Box::new(move |path| {
            let key = CoreKey::generate(harbor::KEY_BITS).expect("a key");
            key.overwrite(path, form).expect("a broken key file");
        })
    };
    vec![
        ("empty", written(KeyForm::Empty)),
        ("half written", written(KeyForm::HalfWritten)),
        ("of another type", written(KeyForm::Ec)),
        ("no PEM at all", written(KeyForm::Garbage)),
        (
            "unreadable",
            Box::new(|path| {
                fs::set_permissions(path, fs::Permissions::from_mode(0o000)).expect("its mode");
            }),
        ),
        ("missing", Box::new(|path| fs::remove_file(path).expect("it is removed"))),
        (
            "a folder",
            Box::new(|path| {
                fs::remove_file(path).expect("it is removed");
                fs::create_dir(path).expect("a folder");
            }),
        ),
        (
            "a pipe",
            Box::new(|path| {
                fs::remove_file(path).expect("it is removed");
                assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo runs").success());
            }),
        ),
    ]
}

/// A sound key in the file's place, whatever stands there.
fn mend(sound: &Path, path: &Path) {
    if path.is_dir() {
        fs::remove_dir(path).expect("the folder goes");
    }
    harbor::copy_key(sound, path);
}
