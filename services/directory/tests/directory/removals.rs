// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices that a list leaves out.

use std::time::Duration;

use bytes::Bytes;
use pli_api::ErrorCode;
use pli_api::delivery::{
    EdgeSignal, NotReady, OwnerReply, OwnerRequest, Removed, edge_signal, owner_reply::Reply, owner_request,
};
use pli_api::directory::{
    ClaimKeyPackagesRequest, DeviceList, GetDeviceKeyRequest, PublishKeyPackagesRequest, PutDeviceListRequest,
};
use pli_directory::Config;
use pli_domain::{DeviceAddress, DeviceId, ShardId};
use pli_ports::{Accounts, DeviceListRecord, SignalEvent, Signals, Subject};
use pli_testkit::memory::MemoryWorld;
use prost::Message;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_util::sync::CancellationToken;

use crate::fixture::{Person, assert_refused, by, directory, hash, over, refused};

fn put(devices: pli_api::directory::SignedDeviceList) -> PutDeviceListRequest {
    PutDeviceListRequest { devices: Some(devices) }
}

/// An owner that is not ready `late` times, and then says that a queue is gone. Tells which.
async fn owner(world: &MemoryWorld, mut late: u32) -> UnboundedReceiver<DeviceId> {
    let mut asked = world.signals().subscribe(&Subject::owner(ShardId::new(0))).await.expect("subscribes");
    let (told, removals) = unbounded_channel();
    tokio::spawn(async move {
        while let Some(SignalEvent::Signal(signal)) = asked.next().await {
            let request = OwnerRequest::decode(signal.payload).expect("decodes").request;
            let Some(owner_request::Request::RemoveDevice(remove)) = request else { panic!("{request:?}") };
            let reply = if late > 0 {
                late -= 1;
                Reply::NotReady(NotReady { retry_after_ms: 10 })
            } else {
                let _ = told.send(remove.device.as_ref().try_into().expect("an id"));
                Reply::Removed(Removed {})
            };
            let answer = OwnerReply { reply: Some(reply) }.encode_to_vec().into();
            signal.respond.expect("is a request").respond(answer).await;
        }
    });
    removals
}

/// Every device that edges are told is removed.
async fn edges(world: &MemoryWorld) -> UnboundedReceiver<DeviceId> {
    let mut heard = world.signals().subscribe(&Subject::edges()).await.expect("subscribes");
    let (told, removals) = unbounded_channel();
    tokio::spawn(async move {
        while let Some(SignalEvent::Signal(signal)) = heard.next().await {
            if let Some(edge_signal::Signal::DeviceRemoved(removed)) =
                EdgeSignal::decode(signal.payload).expect("decodes").signal
            {
                let _ = told.send(removed.device.as_ref().try_into().expect("an id"));
            }
        }
    });
    removals
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_left_out_is_gone_everywhere_when_the_list_is_acknowledged() {
    let (world, mut client) = directory(Config::default());
    let (mut queues, mut sessions) = (owner(&world, 3).await, edges(&world).await);
    let alice = Person::new(1).register(&mut client, "alice").await;
    let tablet = Person::new(5);
    let second = alice.after(&alice.first(), vec![alice.entry(), tablet.entry()]);
    client.put_device_list(by(alice.address, put(second.clone()))).await.expect("two devices");
    let of = DeviceAddress { account: alice.address.account, device: tablet.address.device };
    let packages = PublishKeyPackagesRequest {
        key_packages: vec![tablet.package(openmls::prelude::KeyPackage::builder(), of)],
        last_resort: Bytes::new(),
    };
    client.publish_key_packages(by(of, packages.clone())).await.expect("is a device");

    let third = alice.after(&second, vec![alice.entry()]);
    client.put_device_list(by(alice.address, put(third.clone()))).await.expect("one is left");
    assert_eq!(queues.recv().await, Some(of.device));
    // The bus may lose a word: it is said for some seconds.
    for _ in 0..5 {
        assert_eq!(tokio::time::timeout(Duration::from_secs(2), sessions.recv()).await, Ok(Some(of.device)));
    }
    // The same again does the same again.
    client.put_device_list(by(alice.address, put(third))).await.expect("idempotent");
    assert_eq!(queues.recv().await, Some(of.device));

    let key = GetDeviceKeyRequest { device: Some(of.into()) };
    assert_refused(client.get_device_key(key).await, ErrorCode::DeviceRemoved);
    assert_refused(client.publish_key_packages(by(of, packages)).await, ErrorCode::DeviceRemoved);
    let claim = ClaimKeyPackagesRequest { devices: vec![of.into()] };
    assert_refused(client.claim_key_packages(by(alice.address, claim)).await, ErrorCode::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_removed_device_changes_no_list_and_never_comes_back() {
    let (world, mut client) = directory(Config::default());
    let _queues = owner(&world, 0).await;
    let alice = Person::new(1).register(&mut client, "alice").await;
    let tablet = Person::new(5);
    let of = DeviceAddress { account: alice.address.account, device: tablet.address.device };
    let second = alice.after(&alice.first(), vec![alice.entry(), tablet.entry()]);
    client.put_device_list(by(alice.address, put(second.clone()))).await.expect("two devices");
    let third = alice.after(&second, vec![alice.entry()]);
    client.put_device_list(by(of, put(third.clone()))).await.expect("it removes itself");
    let fourth = alice.after(&third, vec![alice.entry(), tablet.entry()]);
    let error = assert_refused(client.put_device_list(by(of, put(fourth.clone()))).await, ErrorCode::DeviceRemoved);
    assert!(error.message.contains("link it again as a new one"), "{}", error.message);
    let error = assert_refused(client.put_device_list(by(alice.address, put(fourth))).await, ErrorCode::IdTaken);
    assert!(error.message.contains("removed before"), "{}", error.message);
    let none = alice.after(&third, Vec::new());
    let error =
        assert_refused(client.put_device_list(by(alice.address, put(none))).await, ErrorCode::DeviceListInvalid);
    assert!(error.message.contains("sign a list that names another one first"), "{}", error.message);
    let eleven = (11..22).map(|seed| Person::new(seed).entry()).collect();
    let eleven = alice.after(&third, eleven);
    let error =
        assert_refused(client.put_device_list(by(alice.address, put(eleven))).await, ErrorCode::DeviceListInvalid);
    assert!(error.message.contains("remove one that is not used any more"), "{}", error.message);
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_no_owner_takes_is_stored_and_is_to_be_asked_again() {
    let (world, mut client) = directory(Config::default());
    let alice = Person::new(1).register(&mut client, "alice").await;
    let second = alice.after(&alice.first(), vec![alice.entry(), Person::new(5).entry()]);
    client.put_device_list(by(alice.address, put(second.clone()))).await.expect("two devices");
    let third = alice.after(&second, vec![alice.entry()]);
    let error =
        assert_refused(client.put_device_list(by(alice.address, put(third.clone()))).await, ErrorCode::Temporary);
    assert!(error.message.contains("stored"), "{}", error.message);
    // Whatever the caller does, it is gone on with.
    let mut queues = owner(&world, 0).await;
    assert_eq!(queues.recv().await, Some(Person::new(5).address.device));
    client.put_device_list(by(alice.address, put(third))).await.expect("finished now");
}

/// The store as a directory leaves it that dies when the list is stored, before anything else.
async fn died_after_the_list(world: &MemoryWorld, alice: &Person) -> DeviceId {
    let accounts = world.accounts();
    let gone = Person::new(5);
    let mut before = alice.first();
    for devices in [vec![alice.entry(), gone.entry()], vec![alice.entry()]] {
        let next = alice.after(&before, devices.clone());
        let devices = devices.iter().map(|entry| entry.device.as_ref().try_into().expect("an id")).collect();
        let version = DeviceList::decode(next.list.clone()).expect("decodes").version;
        let record = DeviceListRecord { version, signed: next.encode_to_vec().into(), devices };
        let previous = hash(&before).as_ref().try_into().expect("32 bytes");
        accounts.put_device_list(alice.address.account, previous, record).await.expect("follows");
        before = next;
    }
    gone.address.device
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_was_left_behind_is_carried_out_by_the_next_directory_and_then_forgotten() {
    let (world, mut client) = directory(Config::default());
    let alice = Person::new(1).register(&mut client, "alice").await;
    let gone = died_after_the_list(&world, &alice).await;
    let (mut queues, mut sessions) = (owner(&world, 0).await, edges(&world).await);
    // Two of them, which need not know of each other.
    let stop = CancellationToken::new();
    for _ in 0..2 {
        let (directory, stop) = (over(&world, Config::default()), stop.clone());
        tokio::spawn(async move { directory.run(stop).await });
    }
    let within = Duration::from_secs(5);
    assert_eq!(tokio::time::timeout(within, queues.recv()).await, Ok(Some(gone)), "its queue is deleted");
    assert_eq!(tokio::time::timeout(within, sessions.recv()).await, Ok(Some(gone)), "edges are told");
    let forgotten = async {
        while !world.accounts().removals(None, 9).await.expect("reads").is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), forgotten).await.expect("is called done");
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_owners_do_not_take_is_swept_until_one_does() {
    let (world, mut client) = directory(Config::default());
    let alice = Person::new(1).register(&mut client, "alice").await;
    let gone = died_after_the_list(&world, &alice).await;
    let stop = CancellationToken::new();
    let running = over(&world, Config::default());
    let sweeping = tokio::spawn({
        let stop = stop.clone();
        async move { running.run(stop).await }
    });
    // Nobody answers for some sweeps.
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(world.accounts().removals(None, 9).await.expect("reads").len(), 1, "is not forgotten");
    let mut queues = owner(&world, 0).await;
    assert_eq!(tokio::time::timeout(Duration::from_secs(120), queues.recv()).await, Ok(Some(gone)));
    stop.cancel();
    sweeping.await.expect("stops");
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_is_carried_out_is_over_in_the_store() {
    let (world, mut client) = directory(Config::default());
    let _queues = owner(&world, 0).await;
    let alice = Person::new(1).register(&mut client, "alice").await;
    let second = alice.after(&alice.first(), vec![alice.entry(), Person::new(5).entry()]);
    client.put_device_list(by(alice.address, put(second.clone()))).await.expect("two devices");
    client.put_device_list(by(alice.address, put(alice.after(&second, vec![alice.entry()])))).await.expect("one");
    // Edges are told for some seconds; a death until then is made good.
    assert_eq!(world.accounts().removals(None, 9).await.expect("reads").len(), 1, "edges are being told");
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(world.accounts().removals(None, 9).await.expect("reads"), []);
}

/// A hello that races the list which adds the device: it may come too early, it was never removed.
#[tokio::test(start_paused = true)]
async fn a_device_that_is_being_added_is_never_told_that_it_was_removed() {
    for turns in 0..24 {
        let (_world, client) = directory(Config::default());
        let (mut adding, mut asking) = (client.clone(), client);
        let alice = Person::new(1).register(&mut adding, "alice").await;
        let tablet = Person::new(5);
        let second = alice.after(&alice.first(), vec![alice.entry(), tablet.entry()]);
        let of = DeviceAddress { account: alice.address.account, device: tablet.address.device };
        let hello = tokio::spawn(async move {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            while let Err(status) = asking.get_device_key(GetDeviceKeyRequest { device: Some(of.into()) }).await {
                let code = refused::<()>(Err(status)).code();
                assert!(
                    matches!(code, ErrorCode::UnknownDevice | ErrorCode::Temporary),
                    "{code:?} after {turns} turns"
                );
            }
        });
        adding.put_device_list(by(alice.address, put(second))).await.expect("two devices");
        hello.await.expect("no refusal that a new device must not hear");
    }
}
