//! The TLS gateway, in front of services of a test.
use crate::{Process, eventually};
use bytes::Bytes;
use futures_util::future::join_all;
use gavel_gateway::{Gateway, Kind, Limits, Upstream};
use gavel_runtime::tls;
use h2::client::SendRequest;
use reqwest::{Certificate, Client, ClientBuilder};
use std::{
    fs,
    net::{Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};
use uuid::Uuid;

/// A test's clients all have one address.
const LIMITS: Limits = Limits { calls_per_second: 5_000, connections: 5_000 };

/// Time for which it may take to stop.
const PATIENCE: Duration = Duration::from_secs(5);

/// A gateway that runs. Stopped when dropped.
pub struct RunningGateway {
    /// `https://localhost:…`.
    pub url: String,
    /// What its clients trust.
    pub certificate: PathBuf,
    process: Process,
    dir: PathBuf,
}

impl RunningGateway {
    /// Opens one in front of these services.
    pub async fn open(kind: Kind, services: &[&Process]) -> Self {
        Self::open_with(kind, services, LIMITS).await
    }

    /// As [`RunningGateway::open`], with other limits of one address.
    pub async fn open_with(kind: Kind, services: &[&Process], limits: Limits) -> Self {
        let dir = std::env::temp_dir().join(format!("gavel-gateway-{}", Uuid::new_v4().simple()));
        let port = free_port().await;
        let services = join_all(services.iter().map(|service| upstream(service))).await;
        let gateway = Gateway { kind, port, services, dir: dir.clone(), limits };
        let process = Process::spawn(gateway.prepare().expect("the gateway is prepared"));
        let gateway =
            Self { url: format!("https://localhost:{port}"), certificate: dir.join("certificate.pem"), process, dir };
        let connect = || async {
            assert!(!gateway.process.has_ended(), "{:?}", gateway.process.output());
            TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        };
        eventually("the gateway listens", connect, |connected| *connected).await;
        gateway
    }

    /// A client that trusts it.
    pub fn client(&self) -> Client {
        self.trusting().build().expect("a client")
    }

    /// The same, over HTTP/1.1 alone.
    pub fn client_over_http1(&self) -> Client {
        self.trusting().http1_only().build().expect("a client")
    }

    /// The same, over IPv6.
    pub fn client_over_ipv6(&self) -> Client {
        let to = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
        self.trusting().resolve("localhost", to).build().expect("a client")
    }

    fn trusting(&self) -> ClientBuilder {
        let pem = fs::read(&self.certificate).expect("a certificate");
        Client::builder().add_root_certificate(Certificate::from_pem(&pem).expect("a certificate"))
    }

    /// What it answers to somebody who comes without TLS.
    ///
    /// # Panics
    /// When nobody listens there.
    pub async fn without_tls(&self, path: &str) -> String {
        let mut stream = UnixStream::connect(self.dir.join("http.sock")).await.expect("connected");
        let request = format!("GET {path} HTTP/1.1\r\nhost: auction.example\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        answer
    }

    /// Whether HAProxy knows of no service that is ready. (nginx does not ask them.)
    ///
    /// # Panics
    /// When it does not say.
    pub async fn sends_to_nobody(&self) -> bool {
        let mut status = UnixStream::connect(self.dir.join("status.sock")).await.expect("connected");
        status.write_all(b"show stat\n").await.expect("asked");
        let mut answer = String::new();
        status.read_to_string(&mut answer).await.expect("answered");
        let mut services = answer.lines().filter(|line| line.starts_with("services,s"));
        services.all(|line| !line.contains(",UP,"))
    }

    /// A connection of HTTP/2 to it, to send frames as one likes.
    ///
    /// # Panics
    /// When it does not listen.
    pub async fn h2(&self) -> SendRequest<Bytes> {
        let mut config = tls::client_config(Some(&self.certificate)).expect("a certificate");
        config.alpn_protocols = vec![b"h2".to_vec()];
        let host = self.url.trim_start_matches("https://");
        let stream = TcpStream::connect(host).await.expect("connected");
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS");
        let (send, connection) = h2::client::handshake(stream).await.expect("a handshake");
        tokio::spawn(connection);
        send
    }

    /// Returns what it has written of the calls it led on.
    pub fn log(&self) -> String {
        let file = fs::read_to_string(self.dir.join("access.log")).unwrap_or_default();
        file + &self.process.output().join("\n")
    }
}

impl Drop for RunningGateway {
    fn drop(&mut self) {
        // Killed, nginx would leave its workers.
        if !self.process.has_ended() {
            self.process.terminate();
        }
        let until = Instant::now() + PATIENCE;
        while !self.process.has_ended() && Instant::now() < until {
            thread::yield_now();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

async fn upstream(service: &Process) -> Upstream {
    let ops_address = service.ops_address().await;
    let ops_port = ops_address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    Upstream { address: service.address().await, ops_port }
}

/// A port that nobody listens on.
pub async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("a bound port").port()
}
