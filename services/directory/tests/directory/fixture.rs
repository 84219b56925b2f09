// SPDX-License-Identifier: MIT OR Apache-2.0
//! A directory in this process, and people with keys.

use std::sync::Arc;

use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey};
use openmls::prelude::tls_codec::Serialize;
use openmls::prelude::{
    BasicCredential, Capabilities, Ciphersuite, CredentialWithKey, ExtensionType, KeyPackage, KeyPackageBuilder,
    Lifetime, MlsMessageOut, SignatureScheme,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use pli_api::common::Error;
use pli_api::directory::directory_client::DirectoryClient;
use pli_api::directory::directory_server::DirectoryServer;
use pli_api::directory::{DeviceList, DeviceListEntry, RegisterRequest, SignedDeviceList};
use pli_api::{Caller, Channel, ErrorCode, error_of_status, in_process};
use pli_directory::{Config, Directory, Ports};
use pli_domain::{AccountId, DeviceAddress, DeviceId, ShardMap, UnixMillis, transcript};
use pli_ports::{DeviceListRecord, NewAccount};
use pli_testkit::memory::{MemoryWorld, WorldOptions};
use pli_testkit::time::ManualClock;
use prost::Message;
use sha2::{Digest, Sha256};
use tonic::{Request, Response, Status};

pub const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

/// A directory over a fresh store, and a client of it.
pub fn directory(config: Config) -> (MemoryWorld, DirectoryClient<Channel>) {
    let world = MemoryWorld::new(WorldOptions::default());
    let service = over(&world, config);
    (world, DirectoryClient::new(in_process(DirectoryServer::new(service))))
}

/// Another directory over the same store.
pub fn over(world: &MemoryWorld, config: Config) -> Directory {
    let meter = opentelemetry::global::meter("test");
    let ports = Ports {
        accounts: Arc::new(world.accounts()),
        signals: Arc::new(world.signals()),
        clock: Arc::new(ManualClock::default()),
    };
    Directory::new(ports, shards(), config, &meter)
}

/// The cluster's map: one shard, so that one owner stands for all.
pub fn shards() -> ShardMap {
    ShardMap::new(1, [0; 16]).expect("a power of two")
}

/// What names a signed list as the one before another.
pub fn hash(signed: &SignedDeviceList) -> Bytes {
    Sha256::digest(signed.encode_to_vec()).to_vec().into()
}

/// A request by `caller`.
pub fn by<T>(caller: DeviceAddress, message: T) -> Request<T> {
    from(Caller { device: Some(caller), address: None }, message)
}

/// A request from `caller`, authenticated or not.
pub fn from<T>(caller: Caller, message: T) -> Request<T> {
    let mut request = Request::new(message);
    caller.put(request.metadata_mut());
    request
}

/// The refusal in a result that must be one.
pub fn refused<T>(result: Result<Response<T>, Status>) -> Error {
    match result {
        Ok(_) => panic!("was not refused"),
        Err(status) => error_of_status(&status),
    }
}

/// Asserts on the code of a refusal.
pub fn assert_refused<T>(result: Result<Response<T>, Status>, code: ErrorCode) -> Error {
    let error = refused(result);
    assert_eq!(error.code(), code, "{error:?}");
    assert_eq!(error.retry_after_ms > 0, code == ErrorCode::RateLimited || code == ErrorCode::Temporary, "{error:?}");
    error
}

/// Somebody with an identity key and one device, all derived from `seed`.
pub struct Person {
    pub address: DeviceAddress,
    pub identity: SigningKey,
    pub device: SignatureKeyPair,
}

impl Person {
    pub fn new(seed: u8) -> Self {
        let address =
            DeviceAddress { account: AccountId::from_bytes([seed; 16]), device: DeviceId::from_bytes([seed; 16]) };
        let device = SignatureKeyPair::new(SignatureScheme::ED25519).expect("random bytes");
        Self { address, identity: SigningKey::from_bytes(&[seed; 32]), device }
    }

    pub fn entry(&self) -> DeviceListEntry {
        DeviceListEntry {
            device: Bytes::copy_from_slice(self.address.device.as_bytes()),
            key: Bytes::copy_from_slice(self.device.public()),
            name: "phone".into(),
        }
    }

    pub fn list(&self, version: u64, devices: Vec<DeviceListEntry>) -> DeviceList {
        DeviceList {
            account: Bytes::copy_from_slice(self.address.account.as_bytes()),
            version,
            devices,
            identity_key: Bytes::copy_from_slice(self.identity.verifying_key().as_bytes()),
            previous: Bytes::new(),
        }
    }

    /// The list that `registration` carries.
    pub fn first(&self) -> SignedDeviceList {
        self.sign(&self.list(1, vec![self.entry()]))
    }

    /// The list that follows `before`.
    pub fn after(&self, before: &SignedDeviceList, devices: Vec<DeviceListEntry>) -> SignedDeviceList {
        let version = DeviceList::decode(before.list.clone()).expect("decodes").version + 1;
        self.sign(&DeviceList { previous: hash(before), ..self.list(version, devices) })
    }

    pub fn sign(&self, list: &DeviceList) -> SignedDeviceList {
        self.sign_bytes(list.encode_to_vec())
    }

    pub fn sign_bytes(&self, list: Vec<u8>) -> SignedDeviceList {
        let signature = self.identity.sign(&transcript::device_list(&list)).to_bytes();
        SignedDeviceList { signature: Bytes::copy_from_slice(&signature), list: list.into() }
    }

    pub fn registration(&self, handle: &str) -> RegisterRequest {
        let devices = Some(self.sign(&self.list(1, vec![self.entry()])));
        RegisterRequest { handle: handle.into(), devices, invite: String::new() }
    }

    /// As a store has it, whatever the directory would say to the handle.
    pub fn account(&self, handle: &str) -> NewAccount {
        let signed = self.sign(&self.list(1, vec![self.entry()])).encode_to_vec().into();
        NewAccount {
            account: self.address.account,
            handle: handle.parse().expect("readable"),
            identity_key: self.identity.verifying_key().to_bytes(),
            devices: DeviceListRecord { version: 1, signed, devices: vec![self.address.device] },
            created_at: UnixMillis(1),
        }
    }

    pub async fn register(self, client: &mut DirectoryClient<Channel>, handle: &str) -> Self {
        client.register(self.registration(handle)).await.expect("registers");
        self
    }

    pub fn key_package(&self) -> Bytes {
        self.package(KeyPackage::builder(), self.address)
    }

    pub fn last_resort(&self) -> Bytes {
        let capabilities = Capabilities::new(None, None, Some(&[ExtensionType::LastResort]), None, None);
        let builder = KeyPackage::builder().mark_as_last_resort().leaf_node_capabilities(capabilities);
        self.package(builder, self.address)
    }

    pub fn package(&self, builder: KeyPackageBuilder, named: DeviceAddress) -> Bytes {
        self.package_of_suite(SUITE, builder, named)
    }

    pub fn package_of_suite(&self, suite: Ciphersuite, builder: KeyPackageBuilder, named: DeviceAddress) -> Bytes {
        let identity = [named.account.as_bytes().as_slice(), named.device.as_bytes()].concat();
        let credential = CredentialWithKey {
            credential: BasicCredential::new(identity).into(),
            signature_key: self.device.public().into(),
        };
        let provider = OpenMlsRustCrypto::default();
        let bundle = builder.build(suite, &provider, &self.device, credential).expect("builds");
        let message = MlsMessageOut::from(bundle.key_package().clone());
        message.tls_serialize_detached().expect("encodes").into()
    }
}

/// A lifetime that is over.
pub fn expired() -> Lifetime {
    Lifetime::init(1, 2)
}
