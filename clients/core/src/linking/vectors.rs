// SPDX-License-Identifier: MIT OR Apache-2.0
//! `proto/vectors/link_v1.json`: one whole link with every secret of it, for clients in any language.
//! `PLI_WRITE_VECTORS=1` records another one; HPKE and key packages are random, so it is read, not made again.

use std::path::PathBuf;

use prost::Message as _;
use serde_json::{Value, json};

use super::keys::{Keys, Transcript, open_sealed_to};
use super::tests::{add, approver, begin, first_device};
use super::wire::{LinkConsent, LinkHello, LinkOffer, LinkSealed, LinkStored, LinkVerdict};
use super::{LinkCode, new_device};
use crate::identity::verify_devices;
use pli_domain::{AccountId, DeviceAddress, UnixMillis};

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../proto/vectors/link_v1.json")
}

fn record() -> Value {
    let (mut first, new) = (first_device("alice", 1), begin(2));
    let (code, private, blob_1) = (new.code().clone(), new.ephemeral_private().to_vec(), new.hello().to_vec());
    let approving = approver(&first, &new).greeted(&blob_1, [3; 32]).expect("greeted");
    let (blob_2, number) = (approving.blob().to_vec(), approving.number());
    let joining = new.offered(&blob_2).expect("offered");
    let (_, _changes, consented) = joining.accept([4; 32], UnixMillis(1_000_000)).expect("accepted");
    let blob_3 = consented.blob().to_vec();
    let newcomer = approving.consented(&blob_3, &first).expect("consented");
    let list = first.sign_next(Some(&add(&newcomer)));
    let (blob_4, _told) = newcomer.listed(list);
    let blob_5 = consented.listed(&blob_4).expect("listed").blob().to_vec();
    let blobs = [blob_1, blob_2, blob_3, blob_4, blob_5].map(hex::encode);
    json!({
        "about": "one link of a companion device, see docs/protocol.md, \"Linking a device\": binary values in hex",
        "code": code.to_string(),
        "ephemeral_private_key": hex::encode(private),
        "blobs": blobs,
        "number": number,
    })
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().expect("text")).expect("hexadecimal")
}

/// What follows from the code, the private key and the blobs, by the rules of docs/protocol.md.
fn read(vector: &Value) -> Value {
    let code: LinkCode = vector["code"].as_str().expect("text").parse().expect("a code");
    let blob = |number: usize| bytes(&vector["blobs"][number - 1]);
    let of_code = Keys::of_code(&code.seed);
    let mut said = Transcript::of(&code);
    let start = said.0;
    let hello = of_code.open(1, &mut said, &blob(1)).expect("opens");
    let hello = LinkHello::decode(hello.as_slice()).expect("a hello");
    assert!(code.names(&hello.ephemeral_key));
    let after_1 = said.clone();
    let sealed = of_code.open(2, &mut said, &blob(2)).expect("opens");
    let sealed = LinkSealed::decode(sealed.as_slice()).expect("sealed");
    let private = bytes(&vector["ephemeral_private_key"]);
    let offer = open_sealed_to(&private, &after_1, (sealed.kem_output.to_vec(), sealed.ciphertext.to_vec()));
    let offer = LinkOffer::decode(offer.expect("opens").as_slice()).expect("an offer");
    let account = AccountId::try_from(offer.account.as_ref()).expect("an account");
    verify_devices(offer.devices.as_ref().expect("a list"), account, None).expect("signed");
    let keys = Keys::of_session(&said, &code.seed, &offer.session_secret);
    let after_2 = said.clone();
    let consent = keys.open(3, &mut said, &blob(3)).expect("opens");
    let consent = LinkConsent::decode(consent.as_slice()).expect("a consent");
    let device = DeviceAddress { account, device: consent.device.as_ref().try_into().expect("a device") };
    let key = consent.key.as_ref().try_into().expect("a key");
    let signed = new_device::consent_bytes(&after_2, device, &key, &consent.last_resort);
    let verifying = ed25519_dalek::VerifyingKey::from_bytes(&key).expect("a key");
    let signature = ed25519_dalek::Signature::from_slice(&consent.signature).expect("64 bytes");
    verifying.verify_strict(&signed, &signature).expect("verifies");
    let verdict = keys.open(4, &mut said, &blob(4)).expect("opens");
    let list = LinkVerdict::decode(verdict.as_slice()).expect("a verdict").devices.expect("a list");
    let list = verify_devices(&list, account, None).expect("signed");
    assert!(list.devices.contains(&(device.device, key)));
    let stored = keys.open(5, &mut said, &blob(5)).expect("opens");
    let stored = LinkStored::decode(stored.as_slice()).expect("stored");
    assert_eq!(stored.version, list.version);
    let rendezvous = code.rendezvous();
    json!({
        "host": code.host(),
        "seed": hex::encode(code.seed),
        "key_hash": hex::encode(code.key_hash),
        "rendezvous": hex::encode(rendezvous.id),
        "approver_secret": hex::encode(rendezvous.approver_secret),
        "key_1": hex::encode(of_code.derive::<32>("blob 1")),
        "transcript_0": hex::encode(start),
        "transcript_1": hex::encode(after_1.0),
        "transcript_2": hex::encode(after_2.0),
        "key_3": hex::encode(keys.derive::<32>("blob 3")),
        "ephemeral_key": hex::encode(&hello.ephemeral_key),
        "name": hello.name,
        "account": account.to_string(),
        "handle": offer.handle,
        "identity_key": hex::encode(&offer.identity_key),
        "session_secret": hex::encode(&offer.session_secret),
        "device": device.device.to_string(),
        "device_key": hex::encode(key),
        "signed": hex::encode(signed),
        "signature": hex::encode(&consent.signature),
        "version": stored.version,
        "number": keys.number(),
    })
}

#[test]
fn a_recorded_link_is_read_by_the_rules_and_says_the_same() {
    if std::env::var_os("PLI_WRITE_VECTORS").is_some() {
        let mut vector = record();
        vector["says"] = read(&vector);
        let text = serde_json::to_string_pretty(&vector).expect("JSON") + "\n";
        std::fs::write(path(), text).expect("written");
    }
    let text = std::fs::read_to_string(path()).expect("the vectors are in the tree");
    let vector: Value = serde_json::from_str(&text).expect("the vectors are JSON");
    let says = read(&vector);
    assert_eq!(says, vector["says"]);
    assert_eq!(says["number"], vector["number"], "both sides show it");
}
