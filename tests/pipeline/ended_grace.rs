//! What ends grace, and what doesn't (A15).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use tidegate::rehearsal::harbor::{CoreOptions, Head, Health, Moment, Role};

use crate::{
    outages::{SHORT_PARK, SOON},
    stage::{ADMIN, DEV, MANIFEST, Replica, SCOPE, Setup, Stage, ask_token, pull, story},
    support::{gate::Gate, waiting},
    talk::{Ask, Line},
};

const OTHERS: &str = "Another12345";

fn scene(adjust: impl FnOnce(&Stage, &mut CoreOptions)) -> (Stage, Replica, Gate) {
    let stage = Stage::new();
    let core = stage.replica("core", |options| adjust(&stage, options));
    core.seed();
    let setup = Setup::before(&[&core], &[&core.key_file]);
    let gate = setup.rest("[token]\ncache = \"0s\"").rest(SHORT_PARK).start();
    assert_eq!(ask_token(SCOPE).basic(DEV).at(gate.address).subject(), "dev");
    (stage, core, gate)
}

/// What becomes of the former password's token request while the database refuses.
fn in_an_outage(stage: &Stage, gate: &Gate, scope: &str) -> String {
    stage.world.set_database(Health::Refusing);
    story(gate, &ask_token(scope).basic(DEV).at(gate.address))[2].clone()
}

#[test]
fn a15_a_write_that_nobody_waited_for_ends_grace() {
    let arrived = Arc::new(AtomicBool::new(false));
    let tell = arrived.clone();
    let (stage, _core, gate) = scene(|_, options| {
        options.gate = Some(Arc::new(move |moment, head: &Head| {
            let write = moment == Moment::Arrived && head.method == "DELETE";
            tell.fetch_or(write, SeqCst);
            write.then(|| Box::pin(tokio::time::sleep(Duration::from_secs(1))) as _)
        }));
    });
    let leaver = stage.world.add_user("leaver", "Leaver12345", false);
    assert_eq!(ask_token(SCOPE).basic(ADMIN).at(gate.address).subject(), ADMIN.0, "Harbor knows who writes");
    let deeds = stage.world.watch();
    let mut line = Line::open(gate.address);
    let write = Ask::new("DELETE", &format!("/api/v2.0/users/{leaver}")).basic(ADMIN);
    line.send(&write.head()).expect("sent");
    waiting::holds("Harbor has it", SOON, || arrived.load(SeqCst));
    drop(line);
    waiting::holds("Harbor has done it", SOON, || {
        deeds.all().iter().any(|deed| deed.method == "DELETE" && deed.status == 200)
    });
    waiting::holds("grace ends with it", SOON, || in_an_outage(&stage, &gate, SCOPE) == "outage");
}

#[test]
fn a15_a_refusal_past_the_token_service_ends_grace() {
    for path in ["/v2/", MANIFEST] {
        let (stage, _core, gate) = scene(|_, _| {});
        stage.world.set_password("dev", OTHERS);
        assert_eq!(Ask::get(path).basic(DEV).at(gate.address).status, 401, "{path}");
        assert_eq!(in_an_outage(&stage, &gate, SCOPE), "outage", "{path}: {}", gate.tail());
    }
}

#[test]
fn a_write_to_ones_own_project_ends_no_log_in_of_others() {
    let (stage, _core, gate) = scene(|_, _| {});
    stage.world.add_user("mallory", "Mallory12345", false);
    stage.world.add_project("hers", false);
    stage.world.add_member("hers", "mallory", Role::ProjectAdmin);
    assert_eq!(ask_token("").basic(DEV).at(gate.address).status, 200);
    let write = Ask::new("PUT", "/api/v2.0/projects/hers").header("Content-Type", "application/json");
    let write = write.body("{\"metadata\":{\"public\":\"false\"}}").basic(("mallory", "Mallory12345"));
    assert_eq!(write.at(gate.address).status, 200);
    assert_eq!(in_an_outage(&stage, &gate, ""), "grace", "{}", gate.tail());
}

#[test]
fn a15_a_token_of_grace_ends_with_what_it_was_given_for() {
    let (stage, _core, gate) = scene(|_, _| {});
    stage.world.set_database(Health::Refusing);
    let granted = ask_token(SCOPE).basic(DEV).at(gate.address);
    assert_eq!(story(&gate, &granted)[2], "grace", "{}", gate.tail());
    stage.world.set_database(Health::Up);
    let pulled = || pull(MANIFEST).bearer(&granted.token()).at(gate.address);
    waiting::holds("the database is back", SOON, || pulled().status == 200);
    let project = Ask::new("PUT", "/api/v2.0/projects/priv").header("Content-Type", "application/json");
    let project = project.body("{\"metadata\":{\"public\":\"false\"}}").basic(ADMIN).at(gate.address);
    assert_eq!(project.status, 200);
    let ended = pulled();
    assert_eq!((ended.status, &*story(&gate, &ended)[2]), (401, "token_expired"), "{}", gate.tail());
}
