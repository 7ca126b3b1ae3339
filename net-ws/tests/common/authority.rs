//! A certificate authority of a test.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use tempfile::TempDir;

/// A certificate authority with an intermediate one, and a folder for what they sign.
pub(crate) struct Authority {
    dir: TempDir,
    pub(crate) root: PathBuf,
    pub(crate) intermediate_pem: String,
    intermediate: Issuer<'static, KeyPair>,
}

fn params(names: &[&str], common: &str) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, common);
    params
}

impl Authority {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut root_params = params(&[], "root");
        root_params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_key = KeyPair::generate().unwrap();
        let root = dir.path().join("root.pem");
        let certificate = root_params.self_signed(&root_key).unwrap();
        std::fs::write(&root, certificate.pem()).unwrap();
        let root_issuer = Issuer::new(root_params, root_key);
        let mut middle = params(&[], "intermediate");
        middle.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let middle_key = KeyPair::generate().unwrap();
        let certificate = middle.signed_by(&middle_key, &root_issuer).unwrap();
        let intermediate = Issuer::new(middle, middle_key);
        Self { dir, root, intermediate_pem: certificate.pem(), intermediate }
    }

    /// Signs a certificate, and writes it with its chain and its key to files of this name.
    pub(crate) fn sign(
        &self,
        file: &str,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> (PathBuf, PathBuf) {
        let mut params = params(names, file);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.intermediate).unwrap();
        let (cert_file, key_file) = (
            self.dir.path().join(format!("{file}.pem")),
            self.dir.path().join(format!("{file}.key")),
        );
        std::fs::write(&cert_file, format!("{}{}", certificate.pem(), self.intermediate_pem))
            .unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        (cert_file, key_file)
    }
}
