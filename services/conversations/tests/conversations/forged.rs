// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commits that lie.

use bytes::Bytes;
use openmls::prelude::MlsMessageBodyIn;
use openmls::prelude::tls_codec::{Serialize, VLBytes};
use openmls_traits::signatures::Signer;
use pli_api::ErrorCode;
use pli_api::conversations::CommitRequest;

use crate::device::{Device, bytes_of, inline, message};
use crate::fixture::{Fixture, assert_refused, by};

/// Bytes behind the content of a member's PublicMessage in this suite: a signature of 64, a confirmation tag and a
/// membership tag of 32, each with its length in front.
const SIGNATURE: usize = 2 + 64;
const TAGS: usize = 2 * 33;

#[tokio::test]
async fn a_flipped_bit_anywhere_that_is_checked_in_public_is_noticed() {
    let mut f = Fixture::new();
    let (mut alice, mut bob) = (f.device(1, 1), f.device(2, 2));
    f.conversation(7, &mut [&mut alice, &mut bob]).await;
    let good = alice.commit(&[], &[]);
    let bytes = bytes_of(&good.commit);
    // The membership tag at the end needs the group's key: only members see that it is wrong.
    for at in (0..bytes.len() - 33).step_by(7) {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1;
        let request = CommitRequest { commit: inline(flipped), ..good.clone() };
        assert_refused(f.client.commit(by(alice.address, request)).await, ErrorCode::CommitInvalid);
    }
    for cut in [0, 1, 4, 40, bytes.len() - 1] {
        let request = CommitRequest { commit: inline(bytes.slice(..cut)), ..good.clone() };
        let code = if cut == 0 { ErrorCode::BadRequest } else { ErrorCode::CommitInvalid };
        assert_refused(f.client.commit(by(alice.address, request)).await, code);
    }
    assert_eq!(f.commit(alice.address, good).await, Ok(2), "the good one still wins");
}

/// Signs a member's commit again after its content was changed, as a member that lies would.
fn sign_again(device: &Device, commit: &mut [u8]) {
    let MlsMessageBodyIn::GroupInfo(info) = message(&device.group_info(false)) else { panic!("not a group info") };
    let end = commit.len() - TAGS - SIGNATURE;
    let context = info.group_context().tls_serialize_detached().expect("encodes");
    let to_be_signed = [&commit[..end], &context].concat();
    let label = VLBytes::new(b"MLS 1.0 FramedContentTBS".to_vec());
    let mut signed = label.tls_serialize_detached().expect("encodes");
    signed.extend(VLBytes::new(to_be_signed).tls_serialize_detached().expect("encodes"));
    let signature = device.signer.sign(&signed).expect("signs");
    commit[end + 2..end + SIGNATURE].copy_from_slice(&signature);
}

#[tokio::test]
async fn a_signed_commit_that_lies_about_its_tree_is_refused() {
    let mut f = Fixture::new();
    let (mut alice, mut bob) = (f.device(1, 1), f.device(2, 2));
    f.conversation(7, &mut [&mut alice, &mut bob]).await;
    let good = alice.commit(&[], &[]);
    let mut commit = bytes_of(&good.commit).to_vec();

    sign_again(&alice, &mut commit);
    assert_eq!(commit, bytes_of(&good.commit), "signing is deterministic: what is signed here is what MLS signs");

    // The new key of the root stands behind the leaf's signature: change it, so that the leaf's parent hash lies.
    let group = alice.group.as_ref().expect("in a group");
    let leaf = group.pending_commit().and_then(|c| c.update_path_leaf_node()).expect("has a path");
    let signature = leaf.signature().tls_serialize_detached().expect("encodes");
    let at = commit.windows(signature.len()).position(|w| w == signature).expect("in the commit") + signature.len();
    let key = (at..at + 8).find(|&i| commit[i] == 32).expect("the length of a key") + 1;
    commit[key] ^= 1;
    sign_again(&alice, &mut commit);
    let request = CommitRequest { commit: inline(commit), ..good.clone() };
    let error = assert_refused(f.client.commit(by(alice.address, request)).await, ErrorCode::CommitInvalid);
    assert!(error.message.contains("does not verify"), "{}", error.message);
    assert_eq!(f.commit(alice.address, good).await, Ok(2));
}

#[tokio::test]
async fn a_commit_in_the_name_of_another_member_is_refused() {
    let mut f = Fixture::new();
    let (mut alice, mut bob) = (f.device(1, 1), f.device(2, 2));
    f.conversation(7, &mut [&mut alice, &mut bob]).await;
    let hers = alice.commit(&[], &[]);
    assert_refused(f.client.commit(by(bob.address, hers)).await, ErrorCode::CommitInvalid);
}

#[tokio::test]
async fn group_info_and_welcome_must_be_those_of_the_commit() {
    let mut f = Fixture::new();
    let (mut alice, mut bob, carol, dave) = (f.device(1, 1), f.device(2, 2), f.device(3, 3), f.device(4, 4));
    f.conversation(7, &mut [&mut alice, &mut bob]).await;
    let other = alice.commit(&[dave.key_package()], &[]);
    alice.lost();
    let empty = alice.commit(&[], &[]);
    alice.lost();
    let good = alice.commit(&[carol.key_package()], &[]);
    let bobs = bob.commit(&[carol.key_package()], &[]);
    let info = |group_info: &CommitRequest| CommitRequest { group_info: group_info.group_info.clone(), ..good.clone() };
    let welcome = |welcome| CommitRequest { welcome, ..good.clone() };
    let mut forged = bytes_of(&good.group_info).to_vec();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    for (what, bad) in [
        ("another commit's group info", info(&other)),
        ("another member's group info", info(&bobs)),
        ("a forged group info", CommitRequest { group_info: inline(forged), ..good.clone() }),
        ("no group info", CommitRequest { group_info: inline(Bytes::from_static(b"x")), ..good.clone() }),
        ("no welcome", welcome(None)),
        ("a commit as welcome", welcome(good.commit.clone())),
    ] {
        let error = assert_refused(f.client.commit(by(alice.address, bad)).await, ErrorCode::CommitInvalid);
        assert!(!error.message.is_empty(), "{what}");
    }
    let of_another = welcome(other.welcome.clone());
    let for_nobody = CommitRequest { welcome: other.welcome, ..empty };
    for bad in [of_another, for_nobody] {
        let error = assert_refused(f.client.commit(by(alice.address, bad)).await, ErrorCode::CommitInvalid);
        assert!(error.message.contains("must be for exactly the key packages that the commit adds"), "{error:?}");
    }
    assert_eq!(f.commit(alice.address, good).await, Ok(2));
}

#[tokio::test]
async fn the_group_info_may_come_without_its_tree_but_not_with_another() {
    let mut f = Fixture::new();
    let (mut alice, mut bob) = (f.device(1, 1), f.device(2, 2));
    f.conversation(7, &mut [&mut alice, &mut bob]).await;
    let good = alice.commit(&[], &[]);
    let mut ahead = Device::new(1, 1);
    std::mem::swap(&mut ahead, &mut alice);
    ahead.won();
    let treeless = CommitRequest { group_info: inline(ahead.group_info(false)), ..good };
    assert_eq!(f.commit(ahead.address, treeless).await, Ok(2));
    let given = f.group_info(bob.address, &ahead.id()).await;
    let tree = ahead.group().export_ratchet_tree().tls_serialize_detached().expect("encodes");
    assert_eq!(bytes_of(&given.ratchet_tree), tree, "the service's tree is the members'");
}

/// A device of another account whose leaf has the key of a member: nobody could tell their signatures apart.
#[tokio::test]
async fn a_tree_with_one_key_twice_is_refused() {
    let mut f = Fixture::new();
    let (mut alice, mut bob) = (f.device(1, 1), f.device(2, 2));
    f.conversation(7, &mut [&mut alice, &mut bob]).await;
    let carol = f.device(3, 3);
    let honest = carol.key_package();
    let twin = Device { signer: bob.signer, ..Device::new(3, 3) };
    f.list_key(twin.address, twin.signer.public());
    let good = alice.commit(std::slice::from_ref(&honest), &[]);
    let (honest, twin) = (bytes_of_package(&honest), bytes_of_package(&twin.key_package()));
    assert_eq!(honest.len(), twin.len());
    // The library makes no such commit, so its maker puts the other key package into an honest one and signs it again.
    let mut commit = bytes_of(&good.commit).to_vec();
    let at = commit.windows(honest.len()).position(|w| w == honest).expect("in the commit");
    commit[at..at + twin.len()].copy_from_slice(&twin);
    sign_again(&alice, &mut commit);
    let request = CommitRequest { commit: inline(commit), ..good };
    let error = assert_refused(f.client.commit(by(alice.address, request)).await, ErrorCode::CommitInvalid);
    assert!(error.message.to_lowercase().contains("duplicate signature key"), "{}", error.message);
    assert!(error.message.contains("make it anew from the group's newest epoch"), "{}", error.message);
}

fn bytes_of_package(package: &openmls::prelude::KeyPackage) -> Vec<u8> {
    package.tls_serialize_detached().expect("encodes")
}
