// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a browser loads: the client core as WebAssembly, compressed as a web server sends it.
#![allow(clippy::print_stdout, reason = "what is left out is said")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use pli_benches::{Row, Summary};

const TARGET: &str = "wasm32-unknown-unknown";
/// The profile of the workspace that builds for size.
const PROFILE: &str = "web";
/// The most that brotli does.
const QUALITY: u32 = 11;
const WINDOW: u32 = 24;

fn main() -> Result<()> {
    if !installed()? {
        println!("wasm: skipped, the standard library of {TARGET} is not installed");
        return Ok(());
    }
    println!("wasm: built for size, about 3 minutes where nothing was built before");
    let module = std::fs::read(built()?).context("the module")?;
    let mut writer = brotli::CompressorWriter::new(Vec::new(), 1 << 16, QUALITY, WINDOW);
    writer.write_all(&module)?;
    let compressed = writer.into_inner();
    let mut summary = Summary::open();
    summary.add(Row::plain("wasm_bytes", module.len() as f64, "B"));
    summary.add(Row::plain("wasm_bytes_brotli", compressed.len() as f64, "B"));
    summary.save().context("the summary")
}

fn installed() -> Result<bool> {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().context("rustc runs")?;
    let sysroot = String::from_utf8(sysroot.stdout)?;
    Ok(Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET).exists())
}

/// Builds the module beside this measurement; answers where it lies.
fn built() -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let target = here.ancestors().nth(3).context("the measurement is not in a build folder")?;
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let arguments = ["build", "--quiet", "--package", "pli-client-wasm", "--target", TARGET, "--profile", PROFILE];
    let mut build = Command::new(cargo);
    build.args(arguments).arg("--target-dir").arg(target).current_dir(env!("CARGO_MANIFEST_DIR"));
    ensure!(build.status().context("cargo runs")?.success(), "the client does not build for {TARGET}");
    Ok(target.join(TARGET).join(PROFILE).join("pli_client_wasm.wasm"))
}
