//! A wire to a server that a test can cut: while it is cut, connections are refused and open ones are closed.
use std::net::SocketAddr;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// A TCP proxy on a port of its own.
pub struct Proxy {
    /// Where to connect to.
    pub address: SocketAddr,
    up: watch::Sender<bool>,
}

impl Proxy {
    /// Forwards to `target`, such as `127.0.0.1:5672`.
    pub async fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound port");
        let (up, state) = watch::channel(true);
        tokio::spawn(accept(listener, target, state));
        Self { address, up }
    }

    /// Closes every connection and refuses new ones.
    pub fn cut(&self) {
        self.up.send_replace(false);
    }

    /// Forwards again.
    pub fn mend(&self) {
        self.up.send_replace(true);
    }
}

async fn accept(listener: TcpListener, target: String, state: watch::Receiver<bool>) {
    while let Ok((client, _)) = listener.accept().await {
        if *state.borrow() {
            tokio::spawn(forward(client, target.clone(), state.clone()));
        }
    }
}

async fn forward(mut client: TcpStream, target: String, mut state: watch::Receiver<bool>) {
    let Ok(mut server) = TcpStream::connect(target).await else {
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = state.wait_for(|up| !up) => {}
    }
}
