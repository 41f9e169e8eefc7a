//! Connections, one after the other, as many at a time as there are places.
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// Connections that wait to be accepted: when a process dies, all that watched over it come to another at once. The system's
/// own limit (`net.core.somaxconn`) may be lower.
const BACKLOG: u32 = 4_096;
/// Between tries to accept, when the system is short of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound port.
pub(crate) struct Listener {
    inner: TcpListener,
    places: Arc<Semaphore>,
}

/// A connection, and its place, given back when this is dropped.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) place: OwnedSemaphorePermit,
}

impl Listener {
    pub(super) fn bind(address: SocketAddr, connections: usize) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Connections of the process before may linger.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self { inner: socket.listen(BACKLOG)?, places: Arc::new(Semaphore::new(connections)) })
    }

    /// Where it listens: the port the system chose, where port 0 was asked for.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// The next connection, once there is a place for it. Out of file descriptors or memory the next try waits: at once, it
    /// would fail as well.
    pub(super) async fn accept(&self) -> Accepted {
        #[expect(clippy::expect_used, reason = "nobody closes the semaphore")]
        let place = self.places.clone().acquire_owned().await.expect("open");
        loop {
            let error = match self.inner.accept().await {
                // Without TCP_NODELAY small answers wait some 40 ms for the client's delayed ACK. Where it can't be set, the
                // client has gone already.
                Ok((stream, peer)) if stream.set_nodelay(true).is_ok() => return Accepted { stream, peer, place },
                Ok(_) => continue,
                Err(error) => error,
            };
            let is_the_peers = matches!(
                error.kind(),
                io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
            );
            if !is_the_peers {
                tracing::warn!(%error, "no connection can be accepted for the moment");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
