//! A wire to a server that a test can cut: while it is cut, connections are refused and open ones are closed. Or
//! silence: then they stay open, and nothing goes through.
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
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Cut,
    Silent,
}

impl Proxy {
    /// Forwards to `target`, such as `127.0.0.1:5672`.
    pub async fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound port");
        let (state, seen) = watch::channel(State::Open);
        tokio::spawn(accept(listener, target, seen));
        Self { address, state }
    }

    /// Closes every connection and refuses new ones.
    pub fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    /// Lets nothing through, as a host that was switched off: nobody is told.
    pub fn silence(&self) {
        self.state.send_replace(State::Silent);
    }

    /// Forwards again.
    pub fn mend(&self) {
        self.state.send_replace(State::Open);
    }
}

async fn accept(listener: TcpListener, target: String, state: watch::Receiver<State>) {
    while let Ok((client, _)) = listener.accept().await {
        if *state.borrow() != State::Cut {
            tokio::spawn(forward(client, target.clone(), state.clone()));
        }
    }
}

async fn forward(mut client: TcpStream, target: String, mut state: watch::Receiver<State>) {
    let _ = state.wait_for(|state| *state != State::Silent).await;
    let Ok(mut server) = TcpStream::connect(target).await else {
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    loop {
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut server) => return,
            _ = state.wait_for(|state| *state != State::Open) => {}
        }
        // Bytes on their way stay with the kernel, which tells nobody.
        let next = state.wait_for(|state| *state != State::Silent).await.map_or(State::Cut, |state| *state);
        if next == State::Cut {
            return;
        }
    }
}
