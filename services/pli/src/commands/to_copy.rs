// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lines that a person copies: the program as they started it, and the flags that say which server is meant.

use std::path::Path;

use crate::cli::ClientArgs;

/// Where `pli dev` keeps its data unless told otherwise, and the client looks for it.
const DATA_DEFAULT: &str = "pli-data";

/// A command for any device of the same server: `command` is what stands behind the program.
pub fn line(client: &ClientArgs, command: &str) -> String {
    let mut words = vec![program(), command.to_owned()];
    if !client.server.is_empty() {
        let servers: Vec<String> = client.server.iter().map(|named| named.address.to_string()).collect();
        words.push(format!("--server {}", quoted(servers.join(","))));
    }
    if client.data != Path::new(DATA_DEFAULT) {
        words.push(format!("--data {}", quoted(client.data.display().to_string())));
    }
    words.join(" ")
}

/// The same for the profiles of this device, wherever they live.
pub fn line_here(client: &ClientArgs, command: &str) -> String {
    let home = client.home.as_ref().map(|home| format!(" --home {}", quoted(home.display().to_string())));
    line(client, command) + &home.unwrap_or_default()
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
        let flags = ["--server", "a:1,b:2", "--data", "x", "--home", "h"];
        assert_eq!(behind(&flags, false), " --server a:1,b:2 --data x");
        assert_eq!(behind(&flags, true), " --server a:1,b:2 --data x --home h");
    }
}
