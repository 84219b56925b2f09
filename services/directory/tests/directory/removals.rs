// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices that a list leaves out.

use std::time::Duration;

use bytes::Bytes;
use pli_api::ErrorCode;
use pli_api::delivery::{
    EdgeSignal, NotReady, OwnerReply, OwnerRequest, Removed, edge_signal, owner_reply::Reply, owner_request,
};
use pli_api::directory::{
    ClaimKeyPackagesRequest, GetDeviceKeyRequest, PublishKeyPackagesRequest, PutDeviceListRequest,
};
use pli_directory::Config;
use pli_domain::{DeviceAddress, DeviceId, ShardId};
use pli_ports::{SignalEvent, Signals, Subject};
use pli_testkit::memory::MemoryWorld;
use prost::Message;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::fixture::{Person, assert_refused, by, directory};

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
    assert!(error.message.contains("new device"), "{}", error.message);
    let error = assert_refused(client.put_device_list(by(alice.address, put(fourth))).await, ErrorCode::IdTaken);
    assert!(error.message.contains("removed before"), "{}", error.message);
    let none = alice.after(&third, Vec::new());
    let error =
        assert_refused(client.put_device_list(by(alice.address, put(none))).await, ErrorCode::DeviceListInvalid);
    assert!(error.message.contains("last one cannot be removed"), "{}", error.message);
    let eleven = (11..22).map(|seed| Person::new(seed).entry()).collect();
    let eleven = alice.after(&third, eleven);
    let error =
        assert_refused(client.put_device_list(by(alice.address, put(eleven))).await, ErrorCode::DeviceListInvalid);
    assert!(error.message.contains("remove one"), "{}", error.message);
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
