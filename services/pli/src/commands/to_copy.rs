// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lines that a person copies: the program as they started it, and the flags that say which server is meant.

use std::net::SocketAddr;
use std::path::Path;

use crate::cli::ClientArgs;
use crate::server::server_file::ServerFile;

/// Where `pli dev` keeps its data unless told otherwise, and the client looks for it.
const DATA_DEFAULT: &str = "pli-data";

/// How this process was started: what stands around the command in every line that a person copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    program: String,
    /// The flags that say which server is meant, to this device, and to another one.
    server: String,
    elsewhere: String,
    home: String,
}

/// Of a program that is on the path and finds its server by itself.
impl Default for Invocation {
    fn default() -> Self {
        Self { program: "pli".into(), server: String::new(), elsewhere: String::new(), home: String::new() }
    }
}

impl Invocation {
    /// With these flags.
    pub fn of(client: &ClientArgs) -> Self {
        let home = client.home.as_ref().map(|home| format!(" --home {}", quoted(home.display().to_string())));
        let (server, elsewhere) = (server(client), server_elsewhere(client));
        Self { program: program(), server, elsewhere, home: home.unwrap_or_default() }
    }

    /// A command for another device of the same server: `command` is what stands behind the program.
    pub fn line(&self, command: &str) -> String {
        format!("{} {command}{}", self.program, self.elsewhere)
    }

    /// A command for the profiles of this device, wherever they live.
    pub fn line_here(&self, command: &str) -> String {
        format!("{} {command}{}{}", self.program, self.server, self.home)
    }
}

/// See [`Invocation::line`].
pub fn line(client: &ClientArgs, command: &str) -> String {
    Invocation::of(client).line(command)
}

/// See [`Invocation::line_here`].
pub fn line_here(client: &ClientArgs, command: &str) -> String {
    Invocation::of(client).line_here(command)
}

/// The flags that say which server is meant, each behind a blank.
fn server(client: &ClientArgs) -> String {
    let mut words = named(client);
    if client.data != Path::new(DATA_DEFAULT) {
        words.push(format!("--data {}", quoted(client.data.display().to_string())));
    }
    flags(words, client)
}

/// The same for another device, to which a folder of this one says nothing: the address in it does.
fn server_elsewhere(client: &ClientArgs) -> String {
    let mut words = named(client);
    if words.is_empty() {
        words.extend(address_in(&client.data).map(|address| format!("--server {address}")));
    }
    flags(words, client)
}

fn named(client: &ClientArgs) -> Vec<String> {
    let servers: Vec<String> = client.server.iter().map(|named| named.address.to_string()).collect();
    if servers.is_empty() { Vec::new() } else { vec![format!("--server {}", quoted(servers.join(",")))] }
}

fn flags(mut words: Vec<String>, client: &ClientArgs) -> String {
    words.extend(client.quic_port.map(|port| format!("--quic-port {port}")));
    words.extend(client.fingerprint.map(|fingerprint| format!("--fingerprint {fingerprint}")));
    words.into_iter().map(|word| format!(" {word}")).collect()
}

/// Where the server of this folder is; under which name others reach one that listens everywhere is not known here.
fn address_in(data: &Path) -> Option<String> {
    let address = ServerFile::read(data).ok().flatten()?.address;
    match address.parse::<SocketAddr>() {
        Ok(any) if any.ip().is_unspecified() => Some(format!("HOST:{}", any.port())),
        _ => Some(quoted(address)),
    }
}

/// The program as it was started.
fn program() -> String {
    std::env::args_os().next().map_or_else(|| "pli".into(), |program| quoted(program.to_string_lossy().into_owned()))
}

/// The text as a POSIX shell reads it back.
pub fn quoted(text: String) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | '+' | ',' | ':' | '@');
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        client: ClientArgs,
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        for (text, is) in [("/a/b-c_1.d", "/a/b-c_1.d"), ("/a b/it's", r"'/a b/it'\''s'"), ("", "''")] {
            assert_eq!(quoted(text.into()), is);
        }
    }

    #[test]
    fn a_line_names_what_was_named() {
        let behind = |flags: &[&str], here: bool| {
            let client = Line::try_parse_from([&["pli"], flags].concat()).expect("flags").client;
            let line = if here { line_here(&client, "recv bob") } else { line(&client, "recv bob") };
            line.split_once(" recv bob").expect("the command").1.to_owned()
        };
        assert_eq!(behind(&[], true), "");
        assert_eq!(behind(&["--data", "a b"], true), " --data 'a b'");
        let print = "0123456789abcdef".repeat(4);
        let flags = ["--server", "a:1", "--quic-port", "2", "--fingerprint", &print];
        assert_eq!(behind(&flags, false), format!(" --server a:1 --quic-port 2 --fingerprint {print}"));
        let flags = ["--server", "a:1,b:2", "--data", "x", "--home", "h"];
        assert_eq!(behind(&flags, false), " --server a:1,b:2");
        assert_eq!(behind(&flags, true), " --server a:1,b:2 --data x --home h");
    }
    #[test]
    fn a_line_for_another_device_names_no_folder_of_this_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().display().to_string();
        let client = || Line::try_parse_from(["pli", "--data", &data]).expect("flags").client;
        assert!(line(&client(), "recv bob").ends_with(" recv bob"), "nothing is known of its server");
        for (address, named) in
            [("127.0.0.2:7480", "127.0.0.2:7480"), ("0.0.0.0:7480", "HOST:7480"), ("[::]:1", "HOST:1")]
        {
            let file = ServerFile {
                url: String::new(),
                address: address.into(),
                quic: None,
                fingerprint: "ab".repeat(32),
                admin: "127.0.0.1:1".parse().expect("an address"),
                data: folder.path().into(),
                pid: 1,
            };
            file.write(folder.path()).expect("written");
            let line = line(&client(), "recv bob");
            assert!(line.ends_with(&format!(" recv bob --server {named}")), "{line}");
        }
        assert!(line_here(&client(), "recv bob").ends_with(&format!(" recv bob --data {data}")));
    }
}
