// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lines that a person copies: the program as they started it, and the flags that say which server is meant.

use std::path::Path;

use crate::cli::ClientArgs;

/// Where `pli dev` keeps its data unless told otherwise, and the client looks for it.
const DATA_DEFAULT: &str = "pli-data";

/// How this process was started: what stands around the command in every line that a person copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    program: String,
    server: String,
    home: String,
}

/// Of a program that is on the path and finds its server by itself.
impl Default for Invocation {
    fn default() -> Self {
        Self { program: "pli".into(), server: String::new(), home: String::new() }
    }
}

impl Invocation {
    /// With these flags.
    pub fn of(client: &ClientArgs) -> Self {
        let home = client.home.as_ref().map(|home| format!(" --home {}", quoted(home.display().to_string())));
        Self { program: program(), server: server(client), home: home.unwrap_or_default() }
    }

    /// A command for any device of the same server: `command` is what stands behind the program.
    pub fn line(&self, command: &str) -> String {
        format!("{} {command}{}", self.program, self.server)
    }

    /// The same for the profiles of this device, wherever they live.
    pub fn line_here(&self, command: &str) -> String {
        self.line(command) + &self.home
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
    let mut words = vec![String::new()];
    if !client.server.is_empty() {
        let servers: Vec<String> = client.server.iter().map(|named| named.address.to_string()).collect();
        words.push(format!("--server {}", quoted(servers.join(","))));
    }
    if client.data != Path::new(DATA_DEFAULT) {
        words.push(format!("--data {}", quoted(client.data.display().to_string())));
    }
    words.extend(client.quic_port.map(|port| format!("--quic-port {port}")));
    words.extend(client.fingerprint.map(|fingerprint| format!("--fingerprint {fingerprint}")));
    words.join(" ")
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
        assert_eq!(behind(&["--data", "a b"], false), " --data 'a b'");
        let print = "0123456789abcdef".repeat(4);
        let flags = ["--server", "a:1", "--quic-port", "2", "--fingerprint", &print];
        assert_eq!(behind(&flags, false), format!(" --server a:1 --quic-port 2 --fingerprint {print}"));
        let flags = ["--server", "a:1,b:2", "--data", "x", "--home", "h"];
        assert_eq!(behind(&flags, false), " --server a:1,b:2 --data x");
        assert_eq!(behind(&flags, true), " --server a:1,b:2 --data x --home h");
    }
}
