//! TLS of the connections that this process opens. Two of our dependencies bring a provider of cryptography each, and a
//! library that finds two and no choice panics at its first handshake: so the choice is made once, at the start.
use super::files;
use anyhow::{Context, ensure};
use std::path::Path;
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

/// Chooses the provider for the whole process. Chosen before, it stays.
pub fn choose_provider() {
    let _ = ring::default_provider().install_default();
}

/// Returns how to check a server's certificate: by the authorities in `authorities`, PEM, or by those known to
/// everybody.
///
/// # Errors
/// A file that can't be read, or has no certificate.
pub fn client_config(authorities: Option<&Path>) -> anyhow::Result<ClientConfig> {
    choose_provider();
    let mut roots = RootCertStore::empty();
    match authorities {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let read = || format!("the certificates in {} can't be read", path.display());
            let pem = files::read(path).with_context(read)?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                roots.add(certificate.with_context(read)?).with_context(read)?;
            }
            ensure!(!roots.is_empty(), "{} has no certificate; allowed: PEM", path.display());
        }
    }
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}
