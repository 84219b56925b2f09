// SPDX-License-Identifier: MIT OR Apache-2.0
//! Configuration, doctor and help.

use crate::process::{failure, pli, run, text};

#[test]
fn what_is_printed_can_be_read_back() {
    let home = tempfile::tempdir().expect("a folder");
    let printed = text(&run(home.path(), &["config", "print"]));
    std::fs::write(home.path().join("pli.toml"), &printed).expect("written");
    assert_eq!(text(&run(home.path(), &["config", "check", "--config", "pli.toml"])), "ok\n");
    assert_eq!(text(&run(home.path(), &["config", "print", "--config", "pli.toml"])), printed);
}

#[test]
fn an_unknown_key_is_refused_with_its_name_wherever_it_stands() {
    let home = tempfile::tempdir().expect("a folder");
    std::fs::write(home.path().join("pli.toml"), "[server]\nprot = 1\n").expect("written");
    let (code, said) = failure(&run(home.path(), &["config", "check", "--config", "pli.toml"]));
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("prot") && said.contains("line 2"), "{said}");
    let output = pli(home.path(), &["config", "check"]).env("PLI_SERVER__PROT", "1").output().expect("ran");
    let (code, said) = failure(&output);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("prot"), "{said}");
    let (code, said) = failure(&run(home.path(), &["dev", "--config", "pli.toml"]));
    assert_eq!(code, Some(3), "{said}");
}

#[test]
fn the_doctor_names_every_check_and_each_finding_its_fix() {
    let home = tempfile::tempdir().expect("a folder");
    let output = run(home.path(), &["doctor", "--data", "data"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for check in ["port", "admin port", "clock", "disk", "open files", "data folder", "file modes", "engine"] {
        assert!(said.contains(check), "`{check}` is missing in {said}");
    }
    std::fs::create_dir(home.path().join("data")).expect("made");
    std::fs::write(home.path().join("data/VERSION"), "999\n").expect("written");
    let output = run(home.path(), &["doctor", "--data", "data"]);
    assert_eq!(output.status.code(), Some(9));
    assert!(String::from_utf8_lossy(&output.stdout).contains("fix: run the version that wrote it"));
}

#[test]
fn numbers_that_make_no_sense_are_refused_with_their_flag_and_the_fix() {
    let home = tempfile::tempdir().expect("a folder");
    let commands: [&[&str]; 7] = [
        &["send", "alice", "bob", "hi", "--rate", "0"],
        &["send", "alice", "bob", "hi", "--count", "0"],
        &["send", "alice", "bob", "hi", "--timeout", "NaN"],
        &["recv", "bob", "--count", "0"],
        &["recv", "bob", "--timeout=-1"],
        &["pipe", "alice", "bob", "--timeout", "0"],
        &["group", "list", "alice", "--timeout", "inf"],
    ];
    for command in commands {
        let (code, said) = failure(&run(home.path(), command));
        let flag =
            command.iter().rev().find_map(|word| word.starts_with("--").then(|| word.split('=').next())).flatten();
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(flag.expect("a flag")) && said.contains("for example"), "{said}");
    }
}

/// What a start of some roles refuses: configuration, arguments, exit code, and what the message names.
const STARTS: &[(&str, &[&str], i32, &[&str])] = &[
    ("", &["serve", "--role", "edge"], 3, &["engine.kind", "--role"]),
    ("", &["serve", "--role", "gateway"], 2, &["gateway", "delivery"]),
    ("", &["serve", "--engine", "cluster"], 3, &["nats.servers", "nats://host:port"]),
    ("", &["migrate"], 3, &["engine.kind"]),
    ("engine.kind = 'cluster'", &["migrate"], 3, &["nats.servers"]),
    ("engine.kind = 'cluster'", &["dev"], 3, &["pli serve"]),
    ("engine.kind = 'cluster'\nnats.servers = ['nats://127.0.0.1:1']", &["migrate"], 3, &["cql.contact_points"]),
    (
        "engine.kind = 'cluster'\nnats.servers = ['nats://127.0.0.1:1']\ncql.contact_points = ['127.0.0.1:1']",
        &["migrate"],
        7,
        &["127.0.0.1:1", "check the addresses"],
    ),
    (
        "engine.kind = 'cluster'\ncql.contact_points = ['127.0.0.1:1']",
        &["serve", "--role", "directory"],
        7,
        &["127.0.0.1:1", "contact_points"],
    ),
    (
        "engine.kind = 'cluster'\nnats.streams = 0\nnats.servers = ['nats://h:1']\ncql.contact_points = ['h:1']",
        &["migrate"],
        3,
        &["streams"],
    ),
    ("internal.ca_file = 'ca.pem'", &["serve"], 3, &["internal.ca_file", "key_file"]),
    ("server.certificate_file = 'c.pem'", &["serve"], 3, &["server.certificate_file", "server.key_file"]),
    ("server.certificate_file = 'c.pem'\nserver.key_file = 'k.pem'", &["serve"], 3, &["c.pem", "PEM"]),
    ("engine.kind = 'sqlite'", &["serve"], 3, &["sqlite", "embedded"]),
];

#[test]
fn a_start_that_cannot_work_names_the_setting_and_the_fix() {
    for (config, command, exit, names) in STARTS {
        let home = tempfile::tempdir().expect("a folder");
        std::fs::write(home.path().join("pli.toml"), config).expect("written");
        let command: Vec<&str> = command.iter().copied().chain(["--config", "pli.toml"]).collect();
        let (code, said) = failure(&run(home.path(), &command));
        assert_eq!(code, Some(*exit), "{config} {command:?}: {said}");
        for name in *names {
            assert!(said.contains(name), "{config} {command:?}: `{name}` is missing in: {said}");
        }
    }
}

#[test]
fn help_teaches_with_examples_and_exit_codes() {
    let home = tempfile::tempdir().expect("a folder");
    let said = text(&run(home.path(), &["--help"]));
    assert!(said.contains("Exit codes:") && said.contains("chat"), "{said}");
    for command in ["dev", "serve", "migrate", "chat", "send", "recv", "pipe", "group", "config", "doctor"] {
        let said = text(&run(home.path(), &[command, "--help"]));
        assert!(said.contains("Examples:"), "{command}: {said}");
    }
}
