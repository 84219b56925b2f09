// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a node is started with: cassandra.yaml, logging, and the command line that Java 17 needs for it.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use super::{CQL_PORT, Launch, RING_PORT};

/// Packages that Cassandra reaches into (its conf/jvm17-server.options).
const OPENED: &str = "java.base: java.lang java.lang.ref java.lang.reflect java.io java.math java.net java.nio \
    java.nio.charset java.nio.file.spi java.util java.util.concurrent java.util.concurrent.atomic jdk.internal.loader \
    jdk.internal.ref jdk.internal.reflect jdk.internal.math jdk.internal.module jdk.internal.util.jar sun.nio.ch \
    sun.nio.fs
jdk.management: com.sun.management.internal
jdk.management.jfr: jdk.management.jfr
java.desktop: com.sun.beans.introspect";
const EXPORTED: &str = "java.base: jdk.internal.misc jdk.internal.ref sun.nio.ch java.lang.ref java.util \
    jdk.internal.util
java.management.rmi: com.sun.jmx.remote.internal.rmi
java.rmi: sun.rmi.registry sun.rmi.server sun.rmi.transport.tcp
java.sql: java.sql
jdk.unsupported: sun.misc
jdk.compiler: com.sun.tools.javac.file
jdk.attach: sun.tools.attach";

/// `--add-opens module/package=ALL-UNNAMED …`
fn modules(flag: &str, list: &str) -> Vec<String> {
    let mut flags = Vec::new();
    for line in list.lines() {
        let Some((module, packages)) = line.split_once(": ") else { continue };
        for package in packages.split_whitespace() {
            flags.extend([flag.to_owned(), format!("{module}/{package}=ALL-UNNAMED")]);
        }
    }
    flags
}

fn yaml(launch: &Launch, folder: &Path, address: Ipv4Addr, seed: Ipv4Addr) -> String {
    let folder = folder.display();
    let mut yaml = format!(
        "cluster_name: pli-test
num_tokens: 4
allocate_tokens_for_local_replication_factor: {nodes}
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
endpoint_snitch: SimpleSnitch
seed_provider: [{{class_name: org.apache.cassandra.locator.SimpleSeedProvider, parameters: [{{seeds: \"{seed}\"}}]}}]
auto_bootstrap: false
auto_snapshot: false
listen_address: {address}
rpc_address: {address}
native_transport_port: {CQL_PORT}
storage_port: {RING_PORT}
data_file_directories: [{folder}/data]
commitlog_directory: {folder}/commitlog
hints_directory: {folder}/hints
saved_caches_directory: {folder}/saved
cdc_raw_directory: {folder}/cdc
commitlog_sync: group
commitlog_sync_group_window: 2ms
commitlog_disk_access_mode: legacy
commitlog_total_space: 512MiB
commitlog_segment_size: 32MiB
disk_access_mode: standard
memtable_heap_space: 64MiB
memtable_offheap_space: 64MiB
key_cache_size: 8MiB
row_cache_size: 0MiB
file_cache_size: 32MiB
networking_cache_size: 16MiB
concurrent_reads: 16
concurrent_writes: 128
concurrent_counter_writes: 2
concurrent_compactors: 1
native_transport_max_threads: 128
",
        nodes = launch.nodes
    );
    if launch.login {
        yaml += "authenticator: PasswordAuthenticator\nrole_manager: CassandraRoleManager\n";
    }
    if let Some(certificate) = &launch.certificate {
        let class = "org.apache.cassandra.security.PEMBasedSslContextFactory";
        yaml += &format!(
            "client_encryption_options:\n  enabled: true\n  optional: true\n  keystore: {}\n  \
             ssl_context_factory: {{class_name: {class}}}\n",
            certificate.display()
        );
    }
    yaml
}

fn logback(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "<configuration><appender name=\"F\" class=\"ch.qos.logback.core.FileAppender\"><file>{folder}/system.log</file>\
         <encoder><pattern>%-5level %date{{\"HH:mm:ss,SSS\"}} %F:%L %msg%n</pattern></encoder></appender>\
         <root level=\"INFO\"><appender-ref ref=\"F\"/></root></configuration>\n"
    )
}

/// Writes a node's files and answers its command line.
pub(super) fn write(launch: &Launch, folder: &Path, address: Ipv4Addr, seed: Ipv4Addr) -> io::Result<Vec<String>> {
    for name in ["data", "commitlog", "hints", "saved", "cdc"] {
        fs::create_dir_all(folder.join(name))?;
    }
    fs::write(folder.join("cassandra.yaml"), yaml(launch, folder, address, seed))?;
    fs::write(folder.join("logback.xml"), logback(folder))?;
    let jars = fs::canonicalize(&launch.jars)?;
    let agent = fs::read_dir(&jars)?.filter_map(Result::ok).map(|jar| jar.path());
    let is_agent = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("jamm-"));
    let agent = agent.into_iter().find(|path| is_agent(path)).ok_or(io::ErrorKind::NotFound)?;
    let shown = folder.display();
    let mut command = vec!["java".to_owned(), format!("-javaagent:{}", agent.display())];
    // Short lives: the first compiler is enough, and starts sooner.
    let flags = "-Xms384M -Xmx384M -Xss512k -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:MaxDirectMemorySize=256M \
        -Djdk.attach.allowAttachSelf=true -Dio.netty.tryReflectionSetAccessible=true -Dcassandra-foreground=yes \
        -Dcassandra.ring_delay_ms=2000 -Dcassandra.skip_wait_for_gossip_to_settle=0 \
        -Dcassandra.superuser_setup_delay_ms=0";
    command.extend(flags.split_whitespace().map(str::to_owned));
    command.extend([
        format!("-Dcassandra.config=file://{shown}/cassandra.yaml"),
        format!("-Dlogback.configurationFile=file://{shown}/logback.xml"),
        format!("-Dcassandra.storagedir={shown}"),
        format!("-Dcassandra.logdir={shown}"),
    ]);
    command.extend(modules("--add-opens", OPENED));
    command.extend(modules("--add-exports", EXPORTED));
    let classes = format!("{}/*", jars.display());
    command.extend(["-cp".to_owned(), classes, "org.apache.cassandra.service.CassandraDaemon".to_owned()]);
    Ok(command)
}
