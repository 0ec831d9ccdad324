//! A TLS client for probes: one handshake, and what the peer's certificate says.
//!
//! With [`Trust::Any`] every certificate is taken, and looked at all the same: a probe reports
//! when it ends, and mail between servers is opportunistic (RFC 7435). The signatures of the
//! handshake are checked either way. No ALPN is offered (rule T8) and no client certificate.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Whose certificates are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Trust {
    /// Anybody's.
    Any,
    /// Those that the system's roots vouch for, for the name that was dialled.
    SystemRoots,
}

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Whole days until it ends; negative once it has.
    pub days_left: i64,
    /// Its subject, for example `CN=mx.example`.
    pub subject: String,
    /// Its DNS names, at most 16.
    pub names: Vec<String>,
}

/// The most DNS names kept of a certificate.
const NAMES_MAX: usize = 16;
const SECONDS_PER_DAY: i64 = 86_400;

/// Handshakes of one trust. Cheap to clone.
#[derive(Clone)]
pub struct TlsClient(Arc<ClientConfig>);

impl TlsClient {
    /// A client of this trust. [`Trust::SystemRoots`] reads files: keep it off an event loop.
    ///
    /// # Errors
    /// The system has no roots that can be read.
    pub fn new(trust: Trust) -> io::Result<Self> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let config = match trust {
            Trust::Any => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(TakeAny(provider)))
                .with_no_client_auth(),
            Trust::SystemRoots => builder
                .with_root_certificates(system_roots()?)
                .with_no_client_auth(),
        };
        Ok(Self(Arc::new(config)))
    }

    /// Shakes hands; the caller limits the time. `name` goes out as SNI and, where roots are
    /// asked, is what the certificate must be for; without one it is the address.
    ///
    /// # Errors
    /// The handshake's: rustls's words within an [`io::Error`].
    pub async fn connect(
        &self,
        stream: TcpStream,
        name: Option<&str>,
        address: IpAddr,
    ) -> io::Result<TlsStream<TcpStream>> {
        let name = name
            .and_then(|name| ServerName::try_from(name.trim_end_matches('.').to_owned()).ok())
            .unwrap_or_else(|| ServerName::from(address));
        TlsConnector::from(Arc::clone(&self.0))
            .connect(name, stream)
            .await
    }
}

impl std::fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsClient")
    }
}

/// The peer's own certificate, if it can be read.
pub fn certificate(stream: &TlsStream<TcpStream>) -> Option<Certificate> {
    let (_, connection) = stream.get_ref();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = i64::try_from(now.ok()?.as_secs()).ok()?;
    read_certificate(connection.peer_certificates()?.first()?, now)
}

fn read_certificate(der: &[u8], now: i64) -> Option<Certificate> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let end = certificate.validity().not_after.timestamp();
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map(|extension| {
        extension
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                x509_parser::extensions::GeneralName::DNSName(name) => Some((*name).to_owned()),
                _ => None,
            })
            .take(NAMES_MAX)
            .collect()
    });
    Some(Certificate {
        days_left: (end - now).div_euclid(SECONDS_PER_DAY),
        subject: certificate.subject().to_string(),
        names: names.unwrap_or_default(),
    })
}

fn system_roots() -> io::Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found
            .errors
            .first()
            .map_or_else(|| "none found".to_owned(), ToString::to_string);
        return Err(io::Error::other(format!(
            "the system has no root certificates ({why}): install ca-certificates, or set \
             tls_verify = false"
        )));
    }
    Ok(roots)
}

/// Takes every certificate, but no forged handshake.
#[derive(Debug)]
struct TakeAny(Arc<CryptoProvider>);

impl ServerCertVerifier for TakeAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_tells_its_subject_names_and_days_left() {
        let mut wanted = rcgen::CertificateParams::new(vec!["mx.example".to_owned()]).unwrap();
        wanted.not_after = rcgen::date_time_ymd(2030, 1, 11);
        wanted.distinguished_name = rcgen::DistinguishedName::new();
        let name = rcgen::DnType::CommonName;
        wanted.distinguished_name.push(name, "mx.example");
        let key = rcgen::KeyPair::generate().unwrap();
        let der = wanted.self_signed(&key).unwrap();
        // 2030-01-01T00:00:00Z.
        let read = read_certificate(der.der(), 1_893_456_000).unwrap();
        assert_eq!(read.days_left, 10);
        assert_eq!(read.subject, "CN=mx.example");
        assert_eq!(read.names, ["mx.example"]);
        // One second after its end it has ended, which is not "0 days left".
        let end = 1_893_456_000 + 10 * SECONDS_PER_DAY;
        assert_eq!(read_certificate(der.der(), end + 1).unwrap().days_left, -1);
    }

    #[test]
    fn garbage_is_no_certificate() {
        assert_eq!(read_certificate(b"not a certificate", 0), None);
    }
}
