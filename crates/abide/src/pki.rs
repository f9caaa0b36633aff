//! The cluster's own certificate authority and what it signs. Kept in `DATA_DIR/pki`, readable by root alone.

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A certificate and its key, both PEM.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    /// Certificate.
    pub(crate) certificate_pem: String,
    /// Private key (PKCS 8).
    pub(crate) key_pem: String,
}

/// Everything that the server needs to prove who it is and to know its clients.
#[derive(Debug, Clone)]
pub(crate) struct Pki {
    /// The authority's certificate, PEM.
    pub(crate) ca_pem: String,
    /// The API server's own.
    pub(crate) server: Pair,
    /// The administrator's: user `kubernetes-admin`, group `system:masters`.
    pub(crate) admin: Pair,
}

impl Pki {
    /// Reads the authority from `folder`, making it when there is none, and signs fresh certificates for the server
    /// (valid for `names` and `addresses`) and, once, for the administrator.
    pub(crate) fn open(folder: &Path, names: &[String], addresses: &[IpAddr]) -> Result<Pki> {
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let authority = match read(folder, "ca")? {
            Some(pair) => pair,
            None => {
                let pair = authority()?;
                store(folder, "ca", &pair)?;
                pair
            }
        };
        let issuer = Issuer::from_ca_cert_pem(
            &authority.certificate_pem,
            KeyPair::from_pem(&authority.key_pem).context("read the authority's key")?,
        )
        .context("read the authority's certificate")?;
        let mut server = CertificateParams::new(names.to_vec())?;
        server.subject_alt_names.extend(addresses.iter().map(|ip| SanType::IpAddress(*ip)));
        let server =
            sign(&issuer, server, "kube-apiserver", &[], ExtendedKeyUsagePurpose::ServerAuth)?;
        let admin = match read(folder, "admin")? {
            Some(pair) => pair,
            None => {
                let pair = sign(
                    &issuer,
                    CertificateParams::default(),
                    "kubernetes-admin",
                    &["system:masters"],
                    ExtendedKeyUsagePurpose::ClientAuth,
                )?;
                store(folder, "admin", &pair)?;
                pair
            }
        };
        Ok(Pki { ca_pem: authority.certificate_pem, server, admin })
    }

    /// TLS as the API server speaks it: a client certificate of our authority is asked for and checked, but may be
    /// missing (then the request is anonymous).
    pub(crate) fn server_config(&self) -> Result<rustls::ServerConfig> {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.ca_pem.as_bytes()) {
            roots.add(certificate.context("read the authority's certificate")?)?;
        }
        let clients = rustls::server::WebPkiClientVerifier::builder(roots.into())
            .allow_unauthenticated()
            .build()?;
        let chain = CertificateDer::pem_slice_iter(self.server.certificate_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(self.server.key_pem.as_bytes())?;
        let mut config = rustls::ServerConfig::builder()
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn authority() -> Result<Pair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "abide-ca");
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::CrlSign,
    ];
    let key = KeyPair::generate()?;
    Ok(Pair { certificate_pem: params.self_signed(&key)?.pem(), key_pem: key.serialize_pem() })
}

fn sign(
    issuer: &Issuer<'_, KeyPair>,
    mut params: CertificateParams,
    name: &str,
    groups: &[&str],
    usage: ExtendedKeyUsagePurpose,
) -> Result<Pair> {
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    for group in groups {
        params.distinguished_name.push(DnType::OrganizationName, *group);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate()?;
    Ok(Pair {
        certificate_pem: params.signed_by(&key, issuer)?.pem(),
        key_pem: key.serialize_pem(),
    })
}

fn read(folder: &Path, name: &str) -> Result<Option<Pair>> {
    let text = |extension: &str| -> Result<Option<String>> {
        let path = folder.join(format!("{name}.{extension}"));
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    };
    Ok(match (text("crt")?, text("key")?) {
        (Some(certificate_pem), Some(key_pem)) => Some(Pair { certificate_pem, key_pem }),
        _ => None,
    })
}

fn store(folder: &Path, name: &str, pair: &Pair) -> Result<()> {
    // The key first: a certificate without its key counts as absent, and is then made anew.
    write_private(&folder.join(format!("{name}.key")), &pair.key_pem)?;
    write_private(&folder.join(format!("{name}.crt")), &pair.certificate_pem)
}

/// Writes a file of mode 0600 in one step.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    let unfinished = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_is_made_once_and_its_certificates_serve_tls() {
        let folder = tempfile::tempdir().unwrap();
        let first =
            Pki::open(folder.path(), &["localhost".to_owned()], &["127.0.0.1".parse().unwrap()])
                .unwrap();
        let second = Pki::open(folder.path(), &["localhost".to_owned()], &[]).unwrap();
        assert_eq!(first.ca_pem, second.ca_pem);
        assert_eq!(first.admin.certificate_pem, second.admin.certificate_pem);
        let _ = rustls::crypto::ring::default_provider().install_default();
        first.server_config().unwrap();
    }
}
