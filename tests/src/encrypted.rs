//! TLS before a server that speaks none: what its clients see is a server behind a certificate of its own.
use crate::https::acceptor;
use std::path::PathBuf;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use uuid::Uuid;

/// A port at which a server is reached over TLS.
pub struct Encrypted {
    /// `localhost:…`.
    pub host: String,
    /// What its clients must trust.
    pub certificate: PathBuf,
}

impl Drop for Encrypted {
    fn drop(&mut self) {
        let _removed = self.certificate.parent().map(std::fs::remove_dir_all);
    }
}

impl Encrypted {
    /// Before `target`, such as `127.0.0.1:5672`.
    pub async fn before(target: String) -> Self {
        let dir = std::env::temp_dir().join(format!("gavel-encrypted-{}", Uuid::new_v4().simple()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let (certificate, key) = gavel_gateway::certificate(&dir).expect("a certificate");
        let (acceptor, listener) =
            (acceptor(&certificate, &key), TcpListener::bind("127.0.0.1:0").await.expect("a port"));
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (acceptor, target) = (acceptor.clone(), target.clone());
                tokio::spawn(async move {
                    let (Ok(mut client), Ok(mut server)) =
                        (acceptor.accept(client).await, TcpStream::connect(target).await)
                    else {
                        return;
                    };
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { host: format!("localhost:{port}"), certificate }
    }
}
