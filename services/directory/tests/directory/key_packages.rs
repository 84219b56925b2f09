// SPDX-License-Identifier: MIT OR Apache-2.0
//! Publishing and claiming key packages.

use std::collections::BTreeSet;

use bytes::Bytes;
use openmls::prelude::{Ciphersuite, KeyPackage, Lifetime};
use pli_api::directory::directory_client::DirectoryClient;
use pli_api::directory::{ClaimKeyPackagesRequest, GetDeviceKeyRequest, PublishKeyPackagesRequest};
use pli_api::{Channel, ErrorCode};
use pli_directory::Config;
use pli_domain::{DeviceAddress, DeviceId};
use pli_ports::Accounts;
use pli_runtime::limits::Rate;
use pli_testkit::memory::{FaultPlan, TableFaults};

use crate::fixture::{Person, assert_refused, by, directory, expired};

fn publication(key_packages: Vec<Bytes>, last_resort: Bytes) -> PublishKeyPackagesRequest {
    PublishKeyPackagesRequest { key_packages, last_resort }
}

fn claim(devices: &[DeviceAddress]) -> ClaimKeyPackagesRequest {
    ClaimKeyPackagesRequest { devices: devices.iter().map(|&d| d.into()).collect() }
}

async fn stock(client: &mut DirectoryClient<Channel>, device: DeviceAddress) -> u32 {
    let request = GetDeviceKeyRequest { device: Some(device.into()) };
    client.get_device_key(request).await.expect("known").into_inner().key_packages
}

#[tokio::test]
async fn single_use_packages_go_out_once_then_the_last_resort_one_again_and_again() {
    let (_, mut client) = directory(Config::default());
    let alice = Person::new(1).register(&mut client, "alice").await;
    let bob = Person::new(2).register(&mut client, "bob").await;
    let singles = vec![alice.key_package(), alice.key_package()];
    let last = alice.last_resort();
    let published = client.publish_key_packages(by(alice.address, publication(singles.clone(), last.clone()))).await;
    assert_eq!(published.expect("valid").into_inner().stock, 2);
    assert_eq!(stock(&mut client, alice.address).await, 2);

    let mut got = Vec::new();
    for _ in 0..4 {
        let answer = client.claim_key_packages(by(bob.address, claim(&[alice.address]))).await.expect("in stock");
        let mut answer = answer.into_inner();
        assert_eq!(answer.key_packages.len(), 1);
        got.push(answer.key_packages.remove(0).key_package);
    }
    assert_eq!(got[..2].iter().collect::<BTreeSet<_>>(), singles.iter().collect());
    assert_eq!(got[2..], [last.clone(), last]);
    assert_eq!(stock(&mut client, alice.address).await, 0);
}

#[tokio::test]
async fn racing_claims_never_share_a_single_use_package() {
    let (_, mut client) = directory(Config::default());
    let alice = Person::new(1).register(&mut client, "alice").await;
    let singles: Vec<_> = (0..20).map(|_| alice.key_package()).collect();
    client.publish_key_packages(by(alice.address, publication(singles, Bytes::new()))).await.expect("valid");
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..30u8 {
        let (mut client, caller, wanted) = (client.clone(), Person::new(100 + n).address, alice.address);
        tasks.spawn(async move { client.claim_key_packages(by(caller, claim(&[wanted]))).await });
    }
    let answers = tasks.join_all().await;
    let got: Vec<_> = answers.iter().flatten().map(|a| a.get_ref().key_packages[0].key_package.clone()).collect();
    assert_eq!((got.len(), got.iter().collect::<BTreeSet<_>>().len()), (20, 20));
    for refused in answers.into_iter().filter(Result::is_err) {
        assert_refused(refused, ErrorCode::KeyPackagesExhausted);
    }
}

#[tokio::test]
async fn a_claim_that_cannot_be_met_whole_spends_nothing_and_names_who_is_out() {
    let (_, mut client) = directory(Config::default());
    let alice = Person::new(1).register(&mut client, "alice").await;
    let bob = Person::new(2).register(&mut client, "bob").await;
    client
        .publish_key_packages(by(alice.address, publication(vec![alice.key_package()], Bytes::new())))
        .await
        .expect("valid");
    let both = claim(&[alice.address, bob.address]);
    let error = assert_refused(client.claim_key_packages(by(bob.address, both)).await, ErrorCode::KeyPackagesExhausted);
    assert_eq!(error.missing, [bob.address.into()]);
    assert_eq!(stock(&mut client, alice.address).await, 1);

    let stranger = DeviceAddress { device: DeviceId::from_bytes([9; 16]), ..alice.address };
    let error =
        assert_refused(client.claim_key_packages(by(bob.address, claim(&[stranger]))).await, ErrorCode::NotFound);
    assert_eq!(error.missing, [stranger.into()]);
}

#[tokio::test]
async fn claims_are_bounded_and_limited_by_account() {
    let (_, mut client) = directory(Config { claims_per_account: Rate::new(2, 1), ..Config::default() });
    let alice = Person::new(1).register(&mut client, "alice").await;
    let last = publication(Vec::new(), alice.last_resort());
    client.publish_key_packages(by(alice.address, last)).await.expect("valid");
    let ask = |devices: &[DeviceAddress]| by(Person::new(2).address, claim(devices));
    assert_refused(client.claim_key_packages(ask(&[])).await, ErrorCode::BadRequest);
    assert_refused(client.claim_key_packages(ask(&[alice.address; 2])).await, ErrorCode::BadRequest);
    assert_refused(client.claim_key_packages(ask(&[alice.address; 65])).await, ErrorCode::BadRequest);
    assert_refused(client.claim_key_packages(claim(&[alice.address])).await, ErrorCode::Anonymous);
    for _ in 0..2 {
        client.claim_key_packages(ask(&[alice.address])).await.expect("within the limit");
    }
    let error = assert_refused(client.claim_key_packages(ask(&[alice.address])).await, ErrorCode::RateLimited);
    assert_eq!(error.limit, "claims_per_account");
}

#[tokio::test]
async fn one_stranger_cannot_empty_the_stock_of_somebody() {
    let (_, mut client) = directory(Config { claims_of_one_account: Rate::new(3, 1), ..Config::default() });
    let alice = Person::new(1).register(&mut client, "alice").await;
    let bob = Person::new(2).register(&mut client, "bob").await;
    for person in [&alice, &bob] {
        let singles = (0..6).map(|_| person.key_package()).collect();
        client.publish_key_packages(by(person.address, publication(singles, Bytes::new()))).await.expect("valid");
    }
    let stranger = Person::new(3).address;
    for _ in 0..3 {
        client.claim_key_packages(by(stranger, claim(&[alice.address]))).await.expect("within the limit");
    }
    let error =
        assert_refused(client.claim_key_packages(by(stranger, claim(&[alice.address]))).await, ErrorCode::RateLimited);
    assert_eq!(error.limit, "claims_of_one_account");
    let both = claim(&[bob.address, alice.address]);
    assert_refused(client.claim_key_packages(by(stranger, both)).await, ErrorCode::RateLimited);
    assert_eq!((stock(&mut client, alice.address).await, stock(&mut client, bob.address).await), (3, 6));
    client.claim_key_packages(by(stranger, claim(&[bob.address]))).await.expect("somebody else's");
    client.claim_key_packages(by(bob.address, claim(&[alice.address]))).await.expect("somebody else's claim");
}

#[tokio::test]
async fn claims_of_ones_own_devices_and_claims_that_are_refused_count_for_nobody() {
    let (_, mut client) = directory(Config { claims_of_one_account: Rate::new(2, 1), ..Config::default() });
    let alice = Person::new(1).register(&mut client, "alice").await;
    let bob = Person::new(2).register(&mut client, "bob").await;
    // Nothing is there yet: whoever asks again when there is must not have used up its turns.
    for _ in 0..4 {
        let claim = claim(&[bob.address]);
        assert_refused(client.claim_key_packages(by(alice.address, claim)).await, ErrorCode::KeyPackagesExhausted);
    }
    for person in [&alice, &bob] {
        let singles = (0..6).map(|_| person.key_package()).collect();
        client.publish_key_packages(by(person.address, publication(singles, Bytes::new()))).await.expect("valid");
    }
    for _ in 0..5 {
        client.claim_key_packages(by(alice.address, claim(&[alice.address]))).await.expect("of its own account");
    }
    for _ in 0..2 {
        client.claim_key_packages(by(alice.address, claim(&[bob.address]))).await.expect("within the limit");
    }
    let error = assert_refused(
        client.claim_key_packages(by(alice.address, claim(&[bob.address]))).await,
        ErrorCode::RateLimited,
    );
    assert_eq!(error.limit, "claims_of_one_account");
}

/// Every way in which a key package can be wrong, by name.
fn bad_packages(alice: &Person, bob: &Person) -> Vec<(&'static str, Bytes)> {
    let good = alice.key_package();
    let mut flipped = good.to_vec();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    let mut longer = good.to_vec();
    longer.push(0);
    let of = |builder, named| alice.package(builder, named);
    let other_device = DeviceAddress { device: DeviceId::from_bytes([9; 16]), ..alice.address };
    let chacha = Ciphersuite::MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519;
    let forever = Lifetime::init(1, u64::MAX / 2);
    vec![
        ("empty", Bytes::new()),
        ("garbage", Bytes::from_static(&[7; 100])),
        ("truncated", good.slice(..good.len() / 2)),
        ("trailing bytes", longer.into()),
        ("signature flipped", flipped.into()),
        ("another's", bob.key_package()),
        ("names another device", of(KeyPackage::builder(), other_device)),
        ("names another account", of(KeyPackage::builder(), bob.address)),
        ("expired", of(KeyPackage::builder().key_package_lifetime(expired()), alice.address)),
        (
            "lives for ever",
            alice.package_of_suite(chacha, KeyPackage::builder().key_package_lifetime(forever), alice.address),
        ),
        ("a last-resort one", alice.last_resort()),
    ]
}

#[tokio::test]
async fn only_packages_that_a_peer_would_accept_are_published_all_or_none() {
    let (_, mut client) = directory(Config::default());
    let alice = Person::new(1).register(&mut client, "alice").await;
    let bob = Person::new(2).register(&mut client, "bob").await;
    for (what, bad) in bad_packages(&alice, &bob) {
        let request = publication(vec![alice.key_package(), bad], Bytes::new());
        let error =
            assert_refused(client.publish_key_packages(by(alice.address, request)).await, ErrorCode::BadRequest);
        assert!(error.message.contains("key_packages[1]: "), "{what}: {}", error.message);
    }
    let not_last = publication(Vec::new(), alice.key_package());
    assert_refused(client.publish_key_packages(by(alice.address, not_last)).await, ErrorCode::BadRequest);
    let large = publication(vec![Bytes::from(vec![0; 4_097])], Bytes::new());
    assert_refused(client.publish_key_packages(by(alice.address, large)).await, ErrorCode::BadRequest);
    let many = publication(vec![Bytes::new(); 101], Bytes::new());
    assert_refused(client.publish_key_packages(by(alice.address, many)).await, ErrorCode::BadRequest);
    assert_eq!(stock(&mut client, alice.address).await, 0);

    let chacha = Ciphersuite::MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519;
    let other_suite = alice.package_of_suite(chacha, KeyPackage::builder(), alice.address);
    let request = publication(vec![other_suite], Bytes::new());
    client.publish_key_packages(by(alice.address, request)).await.expect("the other allowed suite");
}

#[tokio::test]
async fn packages_of_the_suite_against_quantum_computers_are_taken_where_the_server_is_set_to() {
    let suite = Ciphersuite::MLS_128_MLKEM768X25519_AES128GCM_SHA256_Ed25519;
    let (_, mut client) = directory(Config::default());
    let alice = Person::new(1).register(&mut client, "alice").await;
    let package = || alice.package_of_suite(suite, KeyPackage::builder(), alice.address);
    let request = publication(vec![package()], Bytes::new());
    let error = assert_refused(client.publish_key_packages(by(alice.address, request)).await, ErrorCode::SuiteNotTaken);
    assert!(error.message.contains("directory.post_quantum"), "{}", error.message);

    let (_, mut client) = directory(Config { post_quantum: true, ..Config::default() });
    let alice = Person::new(1).register(&mut client, "alice").await;
    let package = alice.package_of_suite(suite, KeyPackage::builder(), alice.address);
    assert!(package.len() < 4 * 1024, "{} bytes", package.len());
    let request = publication(vec![package, alice.key_package()], Bytes::new());
    client.publish_key_packages(by(alice.address, request)).await.expect("taken");
    assert_eq!(stock(&mut client, alice.address).await, 2);
}

#[tokio::test]
async fn a_device_that_no_list_names_publishes_nothing() {
    let (_, mut client) = directory(Config::default());
    let alice = Person::new(1);
    let request = publication(vec![alice.key_package()], Bytes::new());
    assert_refused(client.publish_key_packages(by(alice.address, request.clone())).await, ErrorCode::UnknownDevice);
    assert_refused(client.publish_key_packages(request).await, ErrorCode::Anonymous);
}

#[tokio::test]
async fn packages_that_expired_in_stock_are_thrown_away_not_handed_out() {
    let (world, mut client) = directory(Config::default());
    let alice = Person::new(1).register(&mut client, "alice").await;
    let old = |n: u64| {
        let builder = KeyPackage::builder().key_package_lifetime(Lifetime::init(1, 2 + n));
        alice.package(builder, alice.address)
    };
    let fresh = alice.key_package();
    let stored = vec![old(0), old(1), fresh.clone()];
    world.accounts().put_key_packages(alice.address.device, stored, None).await.expect("stores");
    let ask = || by(Person::new(2).address, claim(&[alice.address]));
    let answer = client.claim_key_packages(ask()).await.expect("one is fresh").into_inner();
    assert_eq!(answer.key_packages[0].key_package, fresh);
    assert_refused(client.claim_key_packages(ask()).await, ErrorCode::KeyPackagesExhausted);
}

/// It is never taken away, and says for nobody that the device can be added.
#[tokio::test]
async fn a_last_resort_package_that_expired_counts_as_none() {
    let (world, mut client) = directory(Config::default());
    let alice = Person::new(1).register(&mut client, "alice").await;
    let bob = Person::new(2).register(&mut client, "bob").await;
    let old = bob.package(KeyPackage::builder().key_package_lifetime(expired()), bob.address);
    world.accounts().put_key_packages(bob.address.device, Vec::new(), Some(old)).await.expect("stores");
    let fresh = vec![alice.key_package()];
    world.accounts().put_key_packages(alice.address.device, fresh, None).await.expect("stores");
    let request = GetDeviceKeyRequest { device: Some(bob.address.into()) };
    let answer = client.get_device_key(request).await.expect("known").into_inner();
    assert_eq!((answer.key_packages, answer.last_resort), (0, false));
    let ask = by(Person::new(3).address, claim(&[alice.address, bob.address]));
    let error = assert_refused(client.claim_key_packages(ask).await, ErrorCode::KeyPackagesExhausted);
    assert_eq!(error.missing, [bob.address.into()]);
    assert_eq!(stock(&mut client, alice.address).await, 1, "a refusal spends nothing");
}

/// Every hello asks for it: it costs no write, and a store without room keeps no device out.
#[tokio::test]
async fn who_asks_for_a_device_writes_nothing() {
    let (world, mut client) = directory(Config::default());
    let alice = Person::new(1).register(&mut client, "alice").await;
    let bob = Person::new(2).register(&mut client, "bob").await;
    let old = bob.package(KeyPackage::builder().key_package_lifetime(expired()), bob.address);
    for (person, package) in [(&alice, alice.last_resort()), (&bob, old)] {
        world.accounts().put_key_packages(person.address.device, Vec::new(), Some(package)).await.expect("stores");
    }
    let tables = TableFaults { lost: 1_000, ..TableFaults::default() };
    world.set_faults(FaultPlan { tables, ..FaultPlan::default() });
    for (person, last_resort) in [(&alice, true), (&bob, false)] {
        let request = GetDeviceKeyRequest { device: Some(person.address.into()) };
        let answer = client.get_device_key(request).await.expect("known").into_inner();
        assert_eq!((answer.key_packages, answer.last_resort), (0, last_resort));
    }
    world.set_faults(FaultPlan::default());
    // What is published between two looks is still there after them.
    let fresh = alice.key_package();
    client
        .publish_key_packages(by(alice.address, publication(vec![fresh.clone()], Bytes::new())))
        .await
        .expect("valid");
    assert_eq!(stock(&mut client, alice.address).await, 1);
    let answer = client.claim_key_packages(by(bob.address, claim(&[alice.address]))).await.expect("in stock");
    assert_eq!(answer.into_inner().key_packages[0].key_package, fresh);
}

#[tokio::test]
async fn a_package_that_was_taken_is_given_even_if_the_next_device_turns_out_to_have_none() {
    let (world, mut client) = directory(Config::default());
    let alice = Person::new(1).register(&mut client, "alice").await;
    let bob = Person::new(2).register(&mut client, "bob").await;
    let fresh = alice.key_package();
    let old = bob.package(KeyPackage::builder().key_package_lifetime(expired()), bob.address);
    for (person, package) in [(&alice, fresh.clone()), (&bob, old)] {
        world.accounts().put_key_packages(person.address.device, vec![package], None).await.expect("stores");
    }
    let ask = |devices: &[DeviceAddress]| by(Person::new(3).address, claim(devices));
    let answer = client.claim_key_packages(ask(&[alice.address, bob.address])).await.expect("the first is fresh");
    let given: Vec<_> = answer.into_inner().key_packages.into_iter().map(|taken| taken.key_package).collect();
    assert_eq!(given, [fresh]);
    let error = assert_refused(client.claim_key_packages(ask(&[bob.address])).await, ErrorCode::KeyPackagesExhausted);
    assert_eq!(error.missing, [bob.address.into()]);
}
