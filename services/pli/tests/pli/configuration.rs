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
    assert!(said.contains("PLI_SERVER__PROT") && said.contains("mean PLI_SERVER__PORT?"), "{said}");
    let (code, said) = failure(&run(home.path(), &["dev", "--config", "pli.toml"]));
    assert_eq!(code, Some(3), "{said}");
}

/// Every list setting, as the environment gives it, and how it is printed.
const LISTS: &[(&str, &str, &str)] = &[
    ("PLI_EDGE__HOSTS", "a.example, b.example", "hosts = [\"a.example\", \"b.example\"]"),
    ("PLI_EDGE__ORIGINS", "https://a.example", "origins = [\"https://a.example\"]"),
    ("PLI_NATS__SERVERS", "nats://a:1,nats://b:2", "servers = [\"nats://a:1\", \"nats://b:2\"]"),
    ("PLI_NATS__MONITORS", "http://a:1", "monitors = [\"http://a:1\"]"),
    ("PLI_CQL__CONTACT_POINTS", "a:1,b:2", "contact_points = [\"a:1\", \"b:2\"]"),
    ("PLI_INTERNAL__DIRECTORY", "https://a:1,https://b:2", "directory = [\"https://a:1\", \"https://b:2\"]"),
    ("PLI_INTERNAL__CONVERSATIONS", "https://a:1", "conversations = [\"https://a:1\"]"),
    ("PLI_INTERNAL__LINKS", "https://a:1,https://b:2", "links = [\"https://a:1\", \"https://b:2\"]"),
    ("PLI_INTERNAL__MEDIA", "https://a:1,https://b:2", "media = [\"https://a:1\", \"https://b:2\"]"),
    ("PLI_TELEMETRY__PROCESSES", "a:1,b:2", "processes = [\"a:1\", \"b:2\"]"),
];

#[test]
fn every_list_can_be_given_by_the_environment() {
    let home = tempfile::tempdir().expect("a folder");
    let defaults = text(&run(home.path(), &["config", "print"]));
    let lists = defaults.lines().filter(|line| line.ends_with(']') && line.contains(" = [")).count();
    assert_eq!(lists, LISTS.len(), "a list is not tested: {defaults}");
    for (variable, value, printed) in LISTS {
        let output = pli(home.path(), &["config", "print"]).env(variable, value).output().expect("ran");
        let said = text(&output);
        assert!(said.lines().any(|line| line == *printed), "{variable}: {said}");
    }
}

#[test]
fn a_variable_that_nothing_reads_is_told_with_what_was_probably_meant() {
    let home = tempfile::tempdir().expect("a folder");
    let said = |variable: &str| {
        let output = pli(home.path(), &["config", "check"]).env(variable, "1").output().expect("ran");
        let (code, said) = failure(&output);
        assert_eq!(code, Some(0), "{variable}: {said}");
        said
    };
    let named = [
        ("PLI_FOO", "pli config print"),
        ("PLI_DELIVERY", "PLI_DELIVERY__"),
        ("PLI_SERVER_PORT", "mean PLI_SERVER__PORT?"),
        ("PLI_HOMES", "mean PLI_HOME?"),
    ];
    for (variable, meant) in named {
        let warning = said(variable);
        assert!(warning.contains(&format!("warning: the environment variable {variable} ")), "{warning}");
        assert!(warning.contains(meant), "{warning}");
    }
    for known in ["PLI_HOME", "PLI_SERVER", "PLI_DATA", "PLI_LOG", "PLI_SEED", "PLI_SOAK", "PLI_TEST_CQL"] {
        assert_eq!(said(known), "", "{known}");
    }
}

#[test]
fn a_value_that_does_not_work_is_told_with_where_it_stands() {
    let home = tempfile::tempdir().expect("a folder");
    std::fs::write(home.path().join("pli.toml"), "[delivery]\npage_rows_max = 0\n").expect("written");
    let check = ["config", "check", "--config", "pli.toml"];
    let (code, said) = failure(&run(home.path(), &check));
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("pli.toml: delivery.page_rows_max is 0") && !said.contains("PLI_"), "{said}");
    let given = [
        ("PLI_DELIVERY__PAGE_ROWS_MAX", "0", "variable PLI_DELIVERY__PAGE_ROWS_MAX: delivery.page_rows_max is 0"),
        ("PLI_ENGINE__SHARDS", "3", "variable PLI_ENGINE__SHARDS: engine.shards = 3"),
        ("PLI_SERVER__PORT", "many", "PLI_SERVER__PORT"),
    ];
    for (variable, value, named) in given {
        let output = pli(home.path(), &["config", "check"]).env(variable, value).output().expect("ran");
        let (code, said) = failure(&output);
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains(named), "{said}");
    }
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
        3,
        &["nats.servers", "nats://host:port"],
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
