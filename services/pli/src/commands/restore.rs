// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pli restore`: a data folder from a backup, as one that clients go on with.

mod place;

use std::path::{Path, PathBuf};

use clap::Args;
use pli_domain::LogEpoch;
use pli_engine_embedded::{HistoryError, Stamp, begin_history, check_database, highest_log_epoch, log_epoch_above};

use super::backup::manifest::{Manifest, ManifestError};
use super::backup::{check_space, lies_in, parent, unwritable};
use crate::exit::{Exit, ExitContext, Failure};
use crate::terminal::say;
use place::Place;

/// Make a data folder from a backup.
///
/// The server goes back to the moment of the backup, and what it stored after that is gone. Clients go on by themselves:
/// they send again what was not `stored` yet, register again where the backup does not know them, and make their
/// conversations again with the same people. For that the restored server begins a new history and a higher log epoch;
/// never copy a data folder back by hand instead, for new messages would then be taken for old ones.
///
/// A folder that holds data is refused; with --replace it is moved aside, under a name that is printed, and never
/// deleted. Stop the server first. A restore that was interrupted is begun again with the same command.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pli restore --from /backups/pli-20260301T030000Z --data /var/lib/pli\n  pli restore --from /backups/pli-20260301T030000Z --data /var/lib/pli --replace"
)]
pub struct RestoreArgs {
    /// The backup: a folder that `pli backup` made.
    #[arg(long, value_name = "FOLDER")]
    from: PathBuf,
    /// The data folder to make.
    #[arg(long, env = "PLI_DATA", value_name = "DIR", default_value = "pli-data")]
    data: PathBuf,
    /// Move a folder that holds data aside instead of refusing it.
    #[arg(long)]
    replace: bool,
    /// Begin a log epoch above this one too.
    ///
    /// Needed only where clients have used a server that was restored from the same backup before and whose folder is
    /// lost: its `pli restore` printed the number.
    #[arg(long, value_name = "N", value_parser = log_epoch)]
    log_epoch_above: Option<LogEpoch>,
}

fn log_epoch(text: &str) -> Result<LogEpoch, String> {
    let number = text.parse().ok().and_then(|number| LogEpoch::new(number).ok());
    number.ok_or_else(|| format!("give a whole number from 0 to {}, as `pli restore` printed it", LogEpoch::MAX.get()))
}

/// Runs `pli restore`.
pub async fn run(args: RestoreArgs) -> Result<(), Failure> {
    tokio::task::spawn_blocking(move || restore(&args)).await.exit(Exit::Failed)?
}

/// The highest log epoch that is known, and whether the server that clients saw last is not at hand.
struct Known {
    highest: LogEpoch,
    unseen: bool,
}

fn restore(args: &RestoreArgs) -> Result<(), Failure> {
    let manifest = Manifest::read(&args.from).map_err(refused)?;
    check_apart(args)?;
    let mut place = Place::look(&args.data, args.replace)?;
    check_space(&parent(&args.data), manifest.bytes())?;
    let draft = place.draft()?;
    copy(&manifest, &args.from, &draft)?;
    let known = known(args, &place, &draft);
    let log_epoch = log_epoch_above(known.highest, known.unseen).map_err(no_history)?;
    begin_history(&draft, rand::random(), log_epoch).map_err(no_history)?;
    let aside = place.settle()?;
    tell(args, &manifest, log_epoch, aside.as_deref())
}

/// A restore in place of its own backup would leave no backup.
fn check_apart(args: &RestoreArgs) -> Result<(), Failure> {
    if !args.data.exists() || !lies_in(&args.from, &args.data)? {
        return Ok(());
    }
    let (from, data) = (args.from.display(), args.data.display());
    let sentence =
        format_args!("--from {from} lies in the data folder {data}, which a restore exchanges; name another --data");
    Err(Failure::say(Exit::Folder, sentence))
}

fn refused(error: ManifestError) -> Failure {
    Failure::new(Exit::Folder, error)
}

fn no_history(error: HistoryError) -> Failure {
    Failure::new(Exit::Folder, error)
}

/// Copies the files, compares their checksums, and looks whether the database is whole and the one that is named.
fn copy(manifest: &Manifest, from: &Path, draft: &Path) -> Result<(), Failure> {
    let damaged = |what: &str| {
        let from = from.display();
        Err(Failure::say(Exit::Folder, format_args!("the backup {from} is damaged: {what}; take another backup")))
    };
    for file in &manifest.files {
        if !file.is_there(from) {
            return damaged(&format!("{} is missing", file.name));
        }
        if !file.copy(from, draft).map_err(|error| unwritable(&draft.join(&file.name), error))? {
            return damaged(&format!("{} is not what it was, its checksum differs", file.name));
        }
    }
    match Stamp::read(draft) {
        Ok(Some(stamp)) if stamp.database.as_ref() == Some(&manifest.database) => {}
        _ => return damaged("VERSION names another database"),
    }
    match check_database(draft) {
        Ok(true) => Ok(()),
        Ok(false) => damaged("pli.db is empty"),
        Err(error) => damaged(&error.to_string()),
    }
}

/// Log epochs of the backup, of the folder that is replaced, of those that stand aside, and the one that was named.
fn known(args: &RestoreArgs, place: &Place, draft: &Path) -> Known {
    let before: Vec<_> = place.servers().iter().map(|folder| highest_log_epoch(folder)).collect();
    // The newest of the folders is the server that clients saw last; a damaged one does not say.
    let unseen = args.log_epoch_above.is_none() && !before.first().is_some_and(Result::is_ok);
    let of_backup = highest_log_epoch(draft).ok();
    let all = before.into_iter().flatten().chain(of_backup).chain(args.log_epoch_above);
    Known { highest: all.max().unwrap_or(LogEpoch::NONE), unseen }
}

fn tell(args: &RestoreArgs, manifest: &Manifest, log_epoch: LogEpoch, aside: Option<&Path>) -> Result<(), Failure> {
    let (from, data) = (args.from.display(), args.data.display());
    say!("restored {data} from {from}, which {} made", manifest.program)?;
    say!(
        "it goes back to {}: what the server stored after that moment is gone, also messages that were reported \
         `stored`; what was not is sent again by its senders, accounts register again, conversations go on",
        manifest.taken_at
    )?;
    say!("log epoch {} begins", log_epoch.get())?;
    if let Some(aside) = aside {
        say!("the folder that was there stands in {}; remove it when you need nothing of it", aside.display())?;
    }
    say!("start the server: pli dev --data {data}")
}
