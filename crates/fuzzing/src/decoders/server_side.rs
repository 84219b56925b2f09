// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a server reads: from clients, from its own stores, from the bus.

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use pli_api::directory::SignedDeviceList;
use pli_directory::VerifiedDeviceList;
use pli_domain::{ConversationId, ShardMap};
use prost::Message;

use crate::mutate::{Change, mutated};
use crate::samples::samples;

pub(super) fn log_entry(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    let (targets, _) = pli_delivery::fuzzing::entry(&bytes);
    assert!(targets <= input.len() / 16, "a device takes 16 bytes");
}

pub(super) fn log_block(input: &[u8]) {
    let entries = pli_engine_embedded::fuzzing::block(Bytes::copy_from_slice(input));
    let again = pli_engine_embedded::fuzzing::encoded(&entries);
    assert!(input.starts_with(&again), "what was read is what was there");
}

pub(super) fn cql_value(input: &[u8]) {
    pli_engine_cql::fuzzing::stored(input);
}

pub(super) fn nats_answer(input: &[u8]) {
    pli_engine_nats::fuzzing::answer(input);
}

/// The first byte says how many shards there are.
pub(super) fn receipt(input: &[u8]) {
    let Some((first, bytes)) = input.split_first() else { return };
    let shards = ShardMap::new(1 << (first % 11), [3; 16]).expect("a power of two");
    if let Some(parts) = pli_edge::fuzzing::receipt(&Bytes::copy_from_slice(bytes), &shards) {
        assert!(parts <= usize::from(shards.count()));
    }
}

pub(super) fn device_list(input: &[u8]) {
    let Ok(signed) = SignedDeviceList::decode(input) else { return };
    if let Ok(list) = VerifiedDeviceList::verify(&signed) {
        assert!((1..=pli_domain::limits::DEVICES_PER_ACCOUNT_MAX).contains(&list.devices.len()));
    }
}

pub(super) fn key_package(input: &[u8]) {
    pli_directory::fuzzing::key_package(&Bytes::copy_from_slice(input));
}

pub(super) fn group_info(input: &[u8]) {
    pli_conversations::fuzzing::group_info(input);
    pli_conversations::fuzzing::commit(input);
}

pub(super) fn commit_record(input: &[u8]) {
    pli_conversations::fuzzing::commit_record(&Bytes::copy_from_slice(input));
}

pub(super) fn lease(input: &[u8]) {
    pli_engine_nats::fuzzing::lease(input);
}

/// The id of the conversation, then what is stored of it.
pub(super) fn group_state(input: &[u8]) {
    let Some((id, state)) = input.split_first_chunk() else { return };
    pli_conversations::fuzzing::state(ConversationId::from_bytes(*id), &Bytes::copy_from_slice(state));
}

/// What a device offers to the service that keeps its group: valid until changed.
#[derive(Debug, Arbitrary)]
struct Offer {
    which: u8,
    created: Vec<Change>,
    commit: Vec<Change>,
    welcome: Vec<Change>,
    group_info: Vec<Change>,
}

pub(super) fn offer(input: &[u8]) {
    let Ok(offer) = Offer::arbitrary_take_rest(Unstructured::new(input)) else { return };
    let offers = &samples().offers;
    let valid = &offers[usize::from(offer.which) % offers.len()];
    let changed = |bytes: &Bytes, changes: &[Change]| Bytes::from(mutated(bytes, changes));
    let offered = [
        changed(&valid.commit, &offer.commit),
        changed(&valid.welcome, &offer.welcome),
        changed(&valid.group_info, &offer.group_info),
    ];
    pli_conversations::fuzzing::offered(changed(&valid.created, &offer.created), valid.creator, &offered);
}

/// Certificate and key in one file.
pub(super) fn pem(input: &[u8]) {
    let _ = pli_edge::Identity::from_pem(input, input);
}
