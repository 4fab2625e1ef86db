//! The whole pipeline without a socket, a file or a name: a configuration and a request in, an answer out. Tests and
//! fuzz targets stand on it.

use super::{
    Http,
    body::{BodyError, RequestBody},
    connection::{self, Connection},
    exchange::Exchange,
    heads::{Framing, RequestHead},
    modules::Settings,
    pipeline,
    response::{self, Response},
    worker::Worker,
};
use crate::{
    config::{Inputs, Scope, scope::Surroundings, values::Address},
    generation::Generation,
    process::worker::Current,
    syntax::{self, Fault, Source, Sources},
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

/// What a client would have got.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub head: Vec<u8>,
    pub body: Vec<u8>,
}

/// Reads what stands in `http {}`, and what is wrong with it.
pub fn read(text: &[u8]) -> (Http, Sources, Vec<Fault>) {
    let mut faults = Vec::new();
    let block = syntax::parse(0, text, &mut faults);
    let source = Source { path: "nginx.conf".into(), text: text.into(), included_at: None };
    let surroundings = Surroundings {
        prefix: "/nowhere/".into(),
        conf: "/nowhere/".into(),
        host_name: "testing".to_owned(),
        superuser: true,
        access_log: "/dev/null".into(),
        temp_folders: Vec::new(),
    };
    let scope = Scope::new(surroundings, &Nothing);
    let http = super::generation::read(&block, Settings::default(), 512, &scope);
    faults.extend(scope.take_faults());
    (http, Sources(vec![source]), faults)
}

/// What the first listener answers; `None`: the connection is closed without a word.
///
/// # Errors
/// The body could not be sent to its end.
pub async fn answer(http: Arc<Http>, head: RequestHead) -> Result<Option<Reply>, BodyError> {
    let connection = Rc::new(connection(http));
    let mut exchange = connection::exchange(&connection, Box::new(head), RequestBody::default());
    let response = match connection::place(&mut exchange) {
        Ok(()) => pipeline::answer(&mut exchange).await,
        Err(status) => pipeline::refuse(&mut exchange, status).await,
    };
    match response {
        Some(response) => written(&exchange, *response).await.map(Some),
        None => Ok(None),
    }
}

/// The exchange of a request before anything was done with it.
pub fn exchange(http: Arc<Http>, head: RequestHead) -> Box<Exchange> {
    connection::exchange(&Rc::new(connection(http)), Box::new(head), RequestBody::default())
}

/// A connection to the first listener.
pub fn connection(http: Arc<Http>) -> Connection {
    let generation = Generation { http: Arc::clone(&http), shutdown_timeout: None };
    let worker = Rc::new(Worker::new(Current::new(Arc::new(generation))));
    let listener = Arc::clone(&http.listeners[0]);
    Connection::new(worker, http, listener, 1, tcp(40000)).made_to(tcp(80))
}

fn tcp(port: u16) -> Address {
    Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// Writes an answer as it would go out, but for the framing of its body.
///
/// # Errors
/// The body could not be sent to its end.
pub async fn written(exchange: &Exchange, mut response: Response) -> Result<Reply, BodyError> {
    let framing = response::framing(exchange, &response);
    let head = response::head(exchange, &response, framing, framing != Framing::Close);
    let mut body = Vec::new();
    if !response.bodyless(exchange) {
        while let Some(piece) = std::future::poll_fn(|cx| response.body.poll_next(cx)).await {
            body.extend_from_slice(&piece?);
        }
    }
    Ok(Reply { status: response.status, head, body })
}

/// A world without files and names, but for loopback.
struct Nothing;

impl Inputs for Nothing {
    fn read(&self, _path: &Path) -> io::Result<Vec<u8>> {
        Err(io::Error::from_raw_os_error(libc::ENOENT))
    }

    fn glob(&self, _pattern: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }

    fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        match host {
            "localhost" => Ok(vec![Ipv4Addr::LOCALHOST.into()]),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}
