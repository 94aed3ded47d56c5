//! TCP in, TLS streams out. What strangers can take is bounded: handshakes at once, their time, and how many connections
//! without a certificate there are and for how long.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use super::identity::{HostCertificate, host_certificate};

/// Handshakes at once.
const MOST_HANDSHAKES: usize = 64;
/// How long a handshake may last.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections without a certificate at once: hosts that join.
const MOST_STRANGERS: usize = 64;
/// How long one of those may last.
const STRANGER: Duration = Duration::from_secs(30);

/// Who is at the other end, as TLS has verified it.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    /// The host; none: somebody without a certificate.
    pub(super) host: Option<HostCertificate>,
    pub(super) address: SocketAddr,
}

/// A connection after its handshake.
pub(super) struct Link {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    /// A stranger's room, and the end of its time.
    stranger: Option<(OwnedSemaphorePermit, Pin<Box<Sleep>>)>,
}

impl Connected for Link {
    type ConnectInfo = Peer;
    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some((_, end)) = &mut self.stranger
            && end.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Accepts until told to stop; each connection that gets through its handshake comes out of the channel.
pub(super) async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    out: mpsc::Sender<io::Result<Link>>,
    stopping: CancellationToken,
) {
    let handshakes = Arc::new(Semaphore::new(MOST_HANDSHAKES));
    let strangers = Arc::new(Semaphore::new(MOST_STRANGERS));
    loop {
        // Whoever finds no room waits in the kernel's queue.
        let room = tokio::select! {
            () = stopping.cancelled() => return,
            room = handshakes.clone().acquire_owned() => room,
        };
        let Ok(room) = room else { return };
        let accepted = tokio::select! {
            () = stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                let (acceptor, strangers, out) = (acceptor.clone(), strangers.clone(), out.clone());
                tokio::spawn(async move {
                    match timeout(HANDSHAKE, greet(stream, address, &acceptor, &strangers)).await {
                        Ok(Ok(link)) => {
                            let _ = out.send(Ok(link)).await;
                        }
                        Ok(Err(error)) => tracing::debug!(%address, %error, "a connection is refused"),
                        Err(_) => tracing::debug!(%address, "a handshake took too long"),
                    }
                    drop(room);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: wait for some to come back instead of spinning.
                tracing::warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn greet(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: &TlsAcceptor,
    strangers: &Arc<Semaphore>,
) -> io::Result<Link> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let host = certificate.map(|der| host_certificate(der)).transpose().map_err(io::Error::other)?;
    let stranger = if host.is_some() {
        None
    } else {
        let room = strangers.clone().try_acquire_owned().map_err(io::Error::other)?;
        Some((room, Box::pin(sleep(STRANGER))))
    };
    Ok(Link { stream, peer: Peer { host, address }, stranger })
}
