// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a started server says.

use std::path::Path;

use anstyle::Style;

use crate::server::server_file::ServerFile;

/// One line of JSON, for scripts.
pub fn print_json(about: &ServerFile) -> anyhow::Result<()> {
    anstream::println!("{}", serde_json::to_string(about)?);
    Ok(())
}

/// The text for people, with two lines to copy.
pub fn print(about: &ServerFile) {
    let bold = Style::new().bold();
    anstream::println!("{bold}Pli is ready.{bold:#}");
    anstream::println!("  server info  {}", about.url);
    anstream::println!("  address      {}", about.address);
    anstream::println!("  certificate  {}", about.fingerprint);
    anstream::println!("  health       http://{}/readyz", about.admin);
    anstream::println!("  data         {}", about.data.display());
    anstream::println!("\nChat from two other terminals:");
    for handle in ["alice", "bob"] {
        anstream::println!("  {bold}{}{bold:#}", chat_line(handle, &about.data));
    }
    anstream::println!("In the first one type `@bob hello`. Ctrl-C here ends the server.");
}

/// A command that runs from any folder.
fn chat_line(handle: &str, data: &Path) -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| "pli".into());
    format!("{} chat {handle} --data {}", quoted(&program), quoted(data))
}

/// The path as a POSIX shell reads it back.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | '+' | ',' | ':' | '@');
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_for_the_shell() {
        assert_eq!(quoted(Path::new("/a/b-c_1.d")), "/a/b-c_1.d");
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
