// SPDX-License-Identifier: MIT OR Apache-2.0
//! Register, Lookup, GetDeviceKey.

use pli_api::directory::{GetDeviceKeyRequest, LookupRequest, RegisterRequest};
use pli_api::{Caller, ErrorCode};
use pli_directory::{Config, Registration};
use pli_domain::{DeviceAddress, DeviceId};
use pli_ports::Accounts;
use pli_runtime::limits::Rate;
use pli_testkit::memory::{FaultPlan, TableFaults};
use tonic::Request;

use crate::fixture::{Person, assert_refused, by, directory, from};

fn lookup(handle: &str) -> LookupRequest {
    LookupRequest { handle: handle.into() }
}

#[tokio::test]
async fn a_registered_account_is_found_by_its_exact_handle_only() {
    let (_, mut client) = directory(Config::default());
    let alice = Person::new(1);
    let registered = client.register(alice.registration("Alice.B")).await.expect("registers").into_inner();
    assert_eq!(registered.handle, "alice.b");
    let bob = Person::new(2).register(&mut client, "bob").await;

    let found = client.lookup(by(bob.address, lookup("ALICE.b"))).await.expect("found").into_inner();
    assert_eq!(found.account.as_ref(), alice.address.account.as_bytes());
    assert_eq!(found.devices, alice.registration("x").devices, "the bytes that were signed");
    for near in ["alice", "alice.bb", "alice_b"] {
        assert_refused(client.lookup(by(bob.address, lookup(near))).await, ErrorCode::NotFound);
    }
    assert_refused(client.lookup(lookup("alice.b")).await, ErrorCode::Anonymous);
}

#[tokio::test]
async fn handles_that_are_none_are_refused_with_the_reason() {
    let (_, mut client) = directory(Config::default());
    let alice = Person::new(1);
    let megabyte = "a".repeat(1 << 20);
    for handle in ["", "al", "a b c", "\u{202e}alice", "alice\u{0}", "älice", &megabyte, &"a".repeat(33)] {
        let error = assert_refused(client.register(alice.registration(handle)).await, ErrorCode::HandleMalformed);
        assert!(error.message.contains("use "), "names the fix: {}", error.message);
        assert_refused(client.lookup(by(alice.address, lookup(handle))).await, ErrorCode::HandleMalformed);
    }
}

#[tokio::test]
async fn nobody_claims_a_handle_with_a_separator_at_its_edge_or_two_in_a_row_but_those_who_have_one_keep_it() {
    let (world, mut client) = directory(Config::default());
    let (alice, bob) = (Person::new(1), Person::new(2).register(&mut client, "bob").await);
    for handle in ["bob.", ".bob", "....", "b..b", "b._b"] {
        let error = assert_refused(client.register(alice.registration(handle)).await, ErrorCode::HandleMalformed);
        assert!(error.message.contains("use a letter or digit"), "names the fix: {}", error.message);
        assert_refused(client.lookup(by(bob.address, lookup(handle))).await, ErrorCode::NotFound);
    }
    // From before the rule.
    let old = alice.account("bob.");
    world.accounts().create(old).await.expect("stored");
    client.register(alice.registration("bob.")).await.expect("asking again is answered as it was");
    let found = client.lookup(by(bob.address, lookup("bob."))).await.expect("found").into_inner();
    assert_eq!(found.account.as_ref(), alice.address.account.as_bytes());
    assert_refused(client.register(Person::new(3).registration("bob.")).await, ErrorCode::HandleMalformed);
}

#[tokio::test]
async fn a_handle_or_id_belongs_to_who_came_first_and_asking_again_is_harmless() {
    let (_, mut client) = directory(Config::default());
    let alice = Person::new(1).register(&mut client, "alice").await;
    client.register(alice.registration("alice")).await.expect("the same again");
    assert_refused(client.register(Person::new(2).registration("alice")).await, ErrorCode::HandleTaken);
    let mut impostor = Person::new(3);
    impostor.address.account = alice.address.account;
    assert_refused(client.register(impostor.registration("mallory")).await, ErrorCode::IdTaken);
}

#[tokio::test]
async fn a_registration_whose_outcome_is_unknown_is_temporary_and_may_be_repeated() {
    let (world, mut client) = directory(Config::default());
    let alice = Person::new(1);
    let tables = TableFaults { answer_lost: 1_000, ..TableFaults::default() };
    world.set_faults(FaultPlan { tables, ..FaultPlan::default() });
    assert_refused(client.register(alice.registration("alice")).await, ErrorCode::Temporary);
    world.set_faults(FaultPlan::default());
    client.register(alice.registration("alice")).await.expect("the same again");
}

#[tokio::test]
async fn registration_is_limited_by_address_and_closed_where_its_mode_is_not_built() {
    let config = Config { registrations_per_address: Rate::new(2, 1), ..Config::default() };
    let (_, mut client) = directory(config);
    let at = |n: u8| Caller { device: None, address: Some([10, 0, 0, n].into()) };
    let register =
        |seed: u8, from_address: u8| from(at(from_address), Person::new(seed).registration(&format!("name{seed}")));
    for seed in 1..=2 {
        client.register(register(seed, 1)).await.expect("within the limit");
    }
    let error = assert_refused(client.register(register(3, 1)).await, ErrorCode::RateLimited);
    assert_eq!(error.limit, "registrations_per_address");
    client.register(register(3, 2)).await.expect("another address");

    for registration in [Registration::Invite, Registration::Oidc] {
        let (_, mut client) = directory(Config { registration, ..Config::default() });
        let refused = client.register(Person::new(1).registration("alice")).await;
        assert_refused(refused, ErrorCode::RegistrationClosed);
    }
}

#[tokio::test]
async fn lookups_are_limited_by_account() {
    let (_, mut client) = directory(Config { lookups_per_account: Rate::new(2, 1), ..Config::default() });
    let (alice, bob) = (Person::new(1).address, Person::new(2).address);
    for _ in 0..2 {
        assert_refused(client.lookup(by(alice, lookup("nobody"))).await, ErrorCode::NotFound);
    }
    let error = assert_refused(client.lookup(by(alice, lookup("nobody"))).await, ErrorCode::RateLimited);
    assert_eq!(error.limit, "lookups_per_account");
    assert_refused(client.lookup(by(bob, lookup("nobody"))).await, ErrorCode::NotFound);
}

#[tokio::test]
async fn edges_get_device_keys_and_clients_do_not() {
    let (_, mut client) = directory(Config::default());
    let alice = Person::new(1).register(&mut client, "alice").await;
    let key_of = |device: DeviceAddress| GetDeviceKeyRequest { device: Some(device.into()) };
    let key = client.get_device_key(key_of(alice.address)).await.expect("known").into_inner();
    assert_eq!((key.key.as_ref(), key.key_packages), (alice.device.public(), 0));

    let other_device = DeviceAddress { device: DeviceId::from_bytes([9; 16]), ..alice.address };
    assert_refused(client.get_device_key(key_of(other_device)).await, ErrorCode::UnknownDevice);
    assert_refused(client.get_device_key(key_of(Person::new(2).address)).await, ErrorCode::UnknownDevice);
    assert_refused(client.get_device_key(by(alice.address, key_of(alice.address))).await, ErrorCode::UnknownMethod);
    assert_refused(client.get_device_key(GetDeviceKeyRequest::default()).await, ErrorCode::BadRequest);
}

#[tokio::test]
async fn a_registration_without_devices_is_refused() {
    let (_, mut client) = directory(Config::default());
    let request = RegisterRequest { handle: "alice".into(), ..RegisterRequest::default() };
    assert_refused(client.register(Request::new(request)).await, ErrorCode::DeviceListInvalid);
}
