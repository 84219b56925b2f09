// SPDX-License-Identifier: MIT OR Apache-2.0
//! What people, operators and other programs write: words on command lines, settings, headers, frames on a stream.

use bytes::{Bytes, BytesMut};
use pli_api::quic::{FrameCutter, put_frame};
use pli_client::{DeviceLabel, Fingerprint, ProfileName, ServerAddress, Transport};
use pli_domain::{AccountId, ConversationId, DeviceId, Handle, PayloadId, SendId, SessionId};
use pli_engine_embedded::Stamp;
use pli_runtime::Sources;
use pli_runtime::trail::{HopQuery, TraceContext};
use serde::{Deserialize, Serialize};

/// Frames of a stream that arrives in pieces; the first byte says how large they are.
pub(super) fn frame_cutter(input: &[u8]) {
    let Some((size, stream)) = input.split_first() else { return };
    let (mut cutter, mut again) = (FrameCutter::default(), BytesMut::new());
    let mut cut = 0;
    for piece in stream.chunks(usize::from(*size) + 1) {
        let mut read = Bytes::copy_from_slice(piece);
        while !read.is_empty() {
            match cutter.cut(&mut read) {
                Ok(Some(frame)) => {
                    put_frame(&mut again, &frame);
                    cut += frame.len() + 4;
                }
                Ok(None) => {}
                Err(_) => return,
            }
        }
    }
    assert_eq!(again.as_ref(), &stream[..cut], "what was cut is what came");
}

/// What reads is written, and that reads as the same.
macro_rules! round {
    ($text:expr, $($kind:ty),+) => {
        $(if let Ok(read) = $text.parse::<$kind>() {
            let again = read.to_string().parse::<$kind>();
            assert!(again.is_ok_and(|again| again == read), "{} {:?}", stringify!($kind), $text);
        })+
    };
}

pub(super) fn words(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    round!(text, Handle, AccountId, DeviceId, ConversationId, SendId, SessionId, PayloadId);
    round!(text, ServerAddress, ProfileName, Fingerprint);
    let _ = (text.parse::<Transport>(), text.parse::<DeviceLabel>());
    let _ = pli_client_core::content::group_name(text);
    let _ = pli_client_core::linking::device_name(text);
    let _ = pli_edge::fuzzing::version(text);
    let _ = Stamp::parse(text);
    pli_engine_nats::fuzzing::reply_subject(text);
}

/// Sections as a server's file has them.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    edge: pli_edge::Config,
    delivery: pli_delivery::Config,
    directory: pli_directory::Config,
    conversations: pli_conversations::Config,
    links: pli_links::Config,
}

pub(super) fn settings(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(read) = toml::from_str::<Settings>(text) else { return };
    let _ = (read.edge.check(), read.delivery.check(), read.links.check());
    if let Ok(written) = toml::to_string(&read) {
        assert_eq!(toml::from_str::<Settings>(&written).ok(), Some(read));
    }
}

/// Lines `NAME=VALUE`.
pub(super) fn environment(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let variables = text.lines().filter_map(|line| line.split_once('='));
    let sources = Sources::from_environment(variables.map(|(name, value)| (name.into(), value.into())));
    let _ = sources.unread::<Settings>(&[]);
    let _ = pli_runtime::load::<Settings>(&sources);
}

pub(super) fn traces(input: &[u8]) {
    if let Some(context) = TraceContext::parse(input) {
        assert_eq!(TraceContext::parse(context.to_string().as_bytes()), Some(context));
    }
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = HopQuery::parse(text);
    }
}
