// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a client of the first version reads: frames by the contracts as they were then, whatever has been added since, and
//! what in them is not as it was.

use std::collections::BTreeMap;

use bytes::Bytes;
use pli_api::edge::{ClientFrame, client_frame};
use pli_fuzzing::{Happening, What};
use prost::Message;
use prost_reflect::prost_types::{FileDescriptorProto, FileDescriptorSet};
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, ReflectMessage, Value};

/// Fields that may differ, how, and why. Everything else must be as it was. What is drawn at random has no place here where
/// the drawing can be seeded.
const FREE: &[(&str, Free)] = &[
    // For developers, and not stable: clients go by the code.
    ("pli.common.v1.Error.message", Free::Any),
    // Which server it is.
    ("pli.edge.v1.ServerInfo.version", Free::Any),
    // Later servers speak later versions too.
    ("pli.edge.v1.ServerHello.versions", Free::More),
    ("pli.edge.v1.ServerInfo.protocol_versions", Free::More),
    // And accept further suites.
    ("pli.edge.v1.ServerInfo.cipher_suites", Free::More),
];

#[derive(Clone, Copy, PartialEq)]
enum Free {
    /// Whatever it is.
    Any,
    /// A list may have more than it had.
    More,
}

/// A part of a frame that means the same in whichever frame it comes.
struct Item {
    /// The kind, and where there is one the id by which a client knows what it is about.
    name: String,
    says: DynamicMessage,
}

/// See the module.
pub struct Reader {
    contracts: DescriptorPool,
}

impl Reader {
    /// By these contracts.
    pub fn new(contracts: &[(String, Bytes)]) -> Self {
        let file = |(_, bytes): &(String, Bytes)| FileDescriptorProto::decode(bytes.clone()).unwrap();
        let set = FileDescriptorSet { file: contracts.iter().map(file).collect() };
        Self { contracts: DescriptorPool::from_file_descriptor_set(set).unwrap() }
    }

    fn read(&self, message: &str, bytes: &[u8]) -> DynamicMessage {
        DynamicMessage::decode(self.contracts.get_message_by_name(message).unwrap(), bytes).unwrap()
    }

    /// Names of everything that a frame of a server tells. Pings tell nothing, nor does what that version does not know.
    pub fn names(&self, frame: &Bytes) -> Vec<String> {
        self.items(frame).into_iter().map(|item| item.name).collect()
    }

    fn items(&self, frame: &Bytes) -> Vec<Item> {
        let frame = self.read("pli.edge.v1.ServerFrame", frame);
        let Some((field, value)) = frame.fields().next() else { return Vec::new() };
        let says = value.as_message().unwrap();
        let each = |list: &str, id: &str, word: &str| {
            let items = says.get_field_by_name(list).unwrap().into_owned();
            let items = items.as_list().unwrap().iter().map(|item| item.as_message().unwrap().clone());
            items.map(|says| Item { name: format!("{word} {}", id_of(&says, id)), says }).collect()
        };
        let one = |name: String| vec![Item { name, says: says.clone() }];
        match field.name() {
            "ping" => Vec::new(),
            "send_results" => each("results", "send_id", "result"),
            "settled" => each("settled", "receipt", "settled"),
            name @ ("reply" | "pong") => one(format!("{name} {}", id_of(says, "id"))),
            name => one(name.to_owned()),
        }
    }

    /// What of `then` is not so in `now`, on the connection and by the names of things, and what is there beyond it.
    pub fn differences(&self, then: &[Happening], now: &[Happening]) -> Vec<String> {
        let connections = then.iter().map(|one| one.connection).max().map_or(0, |last| last + 1);
        (0..connections).flat_map(|n| self.on_connection(&of(then, n), &of(now, n), n)).collect()
    }

    fn on_connection(&self, then: &[&What], now: &[&What], connection: usize) -> Vec<String> {
        let (was, is) = (self.heard(then), self.heard(now));
        let mut found = Vec::new();
        for (name, was) in &was.by_name {
            let is = is.by_name.get(name).map_or(&[][..], Vec::as_slice);
            for (was, is) in was.iter().zip(is) {
                differ(name, was, is, &mut found);
                self.inside(name, &methods(then), (was, is), &mut found);
            }
            if is.len() < was.len() {
                found.push(format!("{name}: missing"));
            }
        }
        for (name, is) in &is.by_name {
            if is.len() > was.by_name.get(name).map_or(0, Vec::len) {
                found.push(format!("{name}: was not said then"));
            }
        }
        if was.order != is.order {
            found.push(format!("the order is {:?}, and was {:?}", is.order, was.order));
        }
        let hung_up = |whats: &[&What]| whats.contains(&&What::HungUp);
        if hung_up(then) != hung_up(now) {
            found.push(format!("hangs up: {}, and did: {}", hung_up(now), hung_up(then)));
        }
        found.into_iter().map(|found| format!("connection {connection}: {found}")).collect()
    }

    fn heard(&self, whats: &[&What]) -> Told {
        let mut told = Told::default();
        for what in whats {
            let What::Heard(frame) = what else { continue };
            for Item { name, says } in self.items(frame) {
                if ORDERED.contains(&name.as_str()) {
                    told.order.push(name.clone());
                }
                told.by_name.entry(name).or_default().push(says);
            }
        }
        told
    }

    /// Messages that a frame carries as bytes.
    fn inside(
        &self,
        name: &str,
        methods: &BTreeMap<String, String>,
        (was, is): (&DynamicMessage, &DynamicMessage),
        found: &mut Vec<String>,
    ) {
        let field = match name {
            "deliver" => "envelope",
            name if name.starts_with("reply ") => "body",
            _ => return,
        };
        // Where only one has it that is a difference of its own.
        if !was.has_field_by_name(field) || !is.has_field_by_name(field) {
            return;
        }
        let message = methods.get(name).map_or("pli.log.v1.Envelope".into(), |method| self.answer_of(method).unwrap());
        let read = |frame: &DynamicMessage| {
            let bytes = frame.get_field_by_name(field).unwrap().into_owned();
            self.read(&message, bytes.as_bytes().unwrap())
        };
        differ(&format!("{name}.{field}"), &read(was), &read(is), found);
    }

    /// The message that a method answers.
    fn answer_of(&self, path: &str) -> Option<String> {
        // A method that has no service in the contracts.
        if path == "/pli.edge.v1.Edge/Info" {
            return Some("pli.edge.v1.ServerInfo".into());
        }
        let (service, name) = path.trim_start_matches('/').split_once('/')?;
        let service = self.contracts.get_service_by_name(service)?;
        let method = service.methods().find(|method| method.name() == name)?;
        Some(method.output().full_name().to_owned())
    }
}

/// What comes in an order that means something.
const ORDERED: [&str; 6] = ["hello", "ready", "deliver", "gap", "go_away", "close"];

/// Everything that a client was told on a connection.
#[derive(Default)]
struct Told {
    by_name: BTreeMap<String, Vec<DynamicMessage>>,
    order: Vec<String>,
}

fn of(happenings: &[Happening], connection: usize) -> Vec<&What> {
    happenings.iter().filter(|one| one.connection == connection).map(|one| &one.what).collect()
}

/// Which method was called, by the name of the reply.
fn methods(whats: &[&What]) -> BTreeMap<String, String> {
    let call = |what: &&What| {
        let What::Said(frame) = what else { return None };
        match ClientFrame::decode(frame.clone()).ok()?.frame? {
            client_frame::Frame::Call(call) => Some((format!("reply {}", call.id), call.method)),
            _ => None,
        }
    };
    whats.iter().filter_map(call).collect()
}

fn id_of(message: &DynamicMessage, field: &str) -> String {
    match message.get_field_by_name(field).unwrap().as_ref() {
        Value::Bytes(bytes) => hex::encode(bytes),
        other => format!("{other}"),
    }
}

/// Every field of `was` that is not the same in `is`, by its path. Fields that these contracts do not have are passed over.
fn differ(path: &str, was: &DynamicMessage, is: &DynamicMessage, found: &mut Vec<String>) {
    for field in was.descriptor().fields() {
        let path = format!("{path}.{}", field.name());
        if field.supports_presence() && was.has_field(&field) != is.has_field(&field) {
            found.push(format!("{path}: is there: {}, and was: {}", is.has_field(&field), was.has_field(&field)));
            continue;
        }
        differ_in(&path, &field, (&was.get_field(&field), &is.get_field(&field)), found);
    }
}

fn differ_in(path: &str, field: &FieldDescriptor, (was, is): (&Value, &Value), found: &mut Vec<String>) {
    let free = FREE.iter().find(|(name, _)| *name == field.full_name()).map(|(_, free)| *free);
    match (was, is) {
        _ if free == Some(Free::Any) || is_carried(field) => {}
        (Value::List(was), Value::List(is)) if free == Some(Free::More) => {
            if !was.iter().all(|one| is.contains(one)) {
                found.push(format!("{path}: is {is:?}, and had {was:?}"));
            }
        }
        (Value::List(was), Value::List(is)) if was.len() == is.len() => {
            for (n, pair) in was.iter().zip(is).enumerate() {
                differ_in(&format!("{path}[{n}]"), field, pair, found);
            }
        }
        (Value::Message(was), Value::Message(is)) => differ(path, was, is, found),
        (was, is) if was == is => {}
        (was, is) => found.push(format!("{path}: is {is:?}, and was {was:?}")),
    }
}

/// Bytes that are a message of their own, which is compared as such.
fn is_carried(field: &FieldDescriptor) -> bool {
    ["pli.edge.v1.Reply.body", "pli.edge.v1.Deliver.envelope"].contains(&field.full_name())
}
