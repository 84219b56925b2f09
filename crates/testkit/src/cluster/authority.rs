// SPDX-License-Identifier: MIT OR Apache-2.0
//! Certificates: an authority for the internal side, one certificate of it for each process, and the one that all edges
//! show to clients.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};

use super::{ClusterError, Role};

/// PEM files of a certificate and its key.
#[derive(Debug, Clone)]
pub(super) struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Signs for one cluster; its key is in memory only.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
    public: Files,
}

fn named(names: Vec<String>, name: &str) -> Result<CertificateParams, ClusterError> {
    let mut certificate = CertificateParams::new(names)?;
    certificate.distinguished_name.push(DnType::CommonName, name);
    Ok(certificate)
}

impl Authority {
    /// A new one, with the edges' public certificate.
    pub fn create(folder: &Path) -> Result<Self, ClusterError> {
        let key = KeyPair::generate()?;
        let mut authority = named(Vec::new(), "Pli test cluster")?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        write(&folder.join("ca.pem"), &authority.self_signed(&key)?.pem())?;
        let public_key = KeyPair::generate()?;
        let public =
            named(vec!["localhost".into(), Ipv4Addr::LOCALHOST.to_string()], "Pli")?.self_signed(&public_key)?;
        let public = files(folder, "public", &public.pem(), &public_key)?;
        Ok(Self { issuer: Issuer::new(authority, key), folder: folder.to_path_buf(), public })
    }

    /// Its own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// What every edge shows.
    pub const fn public(&self) -> &Files {
        &self.public
    }

    /// A certificate that names the roles of a process (`edge.pli.internal`) and its address.
    pub fn certify(&self, name: &str, roles: &[Role], address: Ipv4Addr) -> Result<Files, ClusterError> {
        let key = KeyPair::generate()?;
        let names = roles.iter().map(|role| format!("{role}.pli.internal")).collect();
        let mut leaf = named(names, name)?;
        leaf.subject_alt_names.push(SanType::IpAddress(address.into()));
        files(&self.folder, name, &leaf.signed_by(&key, &self.issuer)?.pem(), &key)
    }
}

fn files(folder: &Path, name: &str, certificate: &str, key: &KeyPair) -> Result<Files, ClusterError> {
    let files = Files { certificate: folder.join(format!("{name}.pem")), key: folder.join(format!("{name}.key.pem")) };
    write(&files.certificate, certificate)?;
    write(&files.key, &key.serialize_pem())?;
    Ok(files)
}

/// Keys are for their owner alone.
fn write(path: &Path, text: &str) -> Result<(), ClusterError> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::OpenOptions::new();
    let opened = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    opened.and_then(|mut file| file.write_all(text.as_bytes())).map_err(ClusterError::io("writing a certificate"))
}
