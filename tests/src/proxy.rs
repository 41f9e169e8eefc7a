//! A wire to a server that a test can cut: while it is cut, connections are refused and open ones are closed. Or
//! silence: then they stay open, and nothing goes through. Or deafen: then what is asked goes through, and the answers
//! are lost. Or hang up: then whoever connects is listened to once, and not answered.
use crate::answers::{Answers, Protocol};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
};

/// Of what is read at once from a server whose answers are lost.
const CHUNK: usize = 16 << 10;

/// A TCP proxy on a port of its own.
pub struct Proxy {
    /// Where to connect to.
    pub address: SocketAddr,
    state: watch::Sender<State>,
    lost: Arc<AtomicUsize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    mode: Mode,
    /// Connections of before a cut are closed, however soon it is mended.
    cuts: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Open,
    Cut,
    Silent,
    Deaf(Protocol),
    HangsUp,
}

/// One connection's surroundings.
#[derive(Clone)]
struct Wire {
    target: String,
    state: watch::Receiver<State>,
    lost: Arc<AtomicUsize>,
}

impl Proxy {
    /// Forwards to `target`, such as `127.0.0.1:5672`.
    pub async fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound port");
        let (state, seen) = watch::channel(State { mode: Mode::Open, cuts: 0 });
        let lost = Arc::new(AtomicUsize::new(0));
        tokio::spawn(accept(listener, Wire { target, state: seen, lost: lost.clone() }));
        Self { address, state, lost }
    }

    /// Closes every connection and refuses new ones.
    pub fn cut(&self) {
        self.state.send_modify(|state| *state = State { mode: Mode::Cut, cuts: state.cuts + 1 });
    }

    /// Lets nothing through, as a host that was switched off: nobody is told.
    pub fn silence(&self) {
        self.turn(Mode::Silent);
    }

    /// Closes every connection, and new ones as soon as something was asked: as a balancer without a server behind it.
    pub fn hang_up(&self) {
        self.state.send_modify(|state| *state = State { mode: Mode::HangsUp, cuts: state.cuts + 1 });
    }

    /// From here on answers are lost.
    pub fn deafen(&self, protocol: Protocol) {
        self.lost.store(0, SeqCst);
        self.turn(Mode::Deaf(protocol));
    }

    /// Answers that were lost since it was deafened.
    pub fn lost(&self) -> usize {
        self.lost.load(SeqCst)
    }

    /// Forwards again.
    pub fn mend(&self) {
        self.turn(Mode::Open);
    }

    fn turn(&self, mode: Mode) {
        self.state.send_modify(|state| state.mode = mode);
    }
}

async fn accept(listener: TcpListener, wire: Wire) {
    while let Ok((client, _)) = listener.accept().await {
        if wire.state.borrow().mode != Mode::Cut {
            tokio::spawn(forward(client, wire.clone()));
        }
    }
}

async fn forward(mut client: TcpStream, mut wire: Wire) {
    let cuts = wire.state.borrow().cuts;
    let _ = wire.state.wait_for(|state| state.mode != Mode::Silent || state.cuts != cuts).await;
    let Ok(mut server) = TcpStream::connect(&wire.target).await else {
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let mut state = wire.state.clone();
    loop {
        let now = *state.borrow_and_update();
        if now.cuts != cuts {
            return;
        }
        // Bytes on their way stay with the kernel, which tells nobody.
        tokio::select! {
            () = pass(now.mode, &mut client, &mut server, &wire.lost) => return,
            changed = state.changed() => if changed.is_err() { return },
        }
    }
}

/// What a connection does in that state, until it is over.
async fn pass(mode: Mode, client: &mut TcpStream, server: &mut TcpStream, lost: &AtomicUsize) {
    match mode {
        Mode::Open => drop(copy_bidirectional(client, server).await),
        Mode::Cut => {}
        Mode::Silent => std::future::pending().await,
        Mode::HangsUp => drop(client.read(&mut [0; CHUNK]).await),
        Mode::Deaf(protocol) => {
            let (mut asks, mut hears) = client.split();
            let (mut answers, mut asked) = server.split();
            tokio::select! {
                _ = copy(&mut asks, &mut asked) => {}
                () = lose(protocol, &mut answers, &mut hears, lost) => {}
            }
        }
    }
}

/// Loses the answers; what is none goes through.
async fn lose(protocol: Protocol, from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>, lost: &AtomicUsize) {
    let (mut answers, mut chunk) = (Answers::of(protocol), vec![0; CHUNK]);
    while let Ok(read @ 1..) = from.read(&mut chunk).await {
        let (through, count) = answers.sift(&chunk[..read]);
        if to.write_all(&through).await.is_err() {
            return;
        }
        lost.fetch_add(count, SeqCst);
    }
}
