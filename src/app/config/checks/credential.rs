//! `[[credential]]`.

use super::Checker;
use crate::app::config::{raw, settings::FormerSecret};

pub(super) fn credentials(c: &mut Checker<'_>, raw: Vec<raw::Credential>) -> Vec<FormerSecret> {
    let mut all: Vec<FormerSecret> = Vec::new();
    for (i, raw) in raw.into_iter().enumerate() {
        let table = format!("credential[{i}]");
        let Some(one) = credential(c, &table, raw) else { continue };
        if all.iter().any(|earlier| earlier.name == one.name) {
            let found = format!("{:?} twice", one.name);
            c.fault(&[&format!("{table}.name")], &found, "each robot once", "remove one of them");
        }
        all.push(one);
    }
    all
}

fn credential(c: &mut Checker<'_>, table: &str, raw: raw::Credential) -> Option<FormerSecret> {
    let key = |member: &str| format!("{table}.{member}");
    if raw.prefix.is_empty() {
        let remedy = "set it to Harbor's robot_name_prefix, or remove it for \"robot$\"";
        c.fault(&[&key("prefix")], "an empty prefix", "what tells robots from users", remedy);
    }
    let is_robot = raw.name.len() > raw.prefix.len() && raw.name.starts_with(&raw.prefix);
    if !is_robot || raw.name.contains(':') {
        let expected = format!("the whole name of a robot, such as \"{}ci\"", raw.prefix);
        let remedy = "former passwords of users are not taken";
        c.fault(&[&key("name"), &key("prefix")], &format!("{:?}", raw.name), &expected, remedy);
    }
    let files = [
        ("former_hash_file", &raw.former_hash_file, "tidegate hash-secret < FORMER > FILE writes one"),
        ("present_file", &raw.present_file, "a file with the secret that Harbor has now"),
    ];
    for (member, file, remedy) in files {
        if file.is_empty() {
            c.fault(&[&key(member)], "no file", "a file", remedy);
        }
    }
    let Some(until) = raw.until else {
        let remedy = "set until, such as 2026-12-31T00:00:00Z";
        c.fault(&[&key("until")], "no end", "until when the former secret is taken", remedy);
        return None;
    };
    let (former_hash, present) = (raw.former_hash_file.into(), raw.present_file.into());
    Some(FormerSecret { name: raw.name, former_hash, present, until: until.0 })
}
