// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starting and ending the server, and what it says when it cannot start.

use std::net::TcpListener;

use rustix::process::Signal;

use crate::process::{Running, Server, failure, pli, run, text};

#[test]
fn a_server_on_an_empty_folder_says_where_it_is_and_ends_cleanly_on_ctrl_c() {
    let home = tempfile::tempdir().expect("a folder");
    let mut process = Running::start(pli(home.path(), &["dev", "--port", "0"]));
    let mut said = String::new();
    while !said.contains("Ctrl-C here ends the server") {
        said += &process.line();
        said += "\n";
    }
    for word in ["/.well-known/pli", "address", "certificate", "chat alice", "chat bob"] {
        assert!(said.contains(word), "`{word}` is missing in {said}");
    }
    assert!(home.path().join("pli-data/VERSION").exists());
    process.signal(Signal::INT);
    assert_eq!(process.wait(), Some(0));
}

#[test]
fn a_second_start_keeps_the_certificate() {
    let home = tempfile::tempdir().expect("a folder");
    let first = Server::start(home.path());
    let fingerprint = first.about["fingerprint"].clone();
    first.process.kill();
    let second = Server::start(home.path());
    assert_eq!(second.about["fingerprint"], fingerprint);
    second.process.signal(Signal::TERM);
    assert_eq!(second.process.wait(), Some(0));
}

#[test]
fn an_ephemeral_server_leaves_nothing_behind() {
    let home = tempfile::tempdir().expect("a folder");
    let mut command = pli(home.path(), &["dev", "--ephemeral", "--port", "0", "--ready-json"]);
    command.env("TMPDIR", home.path());
    let mut process = Running::start(command);
    let about = process.json(|value| value.get("data").is_some());
    let data = std::path::PathBuf::from(about["data"].as_str().expect("a folder"));
    assert!(data.starts_with(home.path()) && data.exists());
    process.signal(Signal::INT);
    assert_eq!(process.wait(), Some(0));
    assert!(!data.exists());
}

#[test]
fn a_taken_port_is_refused_with_its_fix() {
    let home = tempfile::tempdir().expect("a folder");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port().to_string();
    for flag in ["--port", "--admin-port"] {
        let other = if flag == "--port" { "--admin-port" } else { "--port" };
        let (code, said) = failure(&run(home.path(), &["dev", flag, &port, other, "0"]));
        assert_eq!(code, Some(4), "{said}");
        assert!(said.contains(&port) && said.contains(flag), "{said}");
    }
}

#[test]
fn a_taken_udp_port_is_refused_with_its_fix_which_works() {
    let home = tempfile::tempdir().expect("a folder");
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let arguments = ["dev", "--port", &port, "--admin-port", "0", "--ready-json"];
    let (code, said) = failure(&run(home.path(), &arguments));
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains(&port) && said.contains("UDP") && said.contains("server.quic_port"), "{said}");
    let mut elsewhere = pli(home.path(), &arguments);
    elsewhere.env("PLI_SERVER__QUIC", "false");
    Running::start(elsewhere)
        .json(|about| about.get("quic").is_none() && about["address"] == format!("127.0.0.1:{port}"));
}

#[test]
fn a_second_server_on_the_same_folder_names_the_first_process() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(home.path());
    let (code, said) = failure(&run(home.path(), &["dev", "--data", "data", "--port", "0"]));
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains(&server.process.pid().to_string()), "{said}");
}

#[test]
fn a_folder_of_a_newer_version_is_refused_and_left_alone() {
    let home = tempfile::tempdir().expect("a folder");
    let data = home.path().join("data");
    std::fs::create_dir(&data).expect("made");
    std::fs::write(data.join("VERSION"), "999\n").expect("written");
    let (code, said) = failure(&run(home.path(), &["dev", "--data", "data", "--port", "0"]));
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains("999"), "{said}");
    assert!(!data.join("pli.db").exists());
}

#[test]
fn a_folder_that_cannot_be_written_is_refused_with_its_fix() {
    let home = tempfile::tempdir().expect("a folder");
    // Nobody can make folders here, the superuser neither.
    let (code, said) = failure(&run(home.path(), &["dev", "--data", "/sys/pli", "--port", "0"]));
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains("/sys/pli"), "{said}");
}

#[test]
fn the_admin_port_tells_health_and_metrics() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(home.path());
    let said = text(&run(home.path(), &["doctor", "--data", "data"]));
    assert!(said.contains(&format!("process {} says that it is ready", server.process.pid())), "{said}");
}

#[tokio::test]
async fn a_later_connection_resumes_tls_and_a_wrong_pin_never_does() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(home.path());
    let address: pli_client::ServerAddress = server.address().parse().expect("an address");
    let pin: pli_client::Fingerprint =
        server.about["fingerprint"].as_str().and_then(|text| text.parse().ok()).expect("a fingerprint");
    let connector = pli_client::Connector::new(Some(pin), pli_client::Transport::WebSocket);
    let mut exporters = Vec::new();
    for resumed in [false, true] {
        let connection = connector.open(&address).await.expect("a connection");
        assert_eq!((connection.resumed, connection.fingerprint), (Some(resumed), pin));
        exporters.push(connection.exporter);
        // The ticket stands before the first frame.
        connection.split().1.next().await.expect("a hello");
    }
    assert_ne!(exporters[0], exporters[1]);
    let other = pli_client::Connector::new(
        Some(pli_client::Fingerprint::of(b"another certificate")),
        pli_client::Transport::WebSocket,
    );
    let refused = other.open(&address).await.map(|connection| connection.resumed);
    assert!(matches!(refused, Err(pli_client::TransportError::WrongCertificate { .. })), "{refused:?}");
}

#[test]
fn a_folder_that_lost_its_database_is_refused_with_its_fix_and_the_doctor_tells_too() {
    let home = tempfile::tempdir().expect("a folder");
    Server::start(home.path()).process.kill();
    std::fs::write(home.path().join("data/pli.db"), "").expect("emptied");
    let (code, said) = failure(&run(home.path(), &["dev", "--data", "data", "--port", "0"]));
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains("pli.db") && said.contains("pli restore --replace"), "{said}");
    let output = run(home.path(), &["doctor", "--data", "data"]);
    assert_eq!(output.status.code(), Some(9));
    assert!(String::from_utf8_lossy(&output.stdout).contains("has lost its database"));
}

#[test]
fn a_server_in_a_folder_made_beforehand_keeps_everything_to_its_owner() {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let home = tempfile::tempdir().expect("a folder");
    let data = home.path().join("data");
    std::fs::DirBuilder::new().mode(0o755).create(&data).expect("made");
    let _server = Server::start(home.path());
    let files = std::fs::read_dir(&data).expect("there").map(|entry| entry.expect("an entry").path());
    for path in files.chain([data.clone()]) {
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
    }
    let said = String::from_utf8_lossy(&run(home.path(), &["doctor", "--data", "data"]).stdout).into_owned();
    assert!(said.contains("for their owner alone"), "{said}");
}

/// Damage that only shows when tables are read, after the folder was opened.
#[test]
fn a_server_on_a_damaged_database_ends_with_the_cause_or_with_a_signal() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(home.path());
    let address = server.address();
    run(home.path(), &["recv", "ann", "--server", &address, "--data", "data"]);
    server.process.signal(Signal::TERM);
    assert_eq!(server.process.wait(), Some(0));
    let database = home.path().join("data/pli.db");
    let mut bytes = std::fs::read(&database).expect("readable");
    bytes[8192..].fill(0xa5);
    std::fs::write(&database, bytes).expect("written");
    let arguments = ["dev", "--data", "data", "--port", "0", "--admin-port", "0"];
    let mut command = pli(home.path(), &arguments);
    command.stderr(std::process::Stdio::piped());
    let output = command.output().expect("it ends");
    let (code, said) = failure(&output);
    assert!(code.is_some_and(|code| code != 0), "{said}");
    assert!(said.contains("malformed") || said.contains("damaged"), "{said}");
}

#[test]
fn a_server_that_does_not_answer_under_a_host_takes_no_handle_there() {
    let home = tempfile::tempdir().expect("a folder");
    let elsewhere = Server::start_with(home.path(), 0, &[("PLI_EDGE__HOSTS", "chat.example")]);
    let (address, port) = (elsewhere.address(), elsewhere.port());
    let recv = || run(home.path(), &["recv", "alice", "--server", &address, "--timeout", "20"]);
    let (code, why) = failure(&recv());
    assert!(code == Some(8) && why.contains("WRONG_HOST") && !why.contains("registered now"), "{code:?} {why}");
    elsewhere.process.kill();
    let _server = Server::start_on(home.path(), port);
    text(&recv());
}

#[test]
fn a_server_and_a_client_whose_log_lines_cannot_be_written_go_on() {
    let home = tempfile::tempdir().expect("a folder");
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").expect("there");
    let arguments = ["dev", "--data", "data", "--port", "0", "--admin-port", "0", "--ready-json"];
    let mut server = pli(home.path(), &arguments);
    server.env("PLI_LOGS__FILTER", "debug").stderr(full());
    let mut server = Running::start(server);
    server.json(|value| value.get("url").is_some());
    text(&run(home.path(), &["recv", "bob", "--data", "data"]));
    let mut client = pli(home.path(), &["send", "alice", "bob", "hello", "--data", "data", "--log", "debug"]);
    assert!(client.stderr(full()).status().expect("starts").success());
    // Nobody reads them.
    let (reader, gone) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut client = pli(home.path(), &["recv", "bob", "--data", "data", "--log", "debug"]);
    let said = client.stderr(gone).output().expect("starts");
    assert!(text(&said).contains("@alice: hello"));
    server.signal(Signal::INT);
    assert_eq!(server.wait(), Some(0));
}
