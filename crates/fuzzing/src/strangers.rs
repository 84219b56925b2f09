// SPDX-License-Identifier: MIT OR Apache-2.0
//! Answers about a group that a stranger has made under the id of one that Alice is in: what a server hands out that works
//! together with somebody.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::Bytes;
use pli_api::conversations::{EpochCommit, GetCommitsResponse, GetGroupInfoResponse, Object, object};
use pli_client_core::mls::Mls;
use pli_domain::{ConversationId, DeviceAddress};
use prost::Message;

use crate::tape::{DAVE, MALLORY, Tape, identity, tape};

/// The method that answers GroupInfos.
pub const GROUP_INFO: &str = "/pli.conversations.v1.Conversations/GetGroupInfo";
/// The method that answers commits.
pub const COMMITS: &str = "/pli.conversations.v1.Conversations/GetCommits";
/// Epochs of a stranger's group: as far as any group of the recording comes.
const EPOCHS: u64 = 8;

/// What a call of this method may be answered: what was recorded, then what strangers made. None for what nobody asked.
pub fn answers(method: &str) -> &'static [Bytes] {
    static ANSWERS: OnceLock<BTreeMap<String, Vec<Bytes>>> = OnceLock::new();
    let all = ANSWERS.get_or_init(|| {
        let tape = tape();
        let mut all = tape.answers.clone();
        // Dave is a stranger to both at the end, Mallory to the chat.
        for (n, id) in [(MALLORY, tape.chat.0), (DAVE, tape.chat.0), (DAVE, tape.group.0)] {
            for (method, body) in made(tape, n, id) {
                all.entry(method.to_owned()).or_default().push(body);
            }
        }
        all
    });
    all.get(method).map_or(&[], Vec::as_slice)
}

fn made(tape: &Tape, n: usize, id: ConversationId) -> Vec<(&'static str, Bytes)> {
    let identity = identity(&tape.rows[n]);
    let mut mls = Mls::of(&identity, [11; 32]);
    let created = mls.create(id).expect("a group of one");
    let (mut answers, mut commits) = (vec![(GROUP_INFO, info(created, 0))], Vec::new());
    for epoch in 1..=EPOCHS {
        let commit = mls.commit(id, &[], &[]).expect("a commit that changes nothing");
        mls.merge_commit(id).expect("the pending one");
        commits.push(committed(identity.address(), epoch - 1, commit.commit));
        answers.push((GROUP_INFO, info(mls.group_info(id).expect("it is there"), epoch)));
        let all = GetCommitsResponse { commits: commits.clone(), current_epoch: epoch, gone: false };
        answers.push((COMMITS, all.encode_to_vec().into()));
    }
    answers
}

fn inline(bytes: Vec<u8>) -> Option<Object> {
    Some(Object { object: Some(object::Object::Inline(bytes.into())) })
}

fn info(bytes: Vec<u8>, epoch: u64) -> Bytes {
    GetGroupInfoResponse { group_info: inline(bytes), ratchet_tree: None, epoch }.encode_to_vec().into()
}

fn committed(by: DeviceAddress, epoch: u64, commit: Vec<u8>) -> EpochCommit {
    EpochCommit { epoch, committer: Some(by.into()), commit: inline(commit) }
}
