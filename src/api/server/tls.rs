//! TLS with a certificate that the owner gives.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// What is wrong with a certificate.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read as PEM.
    #[error("cannot read {what} from {path}: {cause}")]
    Read {
        /// A certificate, or a key.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        cause: pem::Error,
    },
    /// They do not go together.
    #[error("the certificate in {path} cannot be used: {cause}")]
    Use {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: rustls::Error,
    },
}

/// The server's side of it.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl Tls {
    /// A certificate (with its chain) and its key, both as PEM.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let wrong = |what, path: &Path| {
            let path = path.to_owned();
            move |cause| TlsError::Read { what, path, cause }
        };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect)
            .map_err(wrong("a certificate", certificate))?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(wrong("a private key", key))?;
        let unusable = |cause| TlsError::Use { path: certificate.to_owned(), cause };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(unusable)?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// What the client or the connection did.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.0.accept(stream).await
    }
}
