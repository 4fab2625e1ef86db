//! The end of a connection: what the client still sends is read away, so that it gets its answer.

use super::{Connection, Stream};
use crate::http::heads::ServerHandle;
use std::rc::Rc;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

/// `lingering_close`: says that nothing more comes, and reads until the client has understood.
pub(super) async fn linger<S: Stream>(handle: &ServerHandle<S>, connection: &Rc<Connection>) {
    let core = connection.with_host(|hosts| std::sync::Arc::clone(&hosts.default.base.settings.core));
    let Some(mut tunnel) = handle.tunnel() else { return };
    // Who has gone already does not hear it.
    if tunnel.shutdown().await.is_err() || core.lingering_close == crate::http::modules::core::Lingering::Off {
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
