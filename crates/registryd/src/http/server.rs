//! Listeners, connections, and the frame around every handler.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fs_err::File;
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue, SERVER, WWW_AUTHENTICATE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::access::{Access, Caller, Right};
use crate::auth::Users;
use crate::engine::EngineImages;
use crate::error::Refusal;
use crate::http::answer::{self, Answer, Body};
use crate::http::query::Query;
use crate::http::route::Target;
use crate::http::socket::{Patient, Requests, Socket, acceptor};
use crate::http::{blobs, lists, manifests, uploads};
use crate::name::Name;
use crate::proxy::Upstream;
use crate::uploads::Uploads;
use crate::{Config, Error, Registry};

/// How long a process that was killed may hold the lock.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of a request's head.
const MAX_HEAD: usize = 64 << 10;

const NAME: HeaderValue = HeaderValue::from_static(concat!("Silo/", env!("CARGO_PKG_VERSION")));
/// By which Docker's clients know a registry.
const API: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// What answers requests.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) registry: Registry,
    pub(crate) uploads: Arc<Uploads>,
    pub(crate) config: Config,
    users: Option<Users>,
    access: Option<Access>,
    /// The engine's images, if they are served.
    engine: Option<EngineImages>,
    /// The registry behind this one.
    pub(crate) upstream: Option<Arc<Upstream>>,
    transfers: Semaphore,
    /// Layers that are being made.
    makers: Arc<Semaphore>,
}

impl Server {
    /// The engine's images, if a repository is one of theirs.
    pub(crate) fn engine(&self, repository: &Name) -> Option<&EngineImages> {
        self.engine.as_ref().filter(|engine| engine.owns(repository))
    }

    /// The engine's images, if they are served.
    pub(crate) fn engine_images(&self) -> Option<&EngineImages> {
        self.engine.as_ref()
    }

    /// Waits until another request may bring content.
    pub(crate) async fn transfer(&self) -> Result<SemaphorePermit<'_>, Error> {
        match tokio::time::timeout(self.config.limits.head, self.transfers.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Refusal::busy("too many uploads are going on").into()),
        }
    }

    /// Waits until another layer may be made.
    pub(crate) async fn making(&self) -> Result<OwnedSemaphorePermit, Error> {
        let permit = Arc::clone(&self.makers).acquire_owned();
        match tokio::time::timeout(self.config.limits.head, permit).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Refusal::busy("too many layers of the engine are being fetched").into()),
        }
    }
}

/// Layers that are made at once.
const MAKERS: usize = 32;

/// Runs work on the registry where it may block. It goes on when nobody waits for it any more.
pub(crate) async fn blocking<T: Send + 'static>(
    server: &Arc<Server>,
    work: impl FnOnce(&Registry) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let server = Arc::clone(server);
    let work = move || work(&server.registry);
    tokio::task::spawn_blocking(work).await.map_err(Error::Task)?
}

/// Serves a registry until `stop` is ready. `ready` gets the addresses that are listened on.
pub async fn serve(
    config: Config,
    ready: impl FnOnce(&[SocketAddr]),
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let tls = config.tls.as_ref().map(|(cert, key)| acceptor(cert, key)).transpose()?;
    let users = config.users.as_deref().map(Users::open).transpose()?;
    let access = config.access.as_deref().map(Access::open).transpose()?;
    let engine = config
        .engine_images
        .as_ref()
        .map(|prefix| Ok::<_, Error>(EngineImages::new(&config.root, &prefix.parse::<Name>()?)));
    let engine = engine.transpose()?;
    let upstream = config.proxy.as_ref().map(Upstream::new).transpose()?.map(Arc::new);
    let registry = Registry::open(&config.root)?;
    let _lock = lock(&registry)?;
    registry.files.clear_staging()?;
    let mut listeners = Vec::new();
    let mut addresses = Vec::new();
    for address in &config.listen {
        let failed = |source| Error::Listen { address: *address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        addresses.push(listener.local_addr().map_err(failed)?);
        listeners.push(listener);
    }
    let uploads = Arc::new(Uploads::open(registry.files.clone(), config.limits.clone())?);
    let transfers = Semaphore::new(config.limits.transfers);
    let slots = Arc::new(Semaphore::new(config.limits.connections));
    let makers = Arc::new(Semaphore::new(MAKERS));
    let server = Arc::new(Server {
        registry,
        uploads,
        config,
        users,
        access,
        engine,
        upstream,
        transfers,
        makers,
    });
    let goodbye = watch::Sender::new(false);
    let mut tasks = JoinSet::new();
    for listener in listeners {
        let (server, slots, tls) = (Arc::clone(&server), Arc::clone(&slots), tls.clone());
        tasks.spawn(listen(server, listener, slots, tls, goodbye.subscribe()));
    }
    let collector = server.config.collect.every.map(|every| {
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(every);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                collect(&server).await;
            }
        })
    });
    ready(&addresses);
    stop.await;
    goodbye.send_replace(true);
    if let Some(collector) = collector {
        collector.abort();
    }
    let ended = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(server.config.limits.goodbye, ended).await.is_err() {
        tracing::warn!("requests were cut off");
    }
    tasks.shutdown().await;
    Ok(())
}

fn lock(registry: &Registry) -> Result<File, Error> {
    let path = registry.files.root().join("lock");
    let file = File::create(&path).map_err(Error::io("open", &path))?;
    if silo_sys::lock::exclusive(&file, PATIENCE).map_err(Error::io("lock", &path))? {
        Ok(file)
    } else {
        Err(Error::Busy(registry.files.root().to_owned()))
    }
}

async fn collect(server: &Arc<Server>) {
    let what = server.config.collect.clone();
    match blocking(server, move |registry| registry.collect(&what)).await {
        Ok(collected) => tracing::info!(?collected, "collected"),
        Err(error) => tracing::error!(error = error.chain(), "collect"),
    }
}

async fn listen(
    server: Arc<Server>,
    listener: TcpListener,
    slots: Arc<Semaphore>,
    tls: Option<TlsAcceptor>,
    mut goodbye: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        let accept = async {
            // Who finds no slot waits in the socket's queue.
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            next = accept => next,
            Some(_) = connections.join_next() => continue,
            _ = goodbye.wait_for(|goodbye| *goodbye) => break,
        };
        match (slot, accepted) {
            (Ok(slot), Ok((socket, peer))) => {
                let (server, tls, goodbye) = (Arc::clone(&server), tls.clone(), goodbye.clone());
                connections.spawn(connection(server, socket, peer, tls, slot, goodbye));
            }
            (_, Err(error)) => {
                // Out of descriptors: connections that end will free some.
                tracing::error!(%error, "accept a connection");
                if connections.join_next().await.is_none() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            (Err(_), _) => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(
    server: Arc<Server>,
    socket: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    _slot: OwnedSemaphorePermit,
    mut goodbye: watch::Receiver<bool>,
) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "set TCP_NODELAY");
    }
    let limits = &server.config.limits;
    let socket = match tls {
        None => Socket::Plain(socket),
        Some(tls) => match tokio::time::timeout(limits.head, tls.accept(socket)).await {
            Ok(Ok(socket)) => Socket::Tls(Box::new(socket)),
            Ok(Err(error)) => {
                tracing::debug!(%error, %peer, "TLS handshake");
                return;
            }
            Err(_) => return,
        },
    };
    let requests = Arc::<Requests>::default();
    let io = TokioIo::new(Patient::new(socket, limits, Arc::clone(&requests)));
    let service = service_fn(move |request| {
        let (server, underway) = (Arc::clone(&server), requests.begin());
        async move {
            let response = answer(&server, peer, request).await;
            Ok::<_, Infallible>(response.map(|body| body.until_sent(underway)))
        }
    });
    let serving = http1::Builder::new()
        // The socket knows how long a head may take.
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD)
        .serve_connection(io, service);
    let mut serving = std::pin::pin!(serving);
    let mut leaving = false;
    let served = loop {
        tokio::select! {
            served = serving.as_mut() => break served,
            _ = goodbye.wait_for(|goodbye| *goodbye), if !leaving => {
                leaving = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, %peer, "connection");
    }
}

/// Answers one request, whatever happens.
async fn answer(
    server: &Arc<Server>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Response<Body> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = dispatch(server, peer, request).await.unwrap_or_else(|error| {
        let refusal = error.refusal();
        if refusal.status.is_server_error() {
            tracing::error!(%peer, %method, path, error = error.chain(), "request failed");
        }
        answer::refused(&refusal)
    });
    tracing::debug!(%peer, %method, path, status = response.status().as_u16(), "request");
    if method == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    let headers = response.headers_mut();
    headers.insert(SERVER, NAME);
    headers.insert(API, HeaderValue::from_static("registry/2.0"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    if response.status() == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Basic realm=\"Silo registry\"");
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    response
}

/// Who a request is from.
async fn caller(server: &Server, headers: &HeaderMap) -> Result<Caller, Error> {
    let access = server.access.as_ref();
    let Some(users) = &server.users else { return Ok(Caller::new(None, access)) };
    let user = users.user(headers).await?;
    // Who gives a wrong name does not go on as one without, and without rules nobody may.
    if user.is_none() && (access.is_none() || Users::is_named(headers)) {
        return Err(Refusal::nameless().into());
    }
    Ok(Caller::new(user, access))
}

/// Refuses what the rules do not allow.
fn permit(
    server: &Server,
    caller: &Caller,
    method: &Method,
    target: &Target,
) -> Result<(), Refusal> {
    let reads = method == Method::GET || method == Method::HEAD;
    let (right, name) = match target {
        // Clients ask here whether they need a password; all who could have one do.
        Target::Root | Target::Base if server.users.is_some() && !caller.is_known() => {
            return Err(Refusal::nameless());
        }
        Target::Root | Target::Base | Target::Catalog => return Ok(()),
        Target::Uploads(name) | Target::Upload(name, _) => (Right::Push, name),
        Target::Blob(name, _)
        | Target::Manifest(name, _)
        | Target::Tags(name)
        | Target::Referrers(name, _) => match method {
            _ if reads => (Right::Pull, name),
            &Method::DELETE => (Right::Delete, name),
            _ => (Right::Push, name),
        },
    };
    if caller.may(right, name) {
        if right > Right::Pull && server.engine(name).is_some() {
            let text = "the images of the engine can only be pulled; tag and push them elsewhere";
            return Err(Refusal::unsupported(text));
        }
        Ok(())
    } else if server.users.is_some() && !caller.is_known() {
        Err(Refusal::nameless())
    } else {
        Err(Refusal::denied())
    }
}

async fn dispatch(server: &Arc<Server>, peer: SocketAddr, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let (method, headers) = (&parts.method, &parts.headers);
    if parts.uri.path() == "/" {
        // For those who only look whether anything answers.
        return Ok(answer::status(StatusCode::OK));
    }
    let caller = caller(server, headers).await?;
    let target = Target::parse(parts.uri.path())?;
    permit(server, &caller, method, &target)?;
    let query = Query::parse(parts.uri.query().unwrap_or_default())?;
    let reads = method == Method::GET || method == Method::HEAD;
    if !reads && server.upstream.is_some() {
        let text = "the registry keeps what another one has; push to that one";
        return Err(Refusal::unsupported(text).into());
    }
    if !reads && server.config.read_only {
        return Err(Refusal::unsupported("the registry is read-only").into());
    }
    if method == Method::DELETE && server.config.no_delete && !matches!(target, Target::Upload(..))
    {
        return Err(Refusal::unsupported("nothing can be deleted from the registry").into());
    }
    match (method.as_str(), target) {
        ("GET" | "HEAD", Target::Base) => Ok(answer::json("application/json", b"{}".to_vec())),
        ("GET", Target::Catalog) => lists::catalog(server, &query, caller).await,
        ("GET", Target::Tags(name)) => lists::tags(server, name, &query).await,
        ("GET", Target::Referrers(name, digest)) => {
            lists::referrers(server, name, digest, &query).await
        }
        ("GET" | "HEAD", Target::Blob(name, digest)) => {
            blobs::get(server, method, name, digest, headers).await
        }
        ("DELETE", Target::Blob(name, digest)) => blobs::delete(server, name, digest).await,
        ("GET" | "HEAD", Target::Manifest(name, reference)) => {
            manifests::get(server, method, name, reference, headers).await
        }
        ("PUT", Target::Manifest(name, reference)) => {
            manifests::put(server, name, reference, &query, headers, body).await
        }
        ("DELETE", Target::Manifest(name, reference)) => {
            manifests::delete(server, name, reference).await
        }
        ("POST", Target::Uploads(name)) => {
            uploads::post(server, name, &query, headers, (peer, &caller), body).await
        }
        ("GET" | "HEAD", Target::Upload(name, id)) => uploads::status(server, name, id).await,
        ("PATCH", Target::Upload(name, id)) => {
            uploads::patch(server, name, id, headers, body).await
        }
        ("PUT", Target::Upload(name, id)) => {
            uploads::put(server, name, id, &query, headers, body).await
        }
        ("DELETE", Target::Upload(name, id)) => uploads::cancel(server, name, id).await,
        _ => Err(Refusal::unsupported(format!("{method} is not for this path")).into()),
    }
}
