// SPDX-License-Identifier: MIT OR Apache-2.0
//! The self-made certificate of a development server, kept in the data folder so that clients can pin it.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use pli_edge::Identity;

/// Certificate and key in PEM, mode 600.
pub(super) const FILE: &str = "certificate.pem";

/// The certificate in `folder` with its key; made for `host` and the loopback names when there is none.
pub fn open_or_create(folder: &Path, host: &str) -> anyhow::Result<Identity> {
    let path = folder.join(FILE);
    let pem = match std::fs::read(&path) {
        Ok(pem) => pem,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => create(folder, host)?,
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
    };
    let damaged = || format!("{} is damaged; remove it and a new one is made", path.display());
    Identity::from_pem(&pem, &pem).with_context(damaged)
}

/// Makes and stores the pair; a crash leaves the whole file or none.
fn create(folder: &Path, host: &str) -> anyhow::Result<Vec<u8>> {
    let mut names = vec!["localhost".to_string(), "127.0.0.1".into(), "::1".into()];
    if !names.iter().any(|name| name == host) {
        names.push(host.to_string());
    }
    let made = rcgen::generate_simple_self_signed(names).context("cannot make a certificate")?;
    let pem = format!("{}{}", made.cert.pem(), made.signing_key.serialize_pem()).into_bytes();
    let fresh = folder.join(format!("{FILE}.new"));
    let write = || {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(&pem)?;
        file.sync_all()?;
        std::fs::rename(&fresh, folder.join(FILE))?;
        std::fs::File::open(folder)?.sync_all()
    };
    write().with_context(|| format!("cannot write {}", fresh.display()))?;
    Ok(pem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_stays_the_same_and_private() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().expect("a folder");
        let first = open_or_create(folder.path(), "127.0.0.1").expect("made").sha256();
        assert_eq!(open_or_create(folder.path(), "127.0.0.1").expect("read").sha256(), first);
        let mode = std::fs::metadata(folder.path().join(FILE)).expect("there").mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
