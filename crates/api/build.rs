// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compiles `proto/` with protox (no system protoc). Every `bytes` field becomes `bytes::Bytes`, so decoding a frame
//! copies no body.

use std::error::Error;
use std::path::PathBuf;

const FILES: [&str; 11] = [
    "pli/common/v1/common.proto",
    "pli/log/v1/log.proto",
    "pli/delivery/v1/delivery.proto",
    "pli/edge/v1/edge.proto",
    "pli/directory/v1/directory.proto",
    "pli/conversations/v1/conversations.proto",
    "pli/links/v1/links.proto",
    "pli/media/v1/media.proto",
    "pli/sealed/v1/sealed.proto",
    "pli/sealed/v1/link.proto",
    "pli/sealed/v1/archive.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    // Asked for at run time: a target folder may have been copied from another checkout.
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_source_info(true).include_imports(true).open_files(FILES)?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    let grpc = std::env::var_os("CARGO_FEATURE_GRPC").is_some();
    tonic_prost_build::configure()
        .build_client(grpc)
        .build_server(grpc)
        .build_transport(false)
        .bytes(".")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
