// SPDX-License-Identifier: MIT OR Apache-2.0
//! The file: JSON, with a line for each thing that happened and for each row; bytes are in hex.

use std::collections::BTreeMap;

use bytes::Bytes;
use pli_client_core::Table;
use serde_json::Value;

use super::{NONCE, Session};
use crate::cluster::{EXPORTER, HOST};
use crate::line::{Happening, What};

const ABOUT: &str = "a session of the first version, see docs/protocol.md, \\\"Compatibility\\\": who said and heard what, \
    in the order of happening, and what bob's client had stored at the end. Frames, contracts (descriptors of protobuf), \
    keys and values are in hex";
const NOTE: &str = "Never recorded anew. Clients of this version are out there: where a test finds that a server answers \
    them otherwise, the server is mended.";

impl Session {
    /// As the file has it.
    pub fn write(&self) -> String {
        let contracts = self.contracts.iter();
        let contracts = contracts.map(|(file, bytes)| format!(r#"{{"file":"{file}","hex":"{}"}}"#, hex::encode(bytes)));
        let mut people = BTreeMap::new();
        let happened = self.happenings.iter().map(|one| line(one, &mut people));
        let rows = self.rows.iter().map(|((table, key), value)| {
            let (table, key, value) = (table.number(), hex::encode(key), hex::encode(value));
            format!(r#"{{"table":{table},"key":"{key}","value":"{value}"}}"#)
        });
        format!(
            "{{\n\"about\":\"{ABOUT}\",\n\"note\":\"{NOTE}\",\n\"host\":\"{HOST}\",\n\"nonce\":\"{}\",\n\
             \"exporter\":\"{}\",\n\"contracts\":[\n{}\n],\n\"session\":[\n{}\n],\n\"rows\":[\n{}\n]\n}}\n",
            hex::encode(NONCE),
            hex::encode(EXPORTER),
            contracts.collect::<Vec<_>>().join(",\n"),
            happened.collect::<Vec<_>>().join(",\n"),
            rows.collect::<Vec<_>>().join(",\n"),
        )
    }

    /// What the file says.
    ///
    /// # Panics
    /// When it is none of these files.
    pub fn read(text: &str) -> Self {
        let file: Value = serde_json::from_str(text).expect("the file is JSON");
        let lines = |part: &str| file[part].as_array().expect("a list").iter();
        let contract = |line: &Value| (word(&line["file"]).to_owned(), bytes(&line["hex"]));
        let row = |line: &Value| {
            let table = line["table"].as_u64().and_then(|n| u8::try_from(n).ok()).and_then(Table::from_number);
            let key = (table.expect("a table stays one"), bytes(&line["key"]).to_vec());
            (key, bytes(&line["value"]).to_vec())
        };
        Self {
            contracts: lines("contracts").map(contract).collect(),
            happenings: lines("session").map(happening).collect(),
            rows: lines("rows").map(row).collect(),
        }
    }
}

/// What happened, and to whom; people are known by the address from which they come.
fn line(one: &Happening, people: &mut BTreeMap<usize, &'static str>) -> String {
    if let What::Opened(address) = one.what {
        let name = super::story::NAMES.get(usize::from(address).wrapping_sub(1));
        people.insert(one.connection, name.copied().unwrap_or("nobody"));
    }
    let what = match &one.what {
        What::Opened(address) => format!(r#""opened":{address}"#),
        What::Said(frame) => format!(r#""said":"{}""#, hex::encode(frame)),
        What::Heard(frame) => format!(r#""heard":"{}""#, hex::encode(frame)),
        What::HungUp => r#""hung_up":true"#.into(),
        What::Left => r#""left":true"#.into(),
    };
    let who = people.get(&one.connection).copied().unwrap_or_default();
    format!(r#"{{"at_ms":{},"connection":{},"who":"{who}",{what}}}"#, one.at_ms, one.connection)
}

fn happening(line: &Value) -> Happening {
    let number = |name: &str| line[name].as_u64().expect("a number");
    let what = if line.get("opened").is_some() {
        What::Opened(u8::try_from(number("opened")).expect("a byte"))
    } else if let Some(frame) = line.get("said") {
        What::Said(bytes(frame))
    } else if let Some(frame) = line.get("heard") {
        What::Heard(bytes(frame))
    } else if line.get("hung_up").is_some() {
        What::HungUp
    } else {
        What::Left
    };
    let connection = usize::try_from(number("connection")).expect("a few connections");
    Happening { at_ms: number("at_ms"), connection, what }
}

fn word(value: &Value) -> &str {
    value.as_str().expect("a word")
}

fn bytes(value: &Value) -> Bytes {
    hex::decode(word(value)).expect("hex").into()
}
