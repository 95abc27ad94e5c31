//! A real client is moved to a side that begins to fail while it works: what fails there is served by the current side,
//! and the move stops by itself.

use crate::{
    lane::{Lane, Ledger, Side},
    support::{
        balancer::{Balancer, Choice},
        client::{Client, skopeo::Skopeo},
        failing::{Failing, How},
        gate::Gate,
        harbor::Harbor,
        image::Image,
        settings,
    },
};

#[test]
fn nothing_fails_while_clients_move_to_a_side_that_begins_to_fail() {
    for how in [How::Answers(500), How::Closes] {
        let harbor = Harbor::start();
        let (current, next) = (harbor.replica("current"), harbor.replica("next"));
        // With one key nothing fails directly before the next side does.
        next.hold_the_key_of(&current);
        current.seed("priv/seed:v1", &Image::generate(1, 1));
        let broken = Failing::before(next.address);
        let balancer = Balancer::nginx(Choice::RoundRobin, &[current.address, broken.address]);
        let gate = Gate::start(&format!(
            "[upstream]\nendpoints = [{{ url = \"http://{}\" }}, {{ url = \"http://{}\", side = \"next\" }}]\n\
             [keys]\nsources = [{{ file = \"{}\" }}]\n[ramp]\nby = [\"agent:skopeo\"]\n",
            current.address,
            broken.address,
            current.key_file.display()
        ));
        let (ledger, skopeo) = (Ledger::default(), Skopeo::new());
        let lanes = Lane::both(balancer.address, gate.address);
        for lane in &lanes {
            assert!(ledger.login(lane, &skopeo), "{ledger}");
            work(&ledger, lane, &skopeo, 1);
        }
        assert_eq!(ledger.failures(Side::Direct), 0, "both sides are sound\n{}", ledger.said());
        let sent = |side| gate.metrics().sum("tidegate_ramp_requests_total", &[("side", side)]);
        assert!(sent("next") > 5.0, "skopeo is on the next side");
        assert!(gate.metrics().sum("tidegate_ramp_stopped", &[]) < 0.5);

        broken.now(how);
        for lane in &lanes {
            work(&ledger, lane, &skopeo, if settings::long() { 12 } else { 3 });
        }
        gate.wait_for("the ramp stops", |metrics| metrics.sum("tidegate_ramp_stopped", &[]) > 0.5);
        ledger.judge(&format!("a ramp to a side that begins to fail ({how:?})"), &gate);
        ledger.verify_pushes(current.address);
    }
}

fn work(ledger: &Ledger, lane: &Lane, client: &dyn Client, times: usize) {
    for _ in 0..times {
        ledger.inspect(lane, client, "priv/seed:v1");
        ledger.pull(lane, client, "priv/seed:v1");
        ledger.push_new(lane, client, 1);
    }
}
