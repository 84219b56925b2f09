// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pli backup`: a consistent copy of a data folder, also while its server runs.

pub mod manifest;

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use pli_engine_embedded::{BackupError, CopiedDatabase, CopyProgress, DATABASE_FILE, OpenError, VERSION_FILE};
use pli_engine_embedded::{copy_database, data_of};
use pli_ports::SystemClock;

use crate::exit::{Exit, ExitContext, Failure};
use crate::terminal::say;
use manifest::{Manifest, moment};

/// Certificate and key of `pli dev`: clients have pinned it.
pub const CERTIFICATE_FILE: &str = "certificate.pem";
/// Space that a backup leaves free on its disk, in bytes: the server may be on the same one.
const SPACE_KEPT: u64 = 64 << 20;
/// Databases above this size tell how far their copy is, in bytes.
const TOLD_ABOVE: u64 = 64 << 20;

/// Copy a server's data, also while it runs.
///
/// The copy is the state of one moment, which it names, however much is sent meanwhile. It is a folder with the database,
/// its VERSION, the server's certificate (so that clients trust the restored server) and `manifest.json` with a checksum
/// of each; it appears under its name when it is whole and durable. It holds what the data folder holds, metadata of
/// everybody's messages and the server's key, so it is readable for its owner alone: keep it so, on another disk.
///
/// Never copy the files back by hand: clients would take positions of new messages for old ones and not show them. `pli
/// restore` begins a new history, which clients notice. What is stored after the backup is gone with a restore; so back
/// up as often as you can bear to lose.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pli backup --to /backups\n  pli backup --data /var/lib/pli --to /backups/before-the-update\n\n\
                  Every night, from cron (an existing folder gets a dated backup inside):\n  pli backup --data /var/lib/pli --to /backups"
)]
pub struct BackupArgs {
    /// The data folder of the server.
    #[arg(long, env = "PLI_DATA", value_name = "DIR", default_value = "pli-data")]
    data: PathBuf,
    /// Where the backup goes: the name of the folder that is made; in an existing folder, a dated one inside.
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
}

/// Runs `pli backup`.
pub async fn run(args: BackupArgs) -> Result<(), Failure> {
    tokio::task::spawn_blocking(move || back_up(&args)).await.exit(Exit::Failed)?
}

fn back_up(args: &BackupArgs) -> Result<(), Failure> {
    let (_, bytes) = data_of(&args.data).map_err(failed)?;
    let target = target(&args.to)?;
    let folder = parent(&target);
    check_outside(&folder, args)?;
    check_space(&folder, bytes)?;
    // In the same folder, so that the last step is one rename.
    let draft = Draft::new(&target)?;
    let copied =
        copy_database(&args.data, &draft.0.join(DATABASE_FILE), &SystemClock, progress(bytes)).map_err(failed)?;
    let manifest = complete(&args.data, &draft.0, &copied)?;
    draft.keep(&target)?;
    say!(
        "backed up {} as it was at {}: {} MiB in {}",
        args.data.display(),
        moment(copied.taken_at),
        manifest.bytes().div_ceil(1 << 20),
        target.display()
    )?;
    say!("to go back to it: pli restore --from {} --data {} --replace", target.display(), args.data.display())?;
    Ok(())
}

fn failed(error: BackupError) -> Failure {
    let exit = match &error {
        BackupError::Folder(OpenError::InUse { .. }) => Exit::InUse,
        _ => Exit::Folder,
    };
    Failure::new(exit, error)
}

/// The folder that the backup becomes.
fn target(to: &Path) -> Result<PathBuf, Failure> {
    let refuse = |sentence: String| Err(Failure::say(Exit::Folder, sentence));
    match fs::metadata(to) {
        Ok(found) if !found.is_dir() => refuse(format!(
            "{} is a file; name a folder that does not exist yet, or one for dated backups",
            to.display()
        )),
        Ok(_) if Manifest::path(to).exists() => {
            refuse(format!("{} holds a backup already; choose another name", to.display()))
        }
        Ok(_) if to.join(VERSION_FILE).exists() => {
            refuse(format!("{} is a data folder; keep backups elsewhere, best on another disk", to.display()))
        }
        Ok(_) => {
            let dated = to.join(format!("pli-{}", manifest::dated(jiff::Timestamp::now())));
            if dated.exists() {
                refuse(format!("{} exists already; try again in a second", dated.display()))
            } else {
                Ok(dated)
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let folder = parent(to);
            if folder.is_dir() && to.file_name().is_some() {
                return Ok(to.to_path_buf());
            }
            refuse(format!("there is no folder {}; make it, or choose another place with --to", folder.display()))
        }
        Err(error) => refuse(format!("{} cannot be used: {error}; choose another place with --to", to.display())),
    }
}

/// A backup inside of what it is a backup of goes with it, and a restore with --replace would take it away.
fn check_outside(folder: &Path, args: &BackupArgs) -> Result<(), Failure> {
    if !lies_in(folder, &args.data)? {
        return Ok(());
    }
    let (to, data) = (args.to.display(), args.data.display());
    let sentence =
        format_args!("--to {to} lies inside the data folder {data}; keep backups elsewhere, best on another disk");
    Err(Failure::say(Exit::Folder, sentence))
}

/// Whether a path is this folder or lies inside it, whatever links lead there. Both exist.
pub fn lies_in(path: &Path, folder: &Path) -> Result<bool, Failure> {
    let real = |path: &Path| path.canonicalize().map_err(|error| unwritable(path, error));
    Ok(real(path)?.starts_with(real(folder)?))
}

/// The folder in which `path` lies.
pub fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Whether so many bytes fit and leave a server on the same disk some room.
pub fn check_space(folder: &Path, bytes: u64) -> Result<(), Failure> {
    let stat = rustix::fs::statvfs(folder).map_err(|error| unwritable(folder, error.into()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free >= bytes.saturating_add(SPACE_KEPT) {
        return Ok(());
    }
    let (need, free) = ((bytes + SPACE_KEPT).div_ceil(1 << 20), free >> 20);
    Err(Failure::say(
        Exit::Folder,
        format_args!(
            "no space in {}: {need} MiB are needed, {free} are free; make room or choose another place",
            folder.display()
        ),
    ))
}

/// A place that cannot be written, with its fix.
pub fn unwritable(path: &Path, error: io::Error) -> Failure {
    let fix = match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "give this user write access or choose another place"
        }
        ErrorKind::StorageFull => "make room on its disk or choose another place",
        _ => "choose another place",
    };
    Failure::say(Exit::Folder, format_args!("cannot write {}: {error}; {fix}", path.display()))
}

/// A backup that is not whole yet, under a name of its own; removed unless it is kept.
struct Draft(PathBuf);

impl Draft {
    fn new(target: &Path) -> Result<Self, Failure> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let path = parent(target).join(format!(".{name}.part-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| unwritable(&path, error))?;
        Ok(Self(path))
    }

    fn keep(self, target: &Path) -> Result<(), Failure> {
        let kept = sync(&self.0).and_then(|()| fs::rename(&self.0, target)).and_then(|()| sync(&parent(target)));
        kept.map_err(|error| unwritable(target, error))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After it was kept there is nothing under this name.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Makes the names in a folder durable.
pub fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Adds the small files and, last, the manifest.
fn complete(data: &Path, draft: &Path, copied: &CopiedDatabase) -> Result<Manifest, Failure> {
    for name in [VERSION_FILE, CERTIFICATE_FILE] {
        let (from, to) = (data.join(name), draft.join(name));
        match fs::copy(&from, &to) {
            // A server that has no certificate of its own.
            Err(error) if error.kind() == ErrorKind::NotFound && name == CERTIFICATE_FILE => continue,
            other => other.map_err(|error| unwritable(&to, error))?,
        };
        let private = fs::set_permissions(&to, fs::Permissions::from_mode(0o600));
        private.and_then(|()| File::open(&to)?.sync_all()).map_err(|error| unwritable(&to, error))?;
    }
    let manifest = Manifest::of(draft, copied).map_err(|error| unwritable(draft, error))?;
    manifest.write(draft).map_err(|error| unwritable(draft, error))?;
    Ok(manifest)
}

/// Says every tenth of a large copy on standard error.
fn progress(bytes: u64) -> impl FnMut(CopyProgress) {
    let mut told = 0;
    move |so_far: CopyProgress| {
        let tenths = (so_far.done * 10).checked_div(so_far.total).unwrap_or(0);
        if bytes > TOLD_ABOVE && tenths > told {
            told = tenths;
            crate::terminal::tell!("{} of {} MiB copied", so_far.done >> 20, so_far.total >> 20);
        }
    }
}
