// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which server and which profile a command line means.

use pli_client::{ClientOptions, Fingerprint, ProfileName, ServerAddress};

use crate::cli::{ClientArgs, NamedServer};
use crate::exit::{Exit, ExitContext, Failure};
use crate::server::server_file::ServerFile;

/// Which profile is meant, and where its server is.
pub fn options(args: &ClientArgs, name: &ProfileName) -> Result<ClientOptions, Failure> {
    let Servers { first: server, others, expected, is_gone, quic_port } = servers(args)?;
    let home = pli_client::profile::home(args.home.as_deref()).exit(Exit::Folder)?;
    // A profile believes what it has seen itself before a file that may be of a server which is gone.
    let is_pinned = pli_client::profile::is_pinned(&pli_client::profile::folder(&home, &server, name));
    if is_gone && !is_pinned {
        let data = args.data.display();
        crate::terminal::tell!(
            "the server of {data} does not run (start it with `pli dev`); another one at {server} is named with --server"
        );
    }
    let fingerprint = args.fingerprint.or(expected.filter(|_| !is_pinned));
    let (transport, suite, name) = (args.transport, args.suite, name.clone());
    Ok(ClientOptions { server, others, transport, quic_port, fingerprint, home, name, suite, offline: false })
}

/// Where a server is.
struct Servers {
    first: ServerAddress,
    others: Vec<ServerAddress>,
    /// What its file says of its certificate.
    expected: Option<Fingerprint>,
    /// It was read from the file of a server that does not run.
    is_gone: bool,
    quic_port: Option<u16>,
}

/// As named, else as the data folder says.
fn servers(args: &ClientArgs) -> Result<Servers, Failure> {
    // The file stays when its server ends: of one that is named it says nothing then.
    let read = if args.server.is_empty() { ServerFile::read } else { ServerFile::running };
    let file = read(&args.data).exit(Exit::Unreachable)?;
    let is_gone = file.as_ref().is_some_and(|file| !file.is_running());
    let found = file.and_then(|file| {
        let address: ServerAddress = file.address.parse().ok()?;
        Some((address, file.fingerprint.parse().ok()?, file.quic.map(|quic| quic.port())))
    });
    let mut others: Vec<ServerAddress> = args.server.iter().map(|named| named.address.clone()).collect();
    let first = match &found {
        _ if !others.is_empty() => others.remove(0),
        Some((address, ..)) => address.clone(),
        None => return Err(unknown(args)),
    };
    others.retain(|other| *other != first);
    let (expected, quic_port) = match found {
        Some((address, fingerprint, quic)) if address == first => (Some(fingerprint), quic),
        _ => (None, None),
    };
    Ok(Servers { first, others, expected, is_gone, quic_port: args.quic_port.or(quic_port) })
}

fn unknown(args: &ClientArgs) -> Failure {
    let data = args.data.display();
    Failure::say(
        Exit::Unreachable,
        format_args!(
            "no server is known: {data} holds no server.json; start one with `pli dev`, name its data folder with --data, \
             or its address with --server"
        ),
    )
}

/// Whether any of the names is one; the failure is that of the first.
pub async fn resolve(servers: &[NamedServer]) -> Result<(), Failure> {
    let mut failed = Ok(());
    for named in servers.iter().map(|named| &named.address) {
        match named.resolve().await {
            Ok(()) => return Ok(()),
            Err(error) => failed = failed.and(Err(unresolved(named, error))),
        }
    }
    failed
}

/// Says which port is asked where none was written: a server on a laptop has another one.
pub fn say_port(named: &NamedServer) {
    let (host, port) = (&named.address, named.address.port());
    crate::terminal::tell!("--server {host} names no port: {port} is assumed; `pli dev` says which one it has");
}

fn unresolved(named: &ServerAddress, error: std::io::Error) -> Failure {
    let fix = "check the spelling of --server HOST:PORT, or give an address";
    let error = anyhow::Error::new(error).context(format!("--server {named}: the name cannot be resolved; {fix}"));
    Failure::new(Exit::Unreachable, error)
}
