// SPDX-License-Identifier: MIT OR Apache-2.0
//! Both sides of a link, and who stands in between.

use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey};
use pli_api::directory::{DeviceListEntry, LookupResponse, SignedDeviceList};
use pli_domain::{DeviceId, UnixMillis};
use proptest::prelude::*;
use prost::Message as _;

use super::keys::{Keys, seal_to};
use super::wire::{LinkConsent, LinkHello, LinkOffer, LinkSealed, LinkVerdict};
use super::*;
use crate::identity::{DeviceListError, ListChange};
use crate::{Core, Table};

const HOST: &str = "127.0.0.1:7480";
const NOW: UnixMillis = UnixMillis(1_000_000);

pub(super) fn first_device(handle: &str, seed: u8) -> Core {
    let (mut core, _changes) = Core::create(handle.parse().expect("a handle"), [seed; 32], NOW);
    core.sign_next(None);
    core
}

pub(super) fn add(newcomer: &Newcomer) -> ListChange {
    add_of(newcomer.device(), newcomer.key(), newcomer.name())
}

fn add_of(device: DeviceId, key: [u8; 32], name: &str) -> ListChange {
    let (device, key) = (Bytes::copy_from_slice(device.as_bytes()), Bytes::copy_from_slice(&key));
    ListChange::Add(DeviceListEntry { device, key, name: name.into() })
}

pub(super) fn begin(seed: u8) -> NewDevice {
    NewDevice::begin(HOST, "laptop", [seed; 32]).expect("a name")
}

/// The code as a person carries it over.
pub(super) fn approver(core: &Core, new: &NewDevice) -> Approver {
    let code = new.code().to_string().parse().expect("a code");
    Approver::begin(code, core, &[HOST.into()]).expect("reads it")
}

/// Whoever carries the blobs: (number, blob).
type Carrier<'a> = &'a mut dyn FnMut(u32, Vec<u8>) -> Vec<u8>;

fn honest(_: u32, blob: Vec<u8>) -> Vec<u8> {
    blob
}

/// The whole link over a carrier. Answers the new device's core, or at which blob it ended, and why.
fn link(first: &mut Core, seed: u8, carry: Carrier<'_>) -> Result<Core, (u32, LinkError)> {
    let new = begin(seed);
    let at = |number: u32| move |error: LinkError| (number, error);
    let approver = approver(first, &new);
    let approving = approver.greeted(&carry(1, new.hello().to_vec()), [seed ^ 0x55; 32]).map_err(at(1))?;
    let joining = new.offered(&carry(2, approving.blob().to_vec())).map_err(at(2))?;
    let (mut core, _changes, consented) = joining.accept([seed ^ 0xaa; 32], NOW).map_err(at(3))?;
    let newcomer = approving.consented(&carry(3, consented.blob().to_vec()), first).map_err(at(3))?;
    let list = first.sign_next(Some(&add(&newcomer)));
    let (blob, told) = newcomer.listed(list);
    let listed = consented.listed(&carry(4, blob)).map_err(at(4))?;
    let _changes = core.linked(listed.list()).expect("follows the offered list");
    told.stored(&carry(5, listed.blob().to_vec())).map_err(at(5))?;
    Ok(core)
}

#[test]
fn a_new_device_comes_to_the_account_and_both_see_the_same_number() {
    let mut first = first_device("alice", 1);
    let new = begin(2);
    assert_eq!(new.code().host(), HOST);
    let approving = approver(&first, &new).greeted(new.hello(), [3; 32]).expect("greeted");
    assert_eq!(approving.name(), "laptop");
    let joining = new.offered(approving.blob()).expect("offered");
    assert_eq!((joining.handle().as_str(), joining.account()), ("alice", first.address().account));
    assert_eq!(joining.number(), approving.number());
    assert!(joining.number().len() == 6 && joining.number().bytes().all(|b| b.is_ascii_digit()));
    let laptop = link(&mut first, 4, &mut honest).expect("linked");
    assert_eq!(laptop.identity_key(), first.identity_key());
    assert!(!laptop.signs_lists(), "the identity key does not travel");
    let names = |core: &Core| core.devices().into_iter().map(|device| device.name).collect::<Vec<_>>();
    assert_eq!(names(&laptop), ["first device", "laptop"]);
    assert_eq!(names(&first), names(&laptop));
    assert!(laptop.devices().iter().any(|device| device.is_this && device.name == "laptop"));
}

#[test]
fn a_first_device_that_says_no_is_heard_whatever_the_other_person_says() {
    let first = first_device("alice", 1);
    for seed in [2, 3] {
        let new = begin(seed);
        let approving = approver(&first, &new).greeted(new.hello(), [4; 32]).expect("greeted");
        let joining = new.offered(approving.blob()).expect("offered");
        let (said, keys) = (joining.said(), joining.session_keys());
        let list = LinkVerdict { devices: first.own_signed_list(), refusal: 0 };
        let early = keys.seal(4, &mut said.clone(), &list.encode_to_vec());
        assert_eq!(joining.refused(&early), Err(LinkError::Malformed(4)), "before blob 3 nothing is listed");
        let no = approving.refused(Refusal::Declined);
        assert_eq!(joining.refused(&no), Ok(Refusal::Declined));
        assert_eq!(joining.refused(&no[1..]), Err(LinkError::Sealed(4)));
        // It crosses a yes.
        let (_, _, consented) = joining.accept([5; 32], NOW).expect("accepted");
        let (blob, error) = match seed {
            2 => (no, LinkError::Refused(Refusal::Declined)),
            _ => (early, LinkError::Sealed(4)),
        };
        assert_eq!(consented.listed(&blob).expect_err("no"), error);
    }
}

#[test]
fn a_first_device_hears_a_no_without_taking_it_up_and_knows_when_its_list_is_full() {
    let mut first = first_device("alice", 1);
    let new = begin(2);
    let approving = approver(&first, &new).greeted(new.hello(), [3; 32]).expect("greeted");
    let joining = new.offered(approving.blob()).expect("offered");
    let no = joining.decline();
    assert_eq!(approving.is_declined(&no), Ok(true));
    assert_eq!(approving.is_declined(&no[1..]), Err(LinkError::Sealed(3)));
    for n in 1..10 {
        assert_eq!(approver(&first, &begin(2)).refusal(), None, "{n} devices");
        let key = SigningKey::from_bytes(&[n; 32]).verifying_key().to_bytes();
        first.sign_next(Some(&add_of(DeviceId::from_bytes([n; 16]), key, "one more")));
    }
    assert_eq!(approver(&first, &begin(2)).refusal(), Some(Refusal::TooManyDevices));
}

#[test]
fn what_is_durable_before_blob_3_is_the_device_after_a_kill() {
    let mut first = first_device("alice", 1);
    let new = begin(2);
    let approving = approver(&first, &new).greeted(new.hello(), [3; 32]).expect("greeted");
    let joining = new.offered(approving.blob()).expect("offered");
    let (core, changes, consented) = joining.accept([4; 32], NOW).expect("accepted");
    let newcomer = approving.consented(consented.blob(), &first).expect("consented");
    first.sign_next(Some(&add(&newcomer)));
    let (address, key) = (core.address(), core.device_key());
    drop((core, consented));
    let rows = changes.0.into_iter().filter_map(|change| Some((change.table, change.key, change.value?)));
    let again = Core::load([9; 32], rows, NOW).expect("loads");
    assert_eq!((again.address(), again.device_key()), (address, key));
    assert!(again.is_registered() && !again.signs_lists());
    assert_eq!(again.devices().len(), 1, "it knows the list that was offered, and follows from there");
    assert!(first.devices().iter().any(|device| device.device == address.device));
}

#[test]
fn a_code_is_for_one_server_and_read_by_a_first_device() {
    let first = first_device("alice", 1);
    let new = begin(2);
    let other = Approver::begin(new.code().clone(), &first, &["chat.example".into()]).expect_err("another server");
    assert!(matches!(&other, LinkError::OtherHost { code, here } if code == HOST && here == "chat.example"), "{other}");
    let laptop = link(&mut first_device("alice", 1), 3, &mut honest).expect("linked");
    let companion = Approver::begin(new.code().clone(), &laptop, &[HOST.into()]);
    assert_eq!(companion.expect_err("a companion"), LinkError::NotTheFirst);
    let (unlisted, _changes) = Core::create("bob".parse().expect("a handle"), [5; 32], NOW);
    let unlisted = Approver::begin(new.code().clone(), &unlisted, &[HOST.into()]);
    assert_eq!(unlisted.expect_err("knows no list"), LinkError::NoListYet);
}

#[test]
fn names_that_could_not_be_shown_are_refused_on_both_sides() {
    for name in ["", "  ", "a\u{202e}b", "a\nb", &"n".repeat(65)] {
        assert!(NewDevice::begin(HOST, name, [1; 32]).is_err(), "{name:?}");
    }
    let first = first_device("alice", 1);
    let new = begin(2);
    // A new device that is not this program.
    for name in ["a\u{1b}[2J", "", " x", "x "] {
        let hello = LinkHello { ephemeral_key: Bytes::copy_from_slice(new.ephemeral_public()), name: name.into() };
        let mut transcript = super::keys::Transcript::of(new.code());
        let blob = Keys::of_code(&new.code().seed).seal(1, &mut transcript, &hello.encode_to_vec());
        let error = approver(&first, &new).greeted(&blob, [3; 32]).expect_err("refused");
        assert!(matches!(error, LinkError::Name(_) | LinkError::Malformed(1)), "{name:?}: {error}");
    }
}

#[test]
fn who_has_seen_the_code_cannot_put_another_key_in_its_place() {
    let first = first_device("alice", 1);
    let (new, thief) = (begin(2), begin(3));
    let hello = LinkHello { ephemeral_key: Bytes::copy_from_slice(thief.ephemeral_public()), name: "laptop".into() };
    let mut transcript = super::keys::Transcript::of(new.code());
    let blob = Keys::of_code(&new.code().seed).seal(1, &mut transcript, &hello.encode_to_vec());
    assert_eq!(approver(&first, &new).greeted(&blob, [3; 32]).expect_err("refused"), LinkError::OtherKey);
}

#[test]
fn who_has_seen_the_code_and_answers_first_shows_another_account_and_another_number() {
    let (alice, mallory) = (first_device("alice", 1), first_device("mallory", 2));
    let new = begin(3);
    let real = approver(&alice, &new).greeted(new.hello(), [4; 32]).expect("greeted");
    let thief = approver(&mallory, &new).greeted(new.hello(), [5; 32]).expect("greeted");
    let (real_number, real_blob) = (real.number(), real.blob().to_vec());
    let joining = new.offered(thief.blob()).expect("opens");
    assert_eq!(joining.handle().as_str(), "mallory");
    assert_ne!(joining.number(), real_number);
    // What the first device then gets is of another link.
    let (_, _, consented) = joining.accept([6; 32], NOW).expect("accepted");
    assert_eq!(real.consented(consented.blob(), &alice).expect_err("refused"), LinkError::Sealed(3));
    assert!(thief.consented(consented.blob(), &mallory).is_ok());
    drop(real_blob);
}

#[test]
fn who_answers_first_under_anothers_handle_is_found_out_by_whose_it_is_at_the_server() {
    let (alice, mut mallory) = (first_device("alice", 1), first_device("mallory", 2));
    mallory.call_itself("alice".parse().expect("a handle"));
    let found = |core: &Core| LookupResponse {
        account: Bytes::copy_from_slice(core.address().account.as_bytes()),
        handle: "alice".into(),
        devices: core.own_signed_list(),
    };
    // Everything in the link is right: the handle in it is bound to nothing.
    let laptop = link(&mut mallory, 3, &mut honest).expect("linked");
    assert_eq!(laptop.handle().as_str(), "alice");
    let forged = laptop.owns_handle(&found(&alice)).expect_err("alice is somebody else");
    assert_eq!(forged, LinkError::OtherOwner("alice".parse().expect("a handle")));
    // The account alone, with another key, is not it either.
    let swapped = LookupResponse { devices: mallory.own_signed_list(), ..found(&alice) };
    assert!(laptop.owns_handle(&swapped).is_err());
    let mut alice = alice;
    let laptop = link(&mut alice, 3, &mut honest).expect("linked");
    assert_eq!(laptop.owns_handle(&found(&alice)), Ok(()));
    let other_key = LookupResponse { devices: mallory.own_signed_list(), ..found(&alice) };
    assert!(laptop.owns_handle(&other_key).is_err());
    assert!(laptop.owns_handle(&LookupResponse::default()).is_err());
}

#[test]
fn an_offer_for_an_account_that_is_not_the_offerers_leads_nowhere() {
    let (alice, mallory) = (first_device("alice", 1), first_device("mallory", 2));
    let list = alice.own_signed_list().expect("listed");
    let offered = |offer: &LinkOffer| {
        let new = begin(3);
        let mut transcript = super::keys::Transcript::of(new.code());
        let keys = Keys::of_code(&new.code().seed);
        keys.open(1, &mut transcript, new.hello()).expect("has seen the code");
        let (kem_output, ciphertext) =
            seal_to(new.ephemeral_public(), &transcript, &offer.encode_to_vec()).expect("sealed");
        let sealed = LinkSealed { kem_output: kem_output.into(), ciphertext: ciphertext.into() };
        let blob = keys.seal(2, &mut transcript, &sealed.encode_to_vec());
        new.offered(&blob)
    };
    let offer = LinkOffer {
        account: Bytes::copy_from_slice(alice.address().account.as_bytes()),
        handle: "alice".into(),
        identity_key: Bytes::copy_from_slice(&alice.identity_key()),
        devices: Some(list.clone()),
        session_secret: Bytes::from_static(&[7; 32]),
        cipher_suite: 0,
    };
    // Everything in it is public; without alice's identity key no list will ever name the new device.
    assert!(offered(&offer).is_ok());
    let theirs = Bytes::copy_from_slice(&mallory.identity_key());
    let swapped = LinkOffer { identity_key: theirs, ..offer.clone() };
    assert_eq!(offered(&swapped).expect_err("refused"), LinkError::List(DeviceListError::IdentityKey));
    let forged = SignedDeviceList { signature: Bytes::from_static(&[1; 64]), ..list };
    let forged = LinkOffer { devices: Some(forged), ..offer.clone() };
    assert_eq!(offered(&forged).expect_err("refused"), LinkError::List(DeviceListError::Signature));
    for broken in [
        LinkOffer { account: Bytes::new(), ..offer.clone() },
        LinkOffer { handle: "a".into(), ..offer.clone() },
        LinkOffer { session_secret: Bytes::new(), ..offer.clone() },
        LinkOffer { cipher_suite: 2, ..offer.clone() },
        LinkOffer { devices: None, ..offer },
    ] {
        assert_eq!(offered(&broken).expect_err("refused"), LinkError::Malformed(2), "{broken:?}");
    }
}

/// Both sides after blob 2.
fn asked(first: &Core, seed: u8) -> (Joining, Approving) {
    let new = begin(seed);
    let approving = approver(first, &new).greeted(new.hello(), [seed ^ 0x55; 32]).expect("greeted");
    (new.offered(approving.blob()).expect("offered"), approving)
}

#[test]
fn a_consent_that_another_key_signed_or_that_is_of_another_link_is_refused() {
    let first = first_device("alice", 1);
    let forged = |change: &dyn Fn(&mut LinkConsent)| {
        let (joining, approving) = asked(&first, 2);
        let (mut said, keys) = (joining.said(), joining.session_keys());
        let (_, _, consented) = joining.accept([4; 32], NOW).expect("accepted");
        let plain = keys.open(3, &mut said.clone(), consented.blob()).expect("its own");
        let mut consent = LinkConsent::decode(plain.as_slice()).expect("a consent");
        change(&mut consent);
        let blob = keys.seal(3, &mut said, &consent.encode_to_vec());
        approving.consented(&blob, &first).map(|newcomer| newcomer.device())
    };
    assert!(forged(&|_| {}).is_ok());
    let thief = SigningKey::from_bytes(&[8; 32]);
    let thief_key = Bytes::copy_from_slice(&thief.verifying_key().to_bytes());
    assert_eq!(forged(&|c| c.key = thief_key.clone()), Err(LinkError::Signature));
    assert_eq!(forged(&|c| c.device = Bytes::from_static(&[3; 16])), Err(LinkError::Signature));
    assert_eq!(forged(&|c| c.last_resort = Bytes::from_static(b"none")), Err(LinkError::Signature));
    assert_eq!(forged(&|c| c.signature = Bytes::from_static(&[0; 64])), Err(LinkError::Signature));
    let by_thief = |c: &mut LinkConsent| c.signature = Bytes::copy_from_slice(&thief.sign(b"x").to_bytes());
    assert_eq!(forged(&by_thief), Err(LinkError::Signature));
    assert_eq!(forged(&|c| c.device = Bytes::new()), Err(LinkError::Malformed(3)));
    // One that is signed, with a package of another device: no group could take it in.
    let (joining, approving) = asked(&first, 2);
    let (mut said, keys) = (joining.said(), joining.session_keys());
    let (other, _, _) = asked(&first, 5).0.accept([6; 32], NOW).expect("accepted");
    let (core, _, _) = joining.accept([4; 32], NOW).expect("accepted");
    let package = other.last_resort().expect("made");
    let signed = super::new_device::consent_bytes(&said, core.address(), &core.device_key(), &package);
    let consent = LinkConsent {
        declined: false,
        device: Bytes::copy_from_slice(core.address().device.as_bytes()),
        key: Bytes::copy_from_slice(&core.device_key()),
        last_resort: package.into(),
        signature: Bytes::copy_from_slice(&core.sign_link(&signed)),
    };
    let blob = keys.seal(3, &mut said, &consent.encode_to_vec());
    assert_eq!(approving.consented(&blob, &first).expect_err("refused"), LinkError::KeyPackage);
    let told = LinkError::Signature.to_string();
    assert!(told.contains("does not verify; begin again with a new code"), "{told}");
}

#[test]
fn a_list_that_does_not_follow_or_does_not_name_the_device_is_refused() {
    let refused = |list: &dyn Fn(&mut Core, &Newcomer) -> SignedDeviceList| {
        let mut first = first_device("alice", 1);
        let (joining, approving) = asked(&first, 2);
        let (_, _, consented) = joining.accept([4; 32], NOW).expect("accepted");
        let newcomer = approving.consented(consented.blob(), &first).expect("consented");
        let list = list(&mut first, &newcomer);
        consented.listed(&newcomer.listed(list).0).map(|listed| listed.list().clone())
    };
    assert!(refused(&|first, new| first.sign_next(Some(&add(new)))).is_ok());
    // Two new devices at once: the list of the second one names both.
    assert!(
        refused(&|first, new| {
            first.sign_next(Some(&add_of(DeviceId::from_bytes([6; 16]), [6; 32], "tablet")));
            first.sign_next(Some(&add(new)))
        })
        .is_ok()
    );
    let same = refused(&|first, _| first.own_signed_list().expect("listed"));
    assert_eq!(same, Err(LinkError::List(DeviceListError::Version)), "the list of before");
    let key = SigningKey::from_bytes(&[6; 32]).verifying_key().to_bytes();
    let other = refused(&|first, _| first.sign_next(Some(&add_of(DeviceId::from_bytes([6; 16]), key, "tablet"))));
    assert_eq!(other, Err(LinkError::NotListed));
    let other_key = refused(&|first, new| first.sign_next(Some(&add_of(new.device(), key, "laptop"))));
    assert_eq!(other_key, Err(LinkError::NotListed));
    let forged = |first: &mut Core, new: &Newcomer| {
        let list = first.sign_next(Some(&add(new)));
        SignedDeviceList { signature: Bytes::from_static(&[1; 64]), ..list }
    };
    assert_eq!(refused(&forged), Err(LinkError::List(DeviceListError::Signature)));
}

#[test]
fn a_no_of_either_person_is_told_to_the_other() {
    let first = first_device("alice", 1);
    let (joining, approving) = asked(&first, 2);
    assert_eq!(approving.consented(&joining.decline(), &first).expect_err("no"), LinkError::Declined);
    for why in [Refusal::Declined, Refusal::TooManyDevices, Refusal::Failed, Refusal::NameTaken, Refusal::Ended] {
        let (joining, approving) = asked(&first, 2);
        let (_, _, consented) = joining.accept([4; 32], NOW).expect("accepted");
        let newcomer = approving.consented(consented.blob(), &first).expect("consented");
        let refused = consented.listed(&newcomer.refused(why)).expect_err("no");
        assert_eq!(refused, LinkError::Refused(why));
    }
    // What a later version says is a refusal too.
    let (joining, _) = asked(&first, 2);
    let (mut said, keys) = (joining.said(), joining.session_keys());
    let (_, _, consented) = joining.accept([4; 32], NOW).expect("accepted");
    keys.open(3, &mut said, consented.blob()).expect("its own");
    let verdict = LinkVerdict { devices: None, refusal: 99 };
    let blob = keys.seal(4, &mut said, &verdict.encode_to_vec());
    assert_eq!(consented.listed(&blob).expect_err("no"), LinkError::Refused(Refusal::Failed));
}

#[test]
fn no_blob_shows_what_is_in_it() {
    let mut first = first_device("alice", 1);
    let mut carried = Vec::new();
    let laptop = link(&mut first, 2, &mut |_, blob: Vec<u8>| {
        carried.push(blob.clone());
        blob
    });
    let laptop = laptop.expect("linked");
    let secrets = [
        b"alice".to_vec(),
        b"laptop".to_vec(),
        first.address().account.as_bytes().to_vec(),
        laptop.address().device.as_bytes().to_vec(),
        laptop.device_key().to_vec(),
        first.identity_key().to_vec(),
    ];
    assert_eq!(carried.len(), 5);
    for blob in &carried {
        assert!((1..=16 * 1024).contains(&blob.len()), "{} bytes", blob.len());
        for secret in &secrets {
            assert!(!blob.windows(secret.len()).any(|window| window == secret.as_slice()));
        }
    }
}

/// The blobs of one whole link.
fn recorded(first: &mut Core, seed: u8) -> Vec<Vec<u8>> {
    let mut carried = Vec::new();
    let linked = link(first, seed, &mut |_, blob: Vec<u8>| {
        carried.push(blob.clone());
        blob
    });
    linked.expect("linked");
    carried
}

#[test]
fn a_blob_of_another_link_or_of_another_step_opens_nowhere() {
    let before = recorded(&mut first_device("alice", 1), 2);
    for number in 1..=5u32 {
        for other in &before {
            // The same account, the same new device, another code.
            let mut first = first_device("alice", 1);
            let ended = link(&mut first, 3, &mut |n, blob| if n == number { other.clone() } else { blob });
            assert_eq!(ended.map(|_| ()).expect_err("refused"), (number, LinkError::Sealed(number)));
        }
        // What was said earlier in this one, said again.
        for again in 1..number {
            let (mut first, mut said) = (first_device("alice", 1), Vec::new());
            let ended = link(&mut first, 3, &mut |n, blob| {
                said.push(blob.clone());
                if n == number { said[again as usize - 1].clone() } else { blob }
            });
            assert_eq!(ended.map(|_| ()).expect_err("refused"), (number, LinkError::Sealed(number)));
        }
    }
    let told = LinkError::Sealed(1).to_string();
    assert!(told.contains("belongs to another link; begin again with a new code"), "{told}");
}

#[test]
fn the_rows_of_a_new_device_hold_no_identity_key() {
    let first = first_device("alice", 1);
    let (joining, _) = asked(&first, 2);
    let (_, changes, _) = joining.accept([4; 32], NOW).expect("accepted");
    let identity = changes.0.iter().find(|change| change.table == Table::Identity).and_then(|c| c.value.clone());
    let identity = crate::identity::Identity::decode(&identity.expect("a row")).expect("an identity");
    assert!(!identity.signs_lists() && identity.registered);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_blob_that_is_changed_anywhere_ends_the_link_there(number in 1u32..=5, at in any::<usize>(), bit in 0u8..8) {
        let mut first = first_device("alice", 1);
        let ended = link(&mut first, 2, &mut |n, mut blob| {
            if n == number {
                let at = at % blob.len();
                blob[at] ^= 1 << bit;
            }
            blob
        });
        prop_assert_eq!(ended.map(|_| ()).expect_err("refused"), (number, LinkError::Sealed(number)));
        prop_assert_eq!(first.devices().len(), if number < 4 { 1 } else { 2 });
    }

    #[test]
    fn a_blob_that_is_cut_or_grows_ends_the_link_there(number in 1u32..=5, cut in 1usize..40, grow in any::<bool>()) {
        let mut first = first_device("alice", 1);
        let ended = link(&mut first, 2, &mut |n, mut blob| {
            match n == number {
                true if grow => blob.extend(vec![0; cut]),
                true => blob.truncate(blob.len().saturating_sub(cut)),
                false => {}
            }
            blob
        });
        prop_assert_eq!(ended.map(|_| ()).expect_err("refused"), (number, LinkError::Sealed(number)));
    }

    #[test]
    fn any_bytes_are_refused(number in 1u32..=5, bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let mut first = first_device("alice", 1);
        let ended = link(&mut first, 2, &mut |n, blob| if n == number { bytes.clone() } else { blob });
        prop_assert_eq!(ended.map(|_| ()).expect_err("refused").0, number);
    }
}
