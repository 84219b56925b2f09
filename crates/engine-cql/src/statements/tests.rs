// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table of statements against its rules, the schema, the page that lists it and the code that uses it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::*;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/STATEMENTS.md");
const HEAD: &str = "# Statements

Everything that the engine asks of the database after its start, by partition. `Read` and `Write` are LOCAL_QUORUM,
`SerialRead` is LOCAL_SERIAL, `Decide` and `DecideOnce` are compare-and-set (LWT). All but `DecideOnce` may be repeated.
A test writes this page anew where `PLI_WRITE_STATEMENTS` is set and compares it otherwise.

| statement | kind | partition | CQL |
| --- | --- | --- | --- |
";

/// Table -> columns of its partition key, as the schema says.
fn partition_keys() -> BTreeMap<String, Vec<String>> {
    let mut keys = BTreeMap::new();
    for (_, text) in crate::schema::FILES {
        for table in text.split("CREATE TABLE IF NOT EXISTS ").skip(1) {
            let name = table.split(['(', ' ']).next().unwrap_or_default().to_owned();
            let at = table.find("PRIMARY KEY").expect("a table has a primary key");
            let before = table[..at].rsplit(['(', ',']).next().unwrap_or_default().trim();
            let after = table[at + "PRIMARY KEY".len()..].trim_start();
            let columns = |text: &str| text.split(',').map(|column| column.trim().to_owned()).collect::<Vec<_>>();
            let key = match after.strip_prefix("((").or(after.strip_prefix('(')) {
                // `id blob PRIMARY KEY, …`
                _ if !before.is_empty() => columns(before.split(' ').next().unwrap_or_default()),
                Some(list) if after.starts_with("((") => columns(list.split(')').next().unwrap_or_default()),
                Some(list) => columns(list.split([',', ')']).next().unwrap_or_default()),
                None => Vec::new(),
            };
            keys.insert(name, key);
        }
    }
    keys
}

/// What breaks the rules.
fn violations(entry: &Entry) -> Vec<String> {
    let cql = entry.cql;
    let mut found = Vec::new();
    let mut refuse = |holds: bool, why: &str| {
        if holds {
            found.push(format!("{}: {why}: {cql}", entry.name));
        }
    };
    for word in ["ALLOW FILTERING", "counter", "BEGIN BATCH", "INDEX", "TOKEN("] {
        refuse(cql.to_lowercase().contains(&word.to_lowercase()), word);
    }
    let decides = matches!(entry.kind, Kind::Decide | Kind::DecideOnce);
    refuse(cql.contains(" IF ") != decides, "a condition and the kind do not agree");
    let reads = matches!(entry.kind, Kind::Read | Kind::SerialRead);
    refuse(cql.starts_with("SELECT") != reads, "a read and the kind do not agree");
    refuse(!cql.contains(&format!(" {}", entry.table)), "another table");
    let keys = partition_keys();
    refuse(keys.get(entry.table).is_none_or(|key| key != entry.key), "another partition key than the schema's");
    for part in cql.trim_start_matches("BEGIN UNLOGGED BATCH ").split("; ").filter(|part| *part != "APPLY BATCH") {
        for column in entry.key {
            let named = match part.strip_prefix("INSERT INTO ") {
                Some(insert) => insert.split(')').next().is_some_and(|columns| columns.contains(column)),
                None => part.split(" WHERE ").nth(1).is_some_and(|rest| rest.contains(&format!("{column} = ?"))),
            };
            refuse(!named, "no partition named");
        }
    }
    found
}

#[test]
fn every_statement_keeps_the_rules() {
    let found: Vec<String> = STATEMENTS.iter().flat_map(violations).collect();
    assert!(found.is_empty(), "{found:#?}");
    let once: Vec<&str> = STATEMENTS.iter().filter(|e| e.kind == Kind::DecideOnce).map(|e| e.name).collect();
    assert_eq!(once, ["PutMark"], "statements that must not be repeated");
}

#[test]
fn a_statement_that_breaks_a_rule_is_noticed() {
    let broken = |kind, cql| Entry { name: "Broken", kind, table: "device_queue", key: &["device_id"], cql };
    for (kind, cql) in [
        (Kind::Read, "SELECT pos FROM device_queue WHERE pos > ? ALLOW FILTERING"),
        (Kind::Read, "SELECT pos FROM device_queue WHERE pos > ?"),
        (Kind::Write, "UPDATE device_queue SET size = ? WHERE device_id = ? AND pos = ? IF size = null"),
        (Kind::Decide, "UPDATE device_queue SET size = ? WHERE device_id = ? AND pos = ?"),
        (Kind::Write, "INSERT INTO device_queue (pos, size) VALUES (?, ?)"),
        (Kind::Read, "SELECT seq FROM aside_entry WHERE device_id = ?"),
    ] {
        assert!(!violations(&broken(kind, cql)).is_empty(), "{cql}");
    }
}

#[test]
fn the_page_lists_every_statement() {
    let mut page = HEAD.to_owned();
    for Entry { name, kind, table, key, cql } in STATEMENTS {
        writeln!(page, "| {name} | {kind:?} | `{table}({})` | `{cql}` |", key.join(", ")).expect("into a string");
    }
    if std::env::var_os("PLI_WRITE_STATEMENTS").is_some() {
        std::fs::write(PAGE, &page).expect("the page can be written");
    }
    let found = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(found == page, "STATEMENTS.md is not what the code says; run this test with PLI_WRITE_STATEMENTS=1");
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

#[test]
fn statements_run_from_the_table_alone() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut used = String::new();
    for file in sources(&src) {
        let text = std::fs::read_to_string(&file).expect("a source file");
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // The start (schema) and the one place that prepares and runs (store).
        if !["schema.rs", "store.rs", "migrate.rs", "tests.rs"].contains(&name.as_str()) {
            for call in [".query_", ".prepare(", ".execute_", ".batch("] {
                assert!(!text.contains(call) || text.contains("self.store.batch("), "{name} calls {call}");
            }
        }
        if name != "statements.rs" {
            used += &text;
        }
    }
    let unused: Vec<&str> =
        STATEMENTS.iter().map(|e| e.name).filter(|name| !used.contains(&format!("Statement::{name}"))).collect();
    assert!(unused.is_empty(), "statements that nothing runs: {unused:?}");
}
