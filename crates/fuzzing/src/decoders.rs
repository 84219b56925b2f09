// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every decoder on both sides: whatever the bytes are, it answers or refuses. What it answers is encoded and decoded again
//! to the same. The first byte of an input chooses the decoder, the rest is its input.

mod client_side;
mod contracts;
mod server_side;
mod text;

pub use contracts::CONTRACTS;

/// Most bytes that one input has for a decoder: above the largest frame and the largest log entry.
pub const INPUT_MAX: usize = 300 * 1024;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Decoder {
    /// What it reads.
    pub name: &'static str,
    /// Reads it.
    pub run: fn(&[u8]),
}

const fn decoder(name: &'static str, run: fn(&[u8])) -> Decoder {
    Decoder { name, run }
}

/// All of them; the place is the first byte of an input, so that new ones stand at the end.
pub const DECODERS: &[Decoder] = &[
    decoder("contracts", contracts::any),
    decoder("frame-cutter", text::frame_cutter),
    decoder("content", client_side::content),
    decoder("sealed-frame", client_side::sealed_frame),
    decoder("identity", client_side::identity),
    decoder("device-list", client_side::device_list),
    decoder("link-code", client_side::link_code),
    decoder("link-blobs", client_side::link_blobs),
    decoder("rows", client_side::rows),
    decoder("message-row", client_side::message_row),
    decoder("mls-message", client_side::mls_message),
    decoder("mls-handshake", client_side::mls_handshake),
    decoder("mls-welcome", client_side::mls_welcome),
    decoder("mls-group-info", client_side::mls_group_info),
    decoder("words", text::words),
    decoder("settings", text::settings),
    decoder("environment", text::environment),
    decoder("traces", text::traces),
    decoder("log-entry", server_side::log_entry),
    decoder("log-block", server_side::log_block),
    decoder("cql-value", server_side::cql_value),
    decoder("nats-answer", server_side::nats_answer),
    decoder("receipt", server_side::receipt),
    decoder("directory-list", server_side::device_list),
    decoder("key-package", server_side::key_package),
    decoder("group-info", server_side::group_info),
    decoder("group-state", server_side::group_state),
    decoder("offer", server_side::offer),
    decoder("pem", server_side::pem),
    decoder("archive", client_side::archive),
    decoder("sealed-archive", client_side::sealed_archive),
    decoder("commit-record", server_side::commit_record),
    decoder("lease", server_side::lease),
    decoder("history-record", client_side::history_record),
];

/// Runs one input.
///
/// # Panics
/// When a decoder does what it must not.
pub fn decoders(data: &[u8]) {
    let Some((first, input)) = data.split_first() else { return };
    // Not counted round: an input means the same when decoders are added.
    let Some(decoder) = DECODERS.get(usize::from(*first)) else { return };
    (decoder.run)(&input[..input.len().min(INPUT_MAX)]);
}

/// The input that gives `bytes` to the decoder of this name.
///
/// # Panics
/// When there is none of that name.
pub fn input_for(name: &str, bytes: &[u8]) -> Vec<u8> {
    let place = DECODERS.iter().position(|decoder| decoder.name == name).expect("a decoder of that name");
    [&[u8::try_from(place).expect("a few decoders")], bytes].concat()
}
