//! A server of documents over TLS, such as an identity provider is for keys.
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, rustls};
use uuid::Uuid;

/// Serves one document at any path but `/moved`, which leads to where [`Https::redirects_to`] said.
pub struct Https {
    /// `https://localhost:…/keys.json`.
    pub url: String,
    /// What its clients must trust.
    pub certificate: PathBuf,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    document: String,
    moved_to: String,
    is_down: bool,
}

impl Drop for Https {
    fn drop(&mut self) {
        let _removed = self.certificate.parent().map(std::fs::remove_dir_all);
    }
}

impl Https {
    /// Serves that.
    pub async fn serve(document: String) -> Self {
        let dir = std::env::temp_dir().join(format!("gavel-https-{}", Uuid::new_v4().simple()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let (certificate, key) = gavel_gateway::certificate(&dir).expect("a certificate");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(Mutex::new(State { document, ..State::default() }));
        tokio::spawn(accept(listener, acceptor(&certificate, &key), state.clone()));
        Self { url: format!("https://localhost:{port}/keys.json"), certificate, state }
    }

    /// Serves that from now on.
    pub fn change(&self, document: String) {
        self.state.lock().expect("nobody panics here").document = document;
    }

    /// Closes every connection before it answers, or no longer.
    pub fn is_down(&self, is_down: bool) {
        self.state.lock().expect("nobody panics here").is_down = is_down;
    }

    /// Where `/moved` leads.
    pub fn redirects_to(&self, url: &str) {
        url.clone_into(&mut self.state.lock().expect("nobody panics here").moved_to);
    }
}

pub(crate) fn acceptor(certificate: &Path, key: &Path) -> TlsAcceptor {
    let chain = vec![CertificateDer::from_pem_file(certificate).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(key).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
    TlsAcceptor::from(Arc::new(config.with_single_cert(chain, key).expect("they fit")))
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, state: Arc<Mutex<State>>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(answer(stream, acceptor.clone(), state.clone()));
    }
}

async fn answer(stream: TcpStream, acceptor: TlsAcceptor, state: Arc<Mutex<State>>) {
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    let mut request = [0; 1_024];
    let read = stream.read(&mut request).await.unwrap_or_default();
    let reply = {
        let state = state.lock().expect("nobody panics here");
        if state.is_down {
            return;
        }
        let (length, document) = (state.document.len(), &state.document);
        if request[..read].starts_with(b"GET /moved ") {
            format!(
                "HTTP/1.1 302 Found\r\nlocation: {}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
                state.moved_to
            )
        } else {
            format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{document}")
        }
    };
    let _ = stream.write_all(reply.as_bytes()).await;
    let _ = stream.shutdown().await;
}
