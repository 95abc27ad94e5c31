//! Commands as an operator types them, and the exit codes that scripts see.

use std::fmt::Write as _;

use clap::CommandFactory as _;

use super::*;
use crate::app::{config::documents::tests::is_up_to_date, rehearse::order::Kind};

const NOTHING: Programs = Programs {
    serve: |_, _| Ok(()),
    rehearse: |order| match &order.kind {
        Kind::InABox { options, .. } => Ok(options.seed == 7),
        Kind::Against(options) => Ok(options.seed == 7),
    },
    ask_endpoints: |_| check::Asked::default(),
};

fn exits(line: &str, code: u8) {
    let arguments = line.split(' ').map(OsString::from);
    let exit = run(arguments, &NOTHING);
    assert_eq!(format!("{exit:?}"), format!("{:?}", ExitCode::from(code)), "{line}");
}

#[test]
fn usage_is_2_and_help_is_0() {
    exits("tidegate", 2);
    exits("tidegate surf", 2);
    exits("tidegate serve --port 80", 2);
    exits("tidegate rehearse --duration soon", 2);
    exits("tidegate rehearse --client crane", 2);
    exits("tidegate rehearse --user ci", 2);
    exits("tidegate rehearse --against http://h", 2);
    exits("tidegate rehearse --stay --against http://h --user u --password-file f --project p", 2);
    exits("tidegate keys retire", 2);
    exits("tidegate window", 2);
    exits("tidegate window open", 2);
    exits("tidegate window open --for ever", 2);
    exits("tidegate revoke", 2);
    exits("tidegate revoke --subject dev --token-file file", 2);
    exits("tidegate ramp set 101", 2);
    exits("tidegate keys add", 2);
    exits("tidegate keys add key.pem --signed-until yesterday", 2);
    exits("tidegate keys publish", 2);
    exits("tidegate keys back-up archive", 2);
    exits("tidegate keys restore archive --passphrase-file a --key-file b", 2);
    exits("tidegate --help", 0);
    exits("tidegate --version", 0);
}

#[test]
fn a_bad_configuration_is_64() {
    exits("tidegate serve --config /nowhere/tidegate.toml", 64);
    exits("tidegate serve --harbor core --listen 127.0.0.1:0", 64);
    exits("tidegate check --offline --harbor core", 64);
    exits("tidegate status --config /nowhere/tidegate.toml", 64);
    let against = "tidegate rehearse --user u --password-file Cargo.toml";
    exits(&format!("{against} --against harbor.example --project p"), 64);
    exits(&format!("{against} --against http://h --project P"), 64);
    exits(&format!("{against} --against http://h --project p --direct http://h/v2/"), 64);
    exits(&format!("{against} --against https://h --project p --ca-file Cargo.toml"), 64);
    exits("tidegate rehearse --against http://h --user u --password-file /nowhere --project p", 64);
    exits(&format!("{against} --against http://h --project p --seed 7"), 0);
}

#[test]
fn a_failure_is_1() {
    exits("tidegate rehearse --seed 8", 1);
    exits("tidegate rehearse --seed 7", 0);
    exits("tidegate status --admin unix:/nowhere/admin.sock", 1);
    exits("tidegate status --admin core", 1);
    exits("tidegate keys list --admin unix:/nowhere/admin.sock --json", 1);
}

#[test]
fn serve_takes_flags_alone() {
    exits("tidegate serve --harbor http://core:8080 --listen 127.0.0.1:0 --key /a --key /b/ --observe", 0);
}

/// The help of a command and of those below it.
fn describe(page: &mut String, name: &str, command: &mut clap::Command) {
    let help = command.render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    let _ = write!(page, "\n## {name}\n\n```text\n{}\n```\n", help.join("\n").trim_end());
    for below in command.get_subcommands_mut().filter(|below| below.get_name() != "help") {
        describe(page, &format!("{name} {}", below.get_name()), below);
    }
}

#[test]
fn the_page_of_commands_is_up_to_date() {
    let mut page = String::from(
        "<!-- Made from src/app/cli.rs; UPDATE_DOCS=1 cargo test up_to_date writes it anew. -->\n\
         # Commands\n\n\
         Exit codes: 0 done, 1 failed, 2 usage, 64 bad configuration.\n",
    );
    // Whatever terminal the test is run in.
    let mut cli = Cli::command().term_width(80);
    cli.build();
    describe(&mut page, "tidegate", &mut cli);
    assert!(page.lines().skip(1).all(|line| line.chars().count() <= 80), "{page}");
    is_up_to_date("docs/commands.md", &page);
}
