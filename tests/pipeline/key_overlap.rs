//! One path is configured, and the overlap happens by itself however the file is replaced.

use std::{fs, path::Path};

use tidegate::rehearsal::harbor::{CoreKey, KeyForm};

use crate::core::{AUTHORISED, Harbor, REFUSED, judged, key, status, swap_link, token, wait_for_state};

/// A token of the former key is good after each replacement, and so is the next one.
fn tokens_live_through(harbor: &Harbor, path: &Path, replace: impl Fn(&CoreKey)) {
    let gate = harbor.gate(&format!("sources = [{{ file = \"{}\" }}]", path.display()));
    let first = token(&gate);
    assert_eq!(status(&gate, &first), AUTHORISED);
    let (second_key, third_key) = (key(), key());
    replace(&second_key);
    wait_for_state(&gate, &second_key, "signing");
    let second = token(&gate);
    assert_eq!(second.kid(), second_key.kid().as_str());
    for bearer in [&first, &second] {
        assert_eq!(status(&gate, bearer), AUTHORISED, "{}", gate.tail());
    }
    replace(&third_key);
    wait_for_state(&gate, &third_key, "signing");
    for bearer in [&first, &second, &token(&gate)] {
        assert_eq!(status(&gate, bearer), AUTHORISED, "{}", gate.tail());
    }
    gate.wait_for("rescues are counted", |metrics| {
        metrics.sum("tidegate_rescued_requests_total", &[]) >= 3.0
    });
}

#[test]
fn a_key_file_replaced_by_rename() {
    let harbor = Harbor::start(&key());
    let path = &harbor.key_file;
    tokens_live_through(&harbor, path, |next| {
        next.rename_into(path, KeyForm::Pkcs1).expect("the key is replaced");
    });
}

#[test]
fn a_key_file_replaced_in_place() {
    let harbor = Harbor::start(&key());
    let path = &harbor.key_file;
    tokens_live_through(&harbor, path, |next| {
        next.overwrite(path, KeyForm::Pkcs1).expect("it is overwritten");
    });
}

#[test]
fn a_key_file_replaced_by_kubernetes_swap_of_its_data_link() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mount = folder.path().to_owned();
    let publish = |key: &CoreKey| {
        let version = format!("..{}", &key.kid().as_str()[..4]);
        fs::create_dir(mount.join(&version)).expect("a version");
        key.overwrite(&mount.join(&version).join("tls.key"), KeyForm::Pkcs1).expect("its key");
        swap_link(&version, &mount.join("..data"));
    };
    publish(&key());
    swap_link("..data/tls.key", &mount.join("tls.key"));
    let path = mount.join("tls.key");
    let harbor = Harbor::of(folder, path.clone());
    tokens_live_through(&harbor, &path, publish);
}

#[test]
fn a_key_file_whose_mount_was_replaced() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mount = folder.path().join("core");
    let publish = |key: &CoreKey| {
        let next = folder.path().join("next");
        fs::create_dir(&next).expect("a folder");
        key.overwrite(&next.join("private_key.pem"), KeyForm::Pkcs1).expect("its key");
        if mount.exists() {
            fs::rename(&mount, folder.path().join(&key.kid().as_str()[..4])).expect("the mount goes");
        }
        fs::rename(next, &mount).expect("the mount comes");
    };
    publish(&key());
    let path = mount.join("private_key.pem");
    let harbor = Harbor::of(tempfile::tempdir().expect("a temporary folder"), path.clone());
    tokens_live_through(&harbor, &path, publish);
}

#[test]
fn without_overlap_a_replaced_key_ends_at_once() {
    for overlap in ["listed", "off"] {
        let harbor = Harbor::start(&key());
        let gate = harbor.gate(&format!("sources = [{}]\noverlap = \"{overlap}\"", harbor.source()));
        let first = token(&gate);
        assert_eq!(status(&gate, &first), AUTHORISED);
        let next = key();
        next.rename_into(&harbor.key_file, KeyForm::Pkcs1).expect("the key is replaced");
        wait_for_state(&gate, &next, "signing");
        assert_eq!(judged(&gate, &first), (REFUSED, "token_key_retired".to_owned()), "{}", gate.tail());
        assert_eq!(status(&gate, &token(&gate)), AUTHORISED);
    }
}
