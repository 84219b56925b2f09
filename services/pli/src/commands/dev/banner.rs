// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a started server says.

use std::path::Path;

use anstyle::Style;

use crate::server::About;

/// One line of JSON, for scripts.
pub fn print_json(about: &About) -> anyhow::Result<()> {
    anstream::println!("{}", serde_json::to_string(about)?);
    Ok(())
}

/// The text for people, with two lines to copy.
pub fn print(about: &About) {
    let bold = Style::new().bold();
    anstream::println!("{bold}Pli is ready.{bold:#}");
    print_places(about);
    anstream::println!("\nChat from two other terminals:");
    for handle in ["alice", "bob"] {
        anstream::println!("  {bold}{}{bold:#}", chat_line(handle, &about.data));
    }
    anstream::println!("In the first one type `@bob hello`. Ctrl-C here ends the server.");
}

/// The text of a server of some roles.
pub fn print_roles(about: &About) {
    let bold = Style::new().bold();
    anstream::println!("{bold}Pli is ready.{bold:#}");
    anstream::println!("  roles        {}", about.roles);
    print_places(about);
    anstream::println!("Ctrl-C or SIGTERM ends it in order.");
}

fn print_places(about: &About) {
    if let Some(sessions) = &about.sessions {
        anstream::println!("  server info  {}", sessions.url);
        anstream::println!("  address      {}", sessions.address);
        anstream::println!("  certificate  {}", sessions.fingerprint);
    }
    if let Some(internal) = about.internal {
        anstream::println!("  internal     {internal}");
    }
    anstream::println!("  health       http://{}/readyz", about.admin);
    anstream::println!("  data         {}", about.data.display());
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
