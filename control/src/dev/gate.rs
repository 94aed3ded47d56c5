//! The way into the stage's network: a port of this machine's loopback that leads to the controller's API.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;

use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;

use super::API;
use crate::lab::{World, enter_world};

/// Leads connections to `listener` into the world, until the process ends.
///
/// # Errors
/// When the world's network cannot be entered, or threads cannot be had.
pub(super) fn open(world: &Arc<World>, listener: TcpListener) -> io::Result<SocketAddr> {
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let world = Arc::clone(world);
    let (ready, opened) = std::sync::mpsc::channel();
    thread::Builder::new().name("gate".to_owned()).spawn(move || {
        // Sockets belong to the network that their thread is in when it makes them: the listener was made outside.
        let entered = enter_world(&world).map_err(|error| io::Error::other(error.to_string()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let begun = entered.and(runtime).and_then(|runtime| {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener).map(|listener| (runtime, listener))
        });
        let (told, begun) = match begun {
            Ok(begun) => (Ok(()), Some(begun)),
            Err(error) => (Err(error), None),
        };
        if ready.send(told).is_err() {
            return;
        }
        if let Some((runtime, listener)) = begun {
            runtime.block_on(async {
                while let Ok((mut outside, _)) = listener.accept().await {
                    tokio::spawn(async move {
                        if let Ok(mut inside) = TcpStream::connect(API).await {
                            // Whoever hangs up first has said all.
                            let _ = copy_bidirectional(&mut outside, &mut inside).await;
                        }
                    });
                }
            });
        }
    })?;
    opened.recv().map_err(|_| io::Error::other("the gate's thread has ended"))??;
    Ok(address)
}
