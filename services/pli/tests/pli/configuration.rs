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

#[test]
fn help_teaches_with_examples_and_exit_codes() {
    let home = tempfile::tempdir().expect("a folder");
    let said = text(&run(home.path(), &["--help"]));
    assert!(said.contains("Exit codes:") && said.contains("chat"), "{said}");
    for command in ["dev", "chat", "send", "recv", "pipe", "group", "config", "doctor"] {
        let said = text(&run(home.path(), &[command, "--help"]));
        assert!(said.contains("Examples:"), "{command}: {said}");
    }
}
