//! TLS of our own listener: the certificate we show, and the authority whose client certificates we take for agents'.

use crate::config::Tls;
use anyhow::Context;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::path::Path;
use std::sync::Arc;

/// The server's side of TLS; `None` where no certificate is configured.
pub fn server_config(tls: &Tls) -> anyhow::Result<Option<Arc<ServerConfig>>> {
    if !tls.is_on() {
        return Ok(None);
    }
    let key = PrivateKeyDer::from_pem_file(&tls.key).with_context(|| format!("tls.key: read {}", tls.key.display()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match tls.client_ca.as_os_str().is_empty() {
        true => builder.with_no_client_auth(),
        false => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(&tls.client_ca).context("tls.client_ca")? {
                roots.add(certificate).context("tls.client_ca: take a certificate in")?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            // People and schedulers come with tokens and without certificates.
            let verifier = verifier.allow_unauthenticated().build().context("tls.client_ca")?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(certificates(&tls.cert).context("tls.cert")?, key)
        .context("tls.cert and tls.key do not go together")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Some(Arc::new(config)))
}

fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = || format!("read {}", file.display());
    let found: Vec<_> =
        CertificateDer::pem_file_iter(file).with_context(read)?.collect::<Result<_, _>>().with_context(read)?;
    anyhow::ensure!(!found.is_empty(), "there is no certificate in {}", file.display());
    Ok(found)
}
