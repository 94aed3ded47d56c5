//! The Unix socket, and one task for each connection that the switch hands over.

use super::{
    documents::Documents,
    limits::{Limits, Ports},
    preamble,
    report::Received,
    routes::Routes,
};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use thiserror::Error;
use tokio::{
    io::BufReader,
    net::{UnixListener, UnixStream},
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::timeout,
};

/// Reports that wait to be read.
const REPORTS: usize = 1024;
/// Connections of all ports together.
const CONNECTIONS: usize = 8192;
/// Pause after an accept that failed, as when there are too many descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The longest head of a request, in bytes (the least that hyper takes), and its most headers.
const HEAD: usize = 8192;
const HEADERS: usize = 32;

/// Why the service does not start.
#[derive(Debug, Error)]
#[error("cannot {act} {path}: {source}")]
pub struct ImdsError {
    /// What was tried.
    act: &'static str,
    /// On what.
    path: String,
    /// Why not.
    source: io::Error,
}

/// A running service; it ends when this is dropped.
#[derive(Debug)]
pub struct Imds {
    documents: Documents,
    path: PathBuf,
    task: JoinHandle<()>,
}

impl Imds {
    /// Listens at `path`, which is taken over if it is there; only who has the rights of `mode` can connect, and that
    /// should be the switch alone, for whoever connects can say to be any port. Reports come out of the receiver; a
    /// guest whose report finds it full is told to try again.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn bind(
        path: &Path,
        mode: u32,
        limits: Limits,
    ) -> Result<(Self, mpsc::Receiver<Received>), ImdsError> {
        let listener = listen(path, mode)?;
        let (reports, inbox) = mpsc::channel(REPORTS);
        let documents = Documents::default();
        let service = Service { documents: documents.clone(), reports, limits, ports: Ports::new(limits) };
        let task = tokio::spawn(service.run(listener));
        Ok((Self { documents, path: path.to_owned(), task }, inbox))
    }

    /// What is published.
    #[must_use]
    pub fn documents(&self) -> &Documents {
        &self.documents
    }
}

impl Drop for Imds {
    fn drop(&mut self) {
        self.task.abort();
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes the socket in a directory that nobody else can enter, and moves it when it has its mode.
fn listen(path: &Path, mode: u32) -> Result<UnixListener, ImdsError> {
    let failed = |act: &'static str| {
        let path = path.display().to_string();
        move |source| ImdsError { act, path, source }
    };
    let closed = path.with_extension("new");
    let _ = fs::remove_dir_all(&closed);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed("make the directory of"))?;
    }
    fs::DirBuilder::new().mode(0o700).create(&closed).map_err(failed("make a directory beside"))?;
    let inside = closed.join("s");
    let listener = UnixListener::bind(&inside).map_err(failed("listen at"))?;
    fs::set_permissions(&inside, fs::Permissions::from_mode(mode)).map_err(failed("set the mode of"))?;
    fs::rename(&inside, path).map_err(failed("put in place"))?;
    let _ = fs::remove_dir(&closed);
    Ok(listener)
}

struct Service {
    documents: Documents,
    reports: mpsc::Sender<Received>,
    limits: Limits,
    ports: Ports,
}

impl Service {
    async fn run(self, listener: UnixListener) {
        let service = Arc::new(self);
        // They end with us.
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            match listener.accept().await {
                Ok((stream, _)) if connections.len() < CONNECTIONS => {
                    connections.spawn(Arc::clone(&service).serve(stream));
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "a metadata connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve(self: Arc<Self>, stream: UnixStream) {
        let mut stream = BufReader::new(stream);
        let preamble = match preamble::read(&mut stream).await {
            Ok(preamble) => preamble,
            Err(error) => {
                // The switch writes it, so this is no guest's doing.
                tracing::warn!(%error, "a metadata connection without a sound preamble");
                return;
            }
        };
        let Some(admission) = self.ports.admit(&preamble.port, Instant::now()) else {
            tracing::debug!(port = preamble.port, peer = preamble.peer, "too many metadata connections");
            return;
        };
        let routes = Arc::new(Routes {
            documents: self.documents.clone(),
            reports: self.reports.clone(),
            limits: self.limits,
            preamble,
            admission,
        });
        let answer = service_fn(move |request| {
            let routes = Arc::clone(&routes);
            async move { Ok::<_, Infallible>(routes.answer(request).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.read)
            .max_buf_size(HEAD)
            .max_headers(HEADERS)
            .half_close(true)
            .serve_connection(TokioIo::new(stream), answer);
        // What goes wrong on a guest's connection is the guest's business.
        let _ = timeout(self.limits.connection, connection).await;
    }
}
