// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every statement that runs after the start. All are prepared from this table, name one partition, and may be
//! repeated, but for the one that is marked.

/// How a statement is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A read at LOCAL_QUORUM.
    Read,
    /// A read at LOCAL_SERIAL: it sees every decision that anybody was told.
    SerialRead,
    /// A write at LOCAL_QUORUM that may be repeated.
    Write,
    /// A compare-and-set (LWT) that may be repeated; after an unknown outcome a serial read tells who won.
    Decide,
    /// A compare-and-set that must not be repeated.
    DecideOnce,
}

/// One statement of the table.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// The table it touches.
    pub(crate) table: &'static str,
    /// The columns of that table's partition key, all of which it binds.
    pub(crate) key: &'static [&'static str],
    pub(crate) cql: &'static str,
}

macro_rules! statements {
    ($($name:ident: $kind:ident on $table:ident($($key:ident),+) = $cql:literal;)+) => {
        /// A statement of the table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Statement { $($name,)+ }

        /// The table, in the order of [`Statement`].
        pub(crate) const STATEMENTS: &[Entry] = &[$(Entry {
            name: stringify!($name),
            kind: Kind::$kind,
            table: stringify!($table),
            key: &[$(stringify!($key)),+],
            cql: $cql,
        },)+];
    };
}

statements! {
    PutRow: Write on device_queue(device_id) = "INSERT INTO device_queue (device_id, pos, expires_at, size, envelope) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?";
    ReadRows: Read on device_queue(device_id) = "SELECT removed, pos, expires_at, envelope FROM device_queue WHERE device_id = ? AND pos > ? AND pos <= ?";
    ReadSizes: Read on device_queue(device_id) = "SELECT removed, pos, expires_at, size FROM device_queue WHERE device_id = ? AND pos > ? ORDER BY pos DESC";
    TrimRows: Write on device_queue(device_id) = "DELETE FROM device_queue USING TIMESTAMP ? WHERE device_id = ? AND pos <= ?";
    RemoveRows: Write on device_queue(device_id) = "DELETE FROM device_queue USING TIMESTAMP ? WHERE device_id = ?";
    MarkRowsRemoved: Write on device_queue(device_id) = "UPDATE device_queue USING TIMESTAMP ? SET removed = true WHERE device_id = ?";

    RaiseCursor: Write on device_cursor(device_id) = "UPDATE device_cursor USING TIMESTAMP ? SET acked_pos = ? WHERE device_id = ?";
    RaiseFloor: Write on device_cursor(device_id) = "UPDATE device_cursor USING TIMESTAMP ? SET floor = ? WHERE device_id = ?";
    ReadRegisters: Read on device_cursor(device_id) = "SELECT acked_pos, floor, removed FROM device_cursor WHERE device_id = ?";
    RemoveRegisters: Write on device_cursor(device_id) = "DELETE FROM device_cursor USING TIMESTAMP ? WHERE device_id = ?";
    MarkRegistersRemoved: Write on device_cursor(device_id) = "UPDATE device_cursor USING TIMESTAMP ? SET removed = true WHERE device_id = ?";

    RaiseCheckpoint: Write on shard_state(shard) = "UPDATE shard_state USING TIMESTAMP ? SET checkpoint = ? WHERE shard = ?";
    ReadCheckpoint: Read on shard_state(shard) = "SELECT checkpoint FROM shard_state WHERE shard = ?";
    ReadShard: SerialRead on shard_state(shard) = "SELECT log_epoch, log_epoch_first, log_epoch_from, log_epoch_token, mark, taken_by FROM shard_state WHERE shard = ?";
    BeginFirstLogEpoch: Decide on shard_state(shard) = "UPDATE shard_state SET log_epoch = ?, log_epoch_first = ?, log_epoch_from = ?, log_epoch_token = ?, mark = null WHERE shard = ? IF log_epoch = null";
    BeginLogEpoch: Decide on shard_state(shard) = "UPDATE shard_state SET log_epoch = ?, log_epoch_first = ?, log_epoch_from = ?, log_epoch_token = ?, mark = null WHERE shard = ? IF log_epoch = ?";
    TakeMark: Decide on shard_state(shard) = "UPDATE shard_state SET mark = null, taken_by = ? WHERE shard = ? IF mark = ?";
    PutMark: DecideOnce on shard_state(shard) = "UPDATE shard_state SET mark = ? WHERE shard = ? IF log_epoch = ?";

    PutAside: Write on aside_entry(shard) = "INSERT INTO aside_entry (shard, seq, entry_id, bytes) VALUES (?, ?, ?, ?)";
    ReadAside: Read on aside_entry(shard) = "SELECT seq FROM aside_entry WHERE shard = ? LIMIT 2000";

    ReserveAccount: Decide on account(account_id) = "INSERT INTO account (account_id, handle, identity_key, created_at, reserved_at, attempt, live, list_version, list_signed, list_devices, list_gone) VALUES (?, ?, ?, ?, ?, ?, false, ?, ?, ?, 0x) IF NOT EXISTS";
    OpenAccount: Decide on account(account_id) = "UPDATE account SET live = true WHERE account_id = ? IF attempt = ? AND live = false";
    DropAccount: Decide on account(account_id) = "DELETE FROM account WHERE account_id = ? IF attempt = ? AND live = false";
    ReadAccount: Read on account(account_id) = "SELECT handle, identity_key, reserved_at, attempt, live, list_version, list_signed, list_devices, list_gone FROM account WHERE account_id = ?";
    ReadAccountDecided: SerialRead on account(account_id) = "SELECT handle, identity_key, reserved_at, attempt, live, list_version, list_signed, list_devices, list_gone FROM account WHERE account_id = ?";
    PutDeviceList: Decide on account(account_id) = "UPDATE account SET list_version = ?, list_signed = ?, list_devices = ?, list_gone = ? WHERE account_id = ? IF list_version = ? AND live = true";
    KeepList: Write on device_list(account_id) = "INSERT INTO device_list (account_id, version, signed, devices) VALUES (?, ?, ?, ?) USING TIMESTAMP 1";
    ReadLists: Read on device_list(account_id) = "SELECT version, signed, devices FROM device_list WHERE account_id = ? AND version > ? LIMIT ?";
    ReadListedDevices: Read on device_list(account_id) = "SELECT version, devices FROM device_list WHERE account_id = ?";
    ForgetLists: Write on device_list(account_id) = "DELETE FROM device_list USING TIMESTAMP 1 WHERE account_id = ? AND version <= ?";

    NoteRemoval: Write on device_removal(bucket) = "INSERT INTO device_removal (bucket, account_id, version, device_id) VALUES (?, ?, ?, ?) USING TTL ?";
    ReadRemovals: Read on device_removal(bucket) = "SELECT account_id, version, device_id FROM device_removal WHERE bucket = ? AND (account_id, version, device_id) > (?, ?, ?) LIMIT ?";
    ForgetRemoval: Write on device_removal(bucket) = "DELETE FROM device_removal WHERE bucket = ? AND account_id = ? AND version = ? AND device_id = ?";

    ClaimHandle: Decide on handle(handle) = "INSERT INTO handle (handle, account_id, attempt) VALUES (?, ?, ?) IF NOT EXISTS";
    TakeHandle: Decide on handle(handle) = "UPDATE handle SET account_id = ?, attempt = ? WHERE handle = ? IF attempt = ?";
    ReleaseHandle: Decide on handle(handle) = "DELETE FROM handle WHERE handle = ? IF attempt = ?";
    ReadHandle: Read on handle(handle) = "SELECT account_id, attempt FROM handle WHERE handle = ?";
    ReadHandleDecided: SerialRead on handle(handle) = "SELECT account_id, attempt FROM handle WHERE handle = ?";

    ClaimDevice: Decide on device_account(device_id) = "INSERT INTO device_account (device_id, account_id, attempt) VALUES (?, ?, ?) IF NOT EXISTS";
    TakeDevice: Decide on device_account(device_id) = "UPDATE device_account SET account_id = ?, attempt = ? WHERE device_id = ? IF attempt = ?";
    ReleaseDevice: Decide on device_account(device_id) = "DELETE FROM device_account WHERE device_id = ? IF attempt = ?";
    ReadDeviceDecided: SerialRead on device_account(device_id) = "SELECT account_id, attempt FROM device_account WHERE device_id = ?";

    PutPackage: Write on key_package(device_id) = "INSERT INTO key_package (device_id, digest, package) VALUES (?, ?, ?) USING TIMESTAMP 1";
    PutLastResort: Write on key_package(device_id) = "UPDATE key_package USING TIMESTAMP ? SET last_resort = ? WHERE device_id = ?";
    ReadDigests: Read on key_package(device_id) = "SELECT digest FROM key_package WHERE device_id = ? LIMIT 1000";
    ReadLastResort: Read on key_package(device_id) = "SELECT last_resort FROM key_package WHERE device_id = ? LIMIT 1";
    ReadPackage: Read on key_package(device_id) = "SELECT package FROM key_package WHERE device_id = ? AND digest = ?";
    SpendPackage: Decide on key_package(device_id) = "DELETE FROM key_package WHERE device_id = ? AND digest = ? IF EXISTS";
    RemovePackages: Write on key_package(device_id) = "DELETE FROM key_package USING TIMESTAMP ? WHERE device_id = ?";

    CreateConversation: Decide on conversation(conversation_id) = "BEGIN UNLOGGED BATCH UPDATE conversation SET created = ?, first = ?, first_attempt = ? WHERE conversation_id = ? IF created = null; INSERT INTO conversation (conversation_id, epoch, opened) VALUES (?, ?, true); APPLY BATCH";
    ReadCreatedDecided: SerialRead on conversation(conversation_id) = "SELECT created, first_attempt FROM conversation WHERE conversation_id = ? LIMIT 1";
    ReadHead: Read on conversation(conversation_id) = "SELECT epoch, opened, next, first, first_attempt FROM conversation WHERE conversation_id = ? ORDER BY epoch DESC LIMIT 2";
    ReadEpochs: Read on conversation(conversation_id) = "SELECT epoch, opened, next, first, first_attempt FROM conversation WHERE conversation_id = ? AND epoch >= ? AND epoch <= ?";
    ReadEpochsDecided: SerialRead on conversation(conversation_id) = "SELECT epoch, opened, next, first, first_attempt FROM conversation WHERE conversation_id = ? AND epoch >= ? AND epoch <= ?";
    DecideCommit: Decide on conversation(conversation_id) = "UPDATE conversation SET next = ? WHERE conversation_id = ? AND epoch = ? IF opened = true AND next = null";
    OpenEpoch: Write on conversation(conversation_id) = "UPDATE conversation USING TIMESTAMP 1 SET opened = true WHERE conversation_id = ? AND epoch = ?";

    PutEpoch: Write on conversation_epoch(conversation_id, epoch) = "INSERT INTO conversation_epoch (conversation_id, epoch, attempt, roster, state) VALUES (?, ?, ?, ?, ?)";
    PutIntent: Write on conversation_epoch(conversation_id, epoch) = "UPDATE conversation_epoch USING TTL ? SET committer = ?, payload = ?, kept_state = 0x, decided_at = ?, noted_at = ? WHERE conversation_id = ? AND epoch = ? AND attempt = ?";
    ReadRoster: Read on conversation_epoch(conversation_id, epoch) = "SELECT roster FROM conversation_epoch WHERE conversation_id = ? AND epoch = ? AND attempt = ?";
    ReadState: Read on conversation_epoch(conversation_id, epoch) = "SELECT state FROM conversation_epoch WHERE conversation_id = ? AND epoch = ? AND attempt = ?";
    ReadIntent: Read on conversation_epoch(conversation_id, epoch) = "SELECT roster, committer, payload, decided_at FROM conversation_epoch WHERE conversation_id = ? AND epoch = ? AND attempt = ?";
    ReadNotedAt: Read on conversation_epoch(conversation_id, epoch) = "SELECT noted_at FROM conversation_epoch WHERE conversation_id = ? AND epoch = ? AND attempt = ?";
    ForgetState: Write on conversation_epoch(conversation_id, epoch) = "DELETE state FROM conversation_epoch WHERE conversation_id = ? AND epoch = ? AND attempt = ?";
    ForgetEpoch: Write on conversation_epoch(conversation_id, epoch) = "DELETE FROM conversation_epoch WHERE conversation_id = ? AND epoch = ? AND attempt = ?";

    PutMember: Write on account_conversation(account_id) = "INSERT INTO account_conversation (account_id, conversation_id) VALUES (?, ?) USING TIMESTAMP ?";
    DropMember: Write on account_conversation(account_id) = "DELETE FROM account_conversation USING TIMESTAMP ? WHERE account_id = ? AND conversation_id = ?";
    ReadMembers: Read on account_conversation(account_id) = "SELECT conversation_id FROM account_conversation WHERE account_id = ? AND conversation_id > ? LIMIT ?";

    PutNote: Write on unfinished_commit(bucket) = "INSERT INTO unfinished_commit (bucket, noted_at, conversation_id, epoch, attempt, decided_at) VALUES (?, ?, ?, ?, ?, ?) USING TTL ?";
    ForgetNote: Write on unfinished_commit(bucket) = "DELETE FROM unfinished_commit WHERE bucket = ? AND noted_at = ? AND conversation_id = ? AND epoch = ? AND attempt = ?";
    ReadBelow: Read on unfinished_commit(bucket) = "SELECT DISTINCT bucket, below FROM unfinished_commit WHERE bucket = ?";
    RaiseBelow: Write on unfinished_commit(bucket) = "UPDATE unfinished_commit USING TIMESTAMP ? SET below = ? WHERE bucket = ?";
    ReadNotes: Read on unfinished_commit(bucket) = "SELECT noted_at, conversation_id, epoch, attempt, decided_at FROM unfinished_commit WHERE bucket = ? AND noted_at >= ?";

    OpenRendezvous: Decide on rendezvous(rendezvous_id) = "UPDATE rendezvous USING TTL ? SET opener = ?, approver = ?, expires_at = ?, joined = null, opener_blobs = 0, approver_blobs = 0 WHERE rendezvous_id = ? IF opener = null";
    JoinRendezvous: Decide on rendezvous(rendezvous_id) = "UPDATE rendezvous USING TTL ? SET joined = ? WHERE rendezvous_id = ? IF approver = ? AND joined = null";
    PutOpenerBlob: Decide on rendezvous(rendezvous_id) = "BEGIN UNLOGGED BATCH UPDATE rendezvous USING TTL ? SET opener_blobs = ? WHERE rendezvous_id = ? IF opener_blobs = ? AND approver_blobs = ?; INSERT INTO rendezvous (rendezvous_id, side, number, blob) VALUES (?, 0, ?, ?) USING TTL ?; APPLY BATCH";
    PutApproverBlob: Decide on rendezvous(rendezvous_id) = "BEGIN UNLOGGED BATCH UPDATE rendezvous USING TTL ? SET approver_blobs = ? WHERE rendezvous_id = ? IF opener_blobs = ? AND approver_blobs = ?; INSERT INTO rendezvous (rendezvous_id, side, number, blob) VALUES (?, 1, ?, ?) USING TTL ?; APPLY BATCH";
    ReadRendezvous: Read on rendezvous(rendezvous_id) = "SELECT opener, approver, expires_at, joined, opener_blobs, approver_blobs FROM rendezvous WHERE rendezvous_id = ? LIMIT 1";
    ReadRendezvousDecided: SerialRead on rendezvous(rendezvous_id) = "SELECT opener, approver, expires_at, joined, opener_blobs, approver_blobs FROM rendezvous WHERE rendezvous_id = ? LIMIT 1";
    ReadBlob: Read on rendezvous(rendezvous_id) = "SELECT blob FROM rendezvous WHERE rendezvous_id = ? AND side = ? AND number = ?";

    BeginFirstUpload: Decide on media_upload(account_id) = "BEGIN UNLOGGED BATCH UPDATE media_upload USING TTL ? SET version = ? WHERE account_id = ? IF version = null; INSERT INTO media_upload (account_id, upload_id, bytes, expires_at, stage) VALUES (?, ?, ?, ?, 0) USING TTL ?; APPLY BATCH";
    BeginUpload: Decide on media_upload(account_id) = "BEGIN UNLOGGED BATCH UPDATE media_upload USING TTL ? SET version = ? WHERE account_id = ? IF version = ?; INSERT INTO media_upload (account_id, upload_id, bytes, expires_at, stage) VALUES (?, ?, ?, ?, 0) USING TTL ?; APPLY BATCH";
    ReadUpload: Read on media_upload(account_id) = "SELECT bytes, expires_at, stage FROM media_upload WHERE account_id = ? AND upload_id = ?";
    ReadUploadDecided: SerialRead on media_upload(account_id) = "SELECT bytes, expires_at, stage FROM media_upload WHERE account_id = ? AND upload_id = ?";
    ReadUploadsDecided: SerialRead on media_upload(account_id) = "SELECT version, upload_id, bytes, expires_at, stage FROM media_upload WHERE account_id = ?";
    SetUploadStage: Decide on media_upload(account_id) = "UPDATE media_upload USING TTL ? SET stage = ? WHERE account_id = ? AND upload_id = ? IF stage = ?";
    PutPart: Decide on media_part(account_id, upload_id) = "INSERT INTO media_part (account_id, upload_id, number, sha256) VALUES (?, ?, ?, ?) IF NOT EXISTS USING TTL ?";
    ReadPart: Read on media_part(account_id, upload_id) = "SELECT sha256 FROM media_part WHERE account_id = ? AND upload_id = ? AND number = ?";
    ReadPartDecided: SerialRead on media_part(account_id, upload_id) = "SELECT sha256 FROM media_part WHERE account_id = ? AND upload_id = ? AND number = ?";
    ReadParts: Read on media_part(account_id, upload_id) = "SELECT number, sha256 FROM media_part WHERE account_id = ? AND upload_id = ?";
    ReadPartsDecided: SerialRead on media_part(account_id, upload_id) = "SELECT number, sha256 FROM media_part WHERE account_id = ? AND upload_id = ?";

    PutPiece: Write on payload(payload_id) = "INSERT INTO payload (payload_id, piece, bytes) VALUES (?, ?, ?) USING TIMESTAMP ? AND TTL ?";
    PutPayload: Write on payload(payload_id) = "INSERT INTO payload (payload_id, piece, size, expires_at) VALUES (?, -1, ?, ?) USING TIMESTAMP ? AND TTL ?";
    ReadPieces: Read on payload(payload_id) = "SELECT piece, size, expires_at, bytes FROM payload WHERE payload_id = ? AND piece IN (-1, ?, ?)";
}

impl Statement {
    /// Its row of the table.
    pub(crate) fn entry(self) -> &'static Entry {
        &STATEMENTS[self as usize]
    }
}

#[cfg(test)]
mod tests;
