// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a started server says.

use std::path::Path;

use anstyle::Style;

use crate::commands::to_copy::quoted;
use crate::exit::{Exit, ExitContext, Failure};
use crate::server::About;
use crate::terminal::say;

/// One line of JSON, for scripts.
pub fn print_json(about: &About) -> Result<(), Failure> {
    say!("{}", serde_json::to_string(about).exit(Exit::Failed)?)
}

/// The text for people, with two lines to copy.
pub fn print(about: &About) -> Result<(), Failure> {
    let bold = Style::new().bold();
    say!("{bold}Pli is ready.{bold:#}")?;
    print_places(about)?;
    say!("\nChat from two other terminals:")?;
    for handle in ["alice", "bob"] {
        say!("  {bold}{}{bold:#}", chat_line(handle, &about.data))?;
    }
    say!("In the first one type `@bob hello`. Ctrl-C here ends the server.")
}

/// The text of a server of some roles.
pub fn print_roles(about: &About) -> Result<(), Failure> {
    let bold = Style::new().bold();
    say!("{bold}Pli is ready.{bold:#}")?;
    say!("  roles        {}", about.roles)?;
    print_places(about)?;
    say!("Ctrl-C or SIGTERM ends it in order.")
}

fn print_places(about: &About) -> Result<(), Failure> {
    if let Some(sessions) = &about.sessions {
        say!("  server info  {}", sessions.url)?;
        say!("  address      {}", sessions.address)?;
        if let Some(quic) = sessions.quic {
            say!("  QUIC         {quic} (UDP)")?;
        }
        say!("  certificate  {}", sessions.fingerprint)?;
    }
    if let Some(internal) = about.internal {
        say!("  internal     {internal}")?;
    }
    say!("  health       http://{}/readyz", about.admin)?;
    say!("  data         {}", about.data.display())
}

/// A command that runs from any folder.
fn chat_line(handle: &str, data: &Path) -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| "pli".into());
    let word = |path: &Path| quoted(path.display().to_string());
    format!("{} chat {handle} --data {}", word(&program), word(data))
}
