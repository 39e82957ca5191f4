//! The webhook's certificate: two files, which may change.

use std::{fs, io, path::PathBuf, sync::Arc};

use tokio_rustls::rustls::{
    self, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
};

/// Why there is no certificate to serve with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{path}: {source}: {flag} needs a readable file")]
    Unreadable {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is no PEM with what it should have.
    #[error("{path}: {source}: {flag} needs {what} in PEM")]
    Pem {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is needed.
        what: &'static str,
        /// What is wrong.
        source: pem::Error,
    },
    /// They do not fit together.
    #[error("{certificate} and {key}: {source}: give a certificate and its own key")]
    Unfit {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
}

const CERTIFICATE: &str = "--validating-webhook-certificate";
const KEY: &str = "--validating-webhook-key";

/// The files, and what they held last.
#[derive(Debug)]
pub struct Files {
    certificate: PathBuf,
    key: PathBuf,
    held: Option<(Vec<u8>, Vec<u8>)>,
}

impl Files {
    /// A certificate with its chain, and its key.
    pub fn new(certificate: PathBuf, key: PathBuf) -> Self {
        Self {
            certificate,
            key,
            held: None,
        }
    }

    /// Reads them; `None` if they hold what they held the last time that they could be used.
    ///
    /// # Errors
    /// They cannot be used: the file, and the remedy.
    pub fn read(&mut self) -> Result<Option<Arc<ServerConfig>>, Error> {
        let read = |flag, path: &PathBuf| {
            fs::read(path).map_err(|source| Error::Unreadable {
                flag,
                path: path.clone(),
                source,
            })
        };
        let now = (read(CERTIFICATE, &self.certificate)?, read(KEY, &self.key)?);
        if self.held.as_ref() == Some(&now) {
            return Ok(None);
        }
        let config = self.config(&now.0, &now.1)?;
        self.held = Some(now);
        Ok(Some(Arc::new(config)))
    }

    fn config(&self, certificate: &[u8], key: &[u8]) -> Result<ServerConfig, Error> {
        let unfit = |source| Error::Unfit {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            source,
        };
        let bad = |flag, path: &PathBuf, what, source| Error::Pem {
            flag,
            path: path.clone(),
            what,
            source,
        };
        let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>();
        let chain = chain
            .and_then(|chain| match chain.is_empty() {
                true => Err(pem::Error::NoItemsFound),
                false => Ok(chain),
            })
            .map_err(|source| bad(CERTIFICATE, &self.certificate, "a certificate", source))?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|source| bad(KEY, &self.key, "a private key", source))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|config| config.with_no_client_auth().with_single_cert(chain, key));
        let mut config = config.map_err(unfit)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}
