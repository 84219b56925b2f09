// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signed device lists.

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use pli_api::directory::{DeviceList, GetDeviceListsRequest, PutDeviceListRequest, RegisterRequest, SignedDeviceList};
use pli_api::{ErrorCode, device_bytes, error_of_status};
use pli_directory::Config;
use pli_domain::{DeviceId, ShardId};
use pli_runtime::limits::Rate;
use prost::Message;

use crate::fixture::{Person, assert_refused, by, directory, hash};

fn put(devices: SignedDeviceList) -> PutDeviceListRequest {
    PutDeviceListRequest { devices: Some(devices) }
}

/// Every way in which a first list can be wrong, by name.
fn bad_lists(alice: &Person) -> Vec<(&'static str, SignedDeviceList)> {
    let good = alice.list(1, vec![alice.entry()]);
    let changed = |change: &dyn Fn(&mut DeviceList)| {
        let mut list = good.clone();
        change(&mut list);
        alice.sign(&list)
    };
    let mut forged = alice.sign(&good);
    forged.signature = Bytes::from(forged.signature.iter().map(|b| b ^ 1).collect::<Vec<_>>());
    let mut other_bytes = alice.sign(&good);
    other_bytes.list = alice.list(1, vec![Person::new(1).entry()]).encode_to_vec().into();
    let mut second_account = good.encode_to_vec();
    second_account
        .extend(DeviceList { account: Bytes::from_static(&[9; 16]), ..DeviceList::default() }.encode_to_vec());
    let mut unknown_field = good.encode_to_vec();
    unknown_field.extend([0x78, 1]);
    let weak = Bytes::from_static(&[0; 32]);
    vec![
        ("forged signature", forged),
        ("signature over other bytes", other_bytes),
        (
            "signed by another key",
            SignedDeviceList { signature: Person::new(7).sign(&good).signature, list: good.encode_to_vec().into() },
        ),
        (
            "short signature",
            SignedDeviceList { signature: Bytes::from_static(&[1; 63]), list: good.encode_to_vec().into() },
        ),
        ("not a list", alice.sign_bytes(vec![0xff; 40])),
        ("a field twice", alice.sign_bytes(second_account)),
        ("an unknown field", alice.sign_bytes(unknown_field)),
        ("too many bytes", alice.sign_bytes(vec![0; 8_192])),
        ("a list before the first", changed(&|l| l.previous = Bytes::from_static(&[1; 32]))),
        ("version 0", changed(&|l| l.version = 0)),
        ("version 2 first", changed(&|l| l.version = 2)),
        ("no account", changed(&|l| l.account = Bytes::new())),
        ("no device", changed(&|l| l.devices.clear())),
        ("eleven devices", changed(&|l| l.devices = (1..=11).map(|n| Person::new(n).entry()).collect())),
        ("a device twice", changed(&|l| l.devices.push(l.devices[0].clone()))),
        (
            "two devices, one key",
            changed(&|l| {
                let mut twin = l.devices[0].clone();
                twin.device = Bytes::from_static(&[8; 16]);
                l.devices.push(twin);
            }),
        ),
        ("the identity key as a device key", changed(&|l| l.devices[0].key = l.identity_key.clone())),
        ("a weak device key", changed(&|l| l.devices[0].key = weak.clone())),
        ("a short device key", changed(&|l| l.devices[0].key.truncate(31))),
        ("a short device id", changed(&|l| l.devices[0].device.truncate(15))),
        (
            "the id of a fan-out queue",
            changed(&|l| l.devices[0].device = device_bytes(DeviceId::fan_out(ShardId::new(0)))),
        ),
        ("a long name", changed(&|l| l.devices[0].name = "x".repeat(65))),
        ("a name with a line break", changed(&|l| l.devices[0].name = "a\nb".into())),
    ]
}

#[tokio::test]
async fn a_list_that_is_not_exactly_right_never_registers() {
    let (_, mut client) = directory(Config::default());
    let alice = Person::new(1);
    for (what, devices) in bad_lists(&alice) {
        let request = RegisterRequest { handle: "alice".into(), devices: Some(devices), ..RegisterRequest::default() };
        let error = assert_refused(client.register(request).await, ErrorCode::DeviceListInvalid);
        assert!(!error.message.is_empty(), "{what}");
    }
    client.register(alice.registration("alice")).await.expect("nothing of that was stored");
}

#[tokio::test]
async fn lists_follow_each_other_by_version_under_one_identity_key() {
    let (_, mut client) = directory(Config::default());
    let alice = Person::new(1).register(&mut client, "alice").await;
    let tablet = Person::new(5).entry();
    let second = alice.after(&alice.first(), vec![alice.entry(), tablet.clone()]);
    client.put_device_list(by(alice.address, put(second.clone()))).await.expect("the next version");
    client.put_device_list(by(alice.address, put(second.clone()))).await.expect("the same again");

    let third = DeviceList { previous: hash(&second), ..alice.list(3, vec![alice.entry()]) };
    let at = |version, previous| alice.sign(&DeviceList { version, previous, ..third.clone() });
    for list in [alice.first(), at(2, hash(&second)), at(4, hash(&second)), at(3, hash(&alice.first()))] {
        let error =
            assert_refused(client.put_device_list(by(alice.address, put(list))).await, ErrorCode::DeviceListVersion);
        assert!(error.message.contains('2'), "{}", error.message);
    }
    for previous in [Bytes::new(), Bytes::from_static(&[1; 31])] {
        let list = at(3, previous);
        let error =
            assert_refused(client.put_device_list(by(alice.address, put(list))).await, ErrorCode::DeviceListInvalid);
        assert!(error.message.starts_with("previous"), "{}", error.message);
    }
    let accounts = vec![Bytes::copy_from_slice(alice.address.account.as_bytes())];
    let ask = GetDeviceListsRequest { accounts, known: Vec::new() };
    let answer = client.get_device_lists(ask).await.expect("answers").into_inner();
    let signed = answer.accounts[0].devices.clone().expect("has a list");
    assert_eq!(DeviceList::decode(signed.list).expect("decodes").version, 2);
}

#[tokio::test]
async fn a_list_by_another_key_or_for_another_account_is_refused() {
    let (_, mut client) = directory(Config::default());
    let alice = Person::new(1).register(&mut client, "alice").await;
    let bob = Person::new(2).register(&mut client, "bob").await;

    let mut thief = Person::new(1);
    thief.identity = SigningKey::from_bytes(&[66; 32]);
    let stolen = thief.after(&alice.first(), vec![thief.entry()]);
    assert_refused(client.put_device_list(by(alice.address, put(stolen))).await, ErrorCode::DeviceListInvalid);

    let hers = alice.after(&alice.first(), vec![alice.entry()]);
    assert_refused(client.put_device_list(by(bob.address, put(hers.clone()))).await, ErrorCode::DeviceListInvalid);
    assert_refused(client.put_device_list(put(hers)).await, ErrorCode::Anonymous);

    let mut changed = alice.entry();
    changed.key = Bytes::copy_from_slice(Person::new(1).device.public());
    let swapped = alice.after(&alice.first(), vec![changed]);
    let error =
        assert_refused(client.put_device_list(by(alice.address, put(swapped))).await, ErrorCode::DeviceListInvalid);
    assert!(error.message.contains("new device id"), "{}", error.message);
}

#[tokio::test]
async fn lists_are_given_for_accounts_that_exist_in_the_order_asked() {
    let (_, mut client) = directory(Config::default());
    for seed in 1..=3 {
        Person::new(seed).register(&mut client, &format!("name{seed}")).await;
    }
    let id = |n: u8| Bytes::copy_from_slice(&[n; 16]);
    let ask = |accounts: Vec<Bytes>| GetDeviceListsRequest { accounts, known: Vec::new() };
    let answer = client.get_device_lists(ask(vec![id(3), id(9), id(1)])).await.expect("answers").into_inner();
    let handles: Vec<_> = answer.accounts.iter().map(|a| a.handle.as_str()).collect();
    assert_eq!(handles, ["name3", "name1"]);

    assert_refused(client.get_device_lists(ask(vec![id(1); 251])).await, ErrorCode::BadRequest);
    assert_refused(client.get_device_lists(ask(vec![Bytes::from_static(b"short")])).await, ErrorCode::BadRequest);
}

#[tokio::test]
async fn lists_are_put_and_fetched_within_limits_of_the_account() {
    let (put_rate, fetch_rate) = (Rate::new(1, 1), Rate::new(3, 1));
    let config = Config { lists_put_per_account: put_rate, lists_fetched_per_account: fetch_rate, ..Config::default() };
    let (_, mut client) = directory(config);
    let alice = Person::new(1).register(&mut client, "alice").await;
    let second = alice.after(&alice.first(), vec![alice.entry()]);
    let third = alice.after(&second, vec![alice.entry()]);
    client.put_device_list(by(alice.address, put(second))).await.expect("within the limit");
    let error = assert_refused(client.put_device_list(by(alice.address, put(third))).await, ErrorCode::RateLimited);
    assert_eq!(error.limit, "lists_put_per_account");

    let ask = |count| GetDeviceListsRequest {
        accounts: vec![Bytes::copy_from_slice(alice.address.account.as_bytes()); count],
        known: Vec::new(),
    };
    client.get_device_lists(by(alice.address, ask(2))).await.expect("within the limit");
    let error = assert_refused(client.get_device_lists(by(alice.address, ask(2))).await, ErrorCode::RateLimited);
    assert_eq!(error.limit, "lists_fetched_per_account");
    client.get_device_lists(by(Person::new(2).address, ask(2))).await.expect("another account");
    client.get_device_lists(ask(250)).await.expect("a service is not limited");
}

#[tokio::test]
async fn a_list_that_names_the_device_of_another_account_says_what_to_do() {
    let (_, mut client) = directory(Config::default());
    let alice = Person::new(1).register(&mut client, "alice").await;
    let bob = Person::new(2).register(&mut client, "bob").await;
    let list = alice.after(&alice.first(), vec![alice.entry(), bob.entry()]);
    let error = assert_refused(client.put_device_list(by(alice.address, put(list))).await, ErrorCode::IdTaken);
    assert!(error.message.contains("draw a new random device id"), "{}", error.message);
}

#[tokio::test]
async fn an_answer_that_no_frame_holds_is_refused_to_clients_only() {
    let (_, mut client) = directory(Config::default());
    let alice = Person::new(1).register(&mut client, "alice").await;
    let others = (10..19).map(|n| Person::new(n).entry());
    let full = alice.after(&alice.first(), std::iter::once(alice.entry()).chain(others).collect());
    client.put_device_list(by(alice.address, put(full))).await.expect("ten devices");
    let accounts = vec![Bytes::copy_from_slice(alice.address.account.as_bytes()); 250];
    let ask = GetDeviceListsRequest { accounts, known: Vec::new() };
    client.get_device_lists(ask.clone()).await.expect("a service has no frames");
    assert_refused(client.get_device_lists(by(alice.address, ask)).await, ErrorCode::BadRequest);
}

#[tokio::test(start_paused = true)]
async fn what_is_newer_than_a_known_version_is_given_with_all_that_lies_between() {
    let (_, mut client) = directory(Config::default());
    let alice = Person::new(1).register(&mut client, "alice").await;
    let mut chain = vec![alice.first()];
    for seed in 5..9 {
        chain.push(alice.after(&chain[chain.len() - 1], vec![alice.entry(), Person::new(seed).entry()]));
        // Nobody owns a shard here: a removal is stored, and said to be unfinished.
        let put = client.put_device_list(by(alice.address, put(chain[chain.len() - 1].clone()))).await;
        assert!(put.is_ok() || error_of_status(&put.unwrap_err()).code() == ErrorCode::Temporary);
    }
    let account = Bytes::copy_from_slice(alice.address.account.as_bytes());
    let mut ask = async |known: Vec<u64>| {
        let ask = GetDeviceListsRequest { accounts: vec![account.clone()], known };
        client.get_device_lists(by(alice.address, ask)).await.map(|answer| answer.into_inner().accounts.remove(0))
    };
    for (known, newest, between) in
        [(0, true, 0..0), (1, true, 1..4), (3, true, 3..4), (4, true, 0..0), (5, false, 0..0), (9, true, 0..0)]
    {
        let found = ask(vec![known]).await.expect("answers");
        assert_eq!(found.devices, newest.then(|| chain[4].clone()), "the newest for who knows {known}");
        assert_eq!(found.between, chain[between].to_vec(), "what lies between for who knows {known}");
    }
    let error = assert_refused(ask(vec![1, 2]).await.map(tonic::Response::new), ErrorCode::BadRequest);
    assert!(error.message.contains("known"), "{}", error.message);
}
