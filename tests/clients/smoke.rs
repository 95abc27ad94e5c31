//! Each real client works here at all: against the real docker-registry, without Harbor and without tidegate.

use crate::support::{
    client::{self, Account},
    image::Image,
    registry::{self, Registry},
};

#[test]
fn every_client_logs_in_pushes_inspects_and_pulls_at_a_plain_registry() {
    let registry = Registry::start();
    let account = Account::new(registry.address, registry::USER, registry::PASSWORD);
    for (number, client) in client::all().iter().enumerate() {
        let image = Image::generate(number as u64, 8);
        let repository = format!("smoke/client-{number}:v1");
        let steps = [
            ("login", client.login(&account)),
            ("push", client.push(&account, &image, &repository)),
            ("inspect", client.inspect(&account, &repository)),
            ("pull", client.pull(&account, &repository)),
        ];
        for (step, done) in steps {
            if let Err(failure) = done {
                panic!("{} {step}: {failure}", client.name());
            }
        }
        println!("{}: login, push, inspect and pull work", client.name());
    }
}
