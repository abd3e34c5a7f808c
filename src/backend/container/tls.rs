//! TLS to an engine: certificates from the Docker client's directories to a connection.
//!
//! Reads three small files when the first connection is made; commands that need none pay nothing.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::connect::TlsFiles;

/// What the Docker client speaks too.
const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12, &rustls::version::TLS13];

/// Why there can be no TLS connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    /// A certificate or key cannot be read.
    #[error("cannot read {}", .file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// The certificate and the key, or the authority, are not usable.
    #[error("the certificates in {} cannot be used", .directory.display())]
    Unusable {
        /// Where they are.
        directory: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// Reads the certificates.
pub(super) fn config(files: &TlsFiles) -> Result<Arc<ClientConfig>, TlsError> {
    let unusable = |source| TlsError::Unusable {
        directory: files.directory.clone(),
        source,
    };
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(VERSIONS)
        .map_err(unusable)?;
    let builder = if files.verify {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(files, "ca.pem")? {
            roots.add(certificate).map_err(unusable)?;
        }
        builder.with_root_certificates(roots)
    } else {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
    };
    let key = files.directory.join("key.pem");
    let config = if key.exists() {
        let own = certificates(files, "cert.pem")?;
        let key = PrivateKeyDer::from_pem_file(&key)
            .map_err(|source| TlsError::File { file: key, source })?;
        builder.with_client_auth_cert(own, key).map_err(unusable)?
    } else {
        builder.with_no_client_auth()
    };
    Ok(Arc::new(config))
}

fn certificates(files: &TlsFiles, name: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let file = files.directory.join(name);
    CertificateDer::pem_file_iter(&file)
        .and_then(Iterator::collect)
        .map_err(|source| TlsError::File { file, source })
}

/// Connects, and checks who answers.
pub(super) async fn connect(
    config: Arc<ClientConfig>,
    authority: &str,
) -> io::Result<TlsStream<TcpStream>> {
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let stream = TcpStream::connect(authority).await?;
    TlsConnector::from(config).connect(name, stream).await
}

/// `SkipTLSVerify` of a context, and `DOCKER_TLS` without `DOCKER_TLS_VERIFY`: whoever answers is taken
/// for the engine, as the user asked.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
