// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table below is the architecture: who may depend on whom. An edge that is missing from it fails, and so does a
//! row that no crate uses, so the table cannot drift from the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Every crate of the workspace with the crates of the workspace that its shipped code may use.
const ALLOWED: &[(&str, &[&str])] = &[
    ("pli-domain", &[]),
    ("pli-ports", &["pli-domain"]),
    ("pli-api", &["pli-domain"]),
    ("pli-runtime", &["pli-domain"]),
    ("pli-engine-embedded", &["pli-domain", "pli-ports"]),
    ("pli-engine-nats", &["pli-domain", "pli-ports"]),
    ("pli-engine-cql", &["pli-domain", "pli-ports"]),
    ("pli-testkit", &["pli-domain", "pli-ports"]),
    ("pli-edge", SERVICE),
    ("pli-delivery", SERVICE),
    ("pli-conversations", SERVICE),
    ("pli-directory", SERVICE),
    ("pli-links", SERVICE),
    ("pli-media", SERVICE),
    ("pli-client-core", &["pli-api", "pli-domain"]),
    ("pli-client", &["pli-api", "pli-client-core", "pli-domain"]),
    ("pli-client-wasm", &["pli-api", "pli-client-core", "pli-domain"]),
    (
        "pli",
        &[
            "pli-api",
            "pli-client",
            "pli-conversations",
            "pli-delivery",
            "pli-directory",
            "pli-domain",
            "pli-edge",
            "pli-engine-cql",
            "pli-engine-embedded",
            "pli-engine-nats",
            "pli-links",
            "pli-media",
            "pli-ports",
            "pli-runtime",
        ],
    ),
    (
        "pli-fuzzing",
        &[
            "pli-api",
            "pli-client",
            "pli-client-core",
            "pli-conversations",
            "pli-delivery",
            "pli-directory",
            "pli-domain",
            "pli-edge",
            "pli-engine-cql",
            "pli-engine-embedded",
            "pli-engine-nats",
            "pli-links",
            "pli-media",
            "pli-ports",
            "pli-runtime",
            "pli-testkit",
        ],
    ),
    (
        "pli-benches",
        &[
            "pli-api",
            "pli-client",
            "pli-client-core",
            "pli-delivery",
            "pli-domain",
            "pli-engine-embedded",
            "pli-ports",
            "pli-runtime",
            "pli-testkit",
        ],
    ),
];

/// A service sees the words, the seams, the contracts and the runtime: no engine and no other service.
const SERVICE: &[&str] = &["pli-api", "pli-domain", "pli-ports", "pli-runtime"];

/// Only tests may use it, of any crate, and the benches, which ship nothing.
const TESTS_ONLY: &str = "pli-testkit";

/// Crates that name a storage or bus driver: only engines and clients (their own profile file) may. And those that name a
/// carrier's library: the two ends of a session, and what measures them.
const DRIVERS: &[(&str, &[&str])] = &[
    ("rusqlite", &["pli-engine-embedded", "pli-client"]),
    ("async-nats", &["pli-engine-nats"]),
    ("scylla", &["pli-engine-cql"]),
    ("object_store", &["pli-media"]),
    ("quinn", &["pli-edge", "pli-client", "pli-benches"]),
    ("quinn-proto", &["pli-edge"]),
    ("tokio-tungstenite", &["pli-edge", "pli-client", "pli-benches"]),
];

type Edges = BTreeMap<String, BTreeSet<(String, String)>>;

fn metadata() -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

/// Crate -> (dependency, kind), kind being `normal`, `build` or `dev`.
fn edges() -> Edges {
    let text = |v: &serde_json::Value| v.as_str().expect("a string").to_owned();
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    let of = |package: &serde_json::Value| {
        let dependencies = package["dependencies"].as_array().expect("dependencies");
        dependencies.iter().map(|d| (text(&d["name"]), d["kind"].as_str().unwrap_or("normal").to_owned())).collect()
    };
    packages.iter().map(|p| (text(&p["name"]), of(p))).collect()
}

/// A program of somebody else's is built with what the page says.
#[test]
fn the_page_of_the_client_crate_says_what_it_needs() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    let client = packages.iter().find(|package| package["name"] == "pli-client").expect("there");
    let page = include_str!("../../../docs/client.md");
    let text = |field: &str| client[field].as_str().expect("a string").to_owned();
    let (rust, edition) = (text("rust_version"), text("edition"));
    assert!(page.contains(&format!("Rust {rust} (edition {edition})")), "Rust {rust}, edition {edition}");
    assert!(page.contains(&format!("git = \"{}\"", text("repository"))), "the repository");
    let features: Vec<&String> = client["features"].as_object().expect("features").keys().collect();
    assert_eq!(features, ["fuzzing"], "docs/client.md names every feature");
}

/// What breaks the table.
fn violations(edges: &Edges) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut found = Vec::new();
    for (package, dependencies) in edges {
        let Some(row) = allowed.get(package.as_str()) else {
            found.push(format!("{package} has no row in the table"));
            continue;
        };
        for (dependency, kind) in dependencies {
            let ours = edges.contains_key(dependency);
            let of_test = kind == "dev" && (dependency == TESTS_ONLY || package == "pli" || package == "pli-benches");
            if ours && !of_test && !row.contains(&dependency.as_str()) {
                found.push(format!("{package} -> {dependency} ({kind}) is not in the table"));
            }
            let driver = DRIVERS.iter().find(|(name, _)| name == dependency);
            if let Some((driver, users)) = driver
                && kind != "dev"
                && !users.contains(&package.as_str())
            {
                found.push(format!("{package} names the driver {driver}; only {users:?} may"));
            }
        }
    }
    found
}

#[test]
fn every_dependency_stands_in_the_table() {
    assert_eq!(violations(&edges()), Vec::<String>::new());
}

#[test]
fn every_row_is_a_crate() {
    let edges = edges();
    let rows: Vec<_> = ALLOWED.iter().filter(|(package, _)| !edges.contains_key(*package)).collect();
    assert!(rows.is_empty(), "rows without a crate: {rows:?}");
}

#[test]
fn a_forbidden_edge_is_noticed() {
    let mut edges = edges();
    let mut plant = |package: &str, dependency: &str| {
        edges.entry(package.into()).or_default().insert((dependency.into(), "normal".into()));
    };
    plant("pli-edge", "pli-delivery");
    plant("pli-domain", "pli-ports");
    plant("pli-delivery", "rusqlite");
    plant("pli-edge", "pli-testkit");
    plant("pli-delivery", "quinn");
    assert_eq!(violations(&edges).len(), 5, "{:?}", violations(&edges));
}
