//! The end of a connection: what the client still sends is read away, so that it gets its answer.

use super::{Connection, Stream};
use crate::http::{heads::ServerHandle, modules::core::Lingering};
use std::{
    rc::Rc,
    task::{Context, Poll, Waker},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

/// Whether the client may still be sending, so that a plain close would cost it its answer
/// (`ngx_http_finalize_connection`).
pub(super) fn lingers<S: Stream>(handle: &ServerHandle<S>, connection: &Rc<Connection>) -> bool {
    match connection.with_host(|hosts| hosts.default.base.settings.core.lingering_close) {
        Lingering::Off => false,
        Lingering::Always => true,
        Lingering::On => {
            let mut nobody = Context::from_waker(Waker::noop());
            !handle.is_read() || matches!(handle.poll_wait(&mut nobody), Poll::Ready(Ok(true)))
        }
    }
}

/// `lingering_close`: says that nothing more comes, and reads until the client has understood.
pub(super) async fn linger<S: Stream>(handle: &ServerHandle<S>, connection: &Rc<Connection>) {
    let core = connection.with_host(|hosts| std::sync::Arc::clone(&hosts.default.base.settings.core));
    let Some(mut tunnel) = handle.tunnel() else { return };
    // Who has gone already does not hear it.
    if tunnel.shutdown().await.is_err() {
        return;
    }
    let end = Instant::now() + core.lingering_time.0;
    let mut sink = vec![0; 4096];
    loop {
        let wait = core.lingering_timeout.0.min(end.saturating_duration_since(Instant::now()));
        match tokio::time::timeout(wait, tunnel.read(&mut sink)).await {
            Ok(Ok(read)) if read > 0 => {}
            _ => return,
        }
    }
}
