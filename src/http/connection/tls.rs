//! TLS on the server's own socket, for those who have no proxy that speaks it. Certificates that are renewed are taken up without a restart.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use tokio_rustls::rustls::{self, ServerConfig};

use crate::config::Server;
use crate::runtime::lifecycle::Shutdown;

/// Time between two looks at the files.
const LOOK: Duration = Duration::from_mins(1);

/// Why a server cannot speak TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Only one of both files is named.
    #[error("--tls-cert and --tls-key go together: a certificate is worth nothing without its key")]
    Alone,
    /// A file is missing, or is no PEM.
    #[error("{}: {reason}; expected a PEM file with {content}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        content: &'static str,
        /// What is wrong.
        reason: pem::Error,
    },
    /// There is no certificate in the file.
    #[error("{} holds no certificate: expected a PEM file with the server's, and behind it those that lead to a known authority", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key do not fit.
    #[error("{} and its key: {reason}", path.display())]
    Unfit {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong.
        reason: rustls::Error,
    },
}

/// The certificate that the server shows, as its files had it last.
#[derive(Debug)]
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    config: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// As `server` says; none where it names no certificate.
    ///
    /// # Errors
    /// When only one file is named, or they cannot be used.
    pub fn open(server: &Server) -> Result<Option<Self>, TlsError> {
        match (&server.tls_cert.0, &server.tls_key.0) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => {
                let config = RwLock::new(read(certificate, key)?);
                Ok(Some(Self { certificate: certificate.clone(), key: key.clone(), config }))
            }
            _ => Err(TlsError::Alone),
        }
    }

    /// What greets the next connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone().into()
    }

    /// Takes up what is in the files now.
    fn renew(&self) -> Result<(), TlsError> {
        let config = read(&self.certificate, &self.key)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// When the files were written last; none where that cannot be read.
    fn written(&self) -> [Option<SystemTime>; 2] {
        [&self.certificate, &self.key].map(|path| std::fs::metadata(path).and_then(|file| file.modified()).ok())
    }

    /// Takes up the files whenever they have been written anew, until the server ends. Files that do not fit, as between two writes, leave the
    /// certificate as it is until the next look.
    pub(super) async fn follow(&self, shutdown: Shutdown) {
        let mut known = self.written();
        loop {
            tokio::select! {
                () = shutdown.draining() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let written = self.written();
            if written == known {
                continue;
            }
            match self.renew() {
                Ok(()) => {
                    known = written;
                    tracing::info!(certificate = %self.certificate.display(), "the renewed certificate is shown");
                }
                Err(error) => tracing::warn!(%error, "the renewed certificate cannot be used; the old one is shown"),
            }
        }
    }
}

/// TLS 1.2 and 1.3, with HTTP/2 where the client has it.
fn read(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let of_file = |path: &Path, content| {
        let path = path.to_owned();
        move |reason| TlsError::File { path, content, reason }
    };
    let chain: Vec<CertificateDer<'_>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(of_file(certificate, "certificates"))?;
    if chain.is_empty() {
        return Err(TlsError::Empty { path: certificate.to_owned() });
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(of_file(key, "a private key without a password"))?;
    let unfit = |reason| TlsError::Unfit { path: certificate.to_owned(), reason };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unfit)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unfit)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// What is said of a client that did not come through the greeting.
pub(super) fn ungreeted(error: &io::Error) {
    tracing::debug!(%error, "a connection has not come as far as TLS");
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};

    use super::*;
    use crate::config::OptionalPath;

    /// The settings of a server with these files.
    fn server(certificate: Option<&Path>, key: Option<&Path>) -> Server {
        let path = |path: Option<&Path>| OptionalPath(path.map(Path::to_owned));
        Server { tls_cert: path(certificate), tls_key: path(key), ..Server::default() }
    }

    #[test]
    fn files_that_do_not_do_are_named_with_what_was_expected() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let [first, second] = ["a.example", "b.example"].map(|name| {
            let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec![name.to_owned()]).unwrap();
            [file(&format!("{name}.crt"), &cert.pem()), file(&format!("{name}.key"), &signing_key.serialize_pem())]
        });
        let empty = file("empty.pem", "");
        let refused =
            |certificate: &Path, key: &Path| Tls::open(&server(Some(certificate), Some(key))).unwrap_err().to_string();
        assert!(Tls::open(&server(None, None)).unwrap().is_none());
        assert!(Tls::open(&server(Some(&first[0]), Some(&first[1]))).unwrap().is_some());
        assert!(Tls::open(&server(Some(&first[0]), None)).unwrap_err().to_string().contains("go together"));
        assert!(refused(&empty, &first[1]).contains("holds no certificate"));
        assert!(refused(&first[0], &empty).contains("expected a PEM file with a private key"));
        assert!(refused(&folder.path().join("none"), &first[1]).contains("with certificates"));
        assert!(refused(&first[0], &second[1]).contains("a.example.crt and its key"));
    }

    #[test]
    fn a_renewed_certificate_is_taken_up_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let [certificate, key] = ["crt", "key"].map(|name| folder.path().join(name));
        let issue = || {
            let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
            std::fs::write(&certificate, cert.pem()).unwrap();
            std::fs::write(&key, signing_key.serialize_pem()).unwrap();
        };
        issue();
        let tls = Tls::open(&server(Some(&certificate), Some(&key))).unwrap().unwrap();
        let shown = || Arc::as_ptr(&tls.config.read().unwrap());
        let first = shown();
        std::fs::write(&certificate, "half").unwrap();
        assert!(tls.renew().is_err() && shown() == first);
        issue();
        tls.renew().unwrap();
        assert_ne!(shown(), first);
    }
}
