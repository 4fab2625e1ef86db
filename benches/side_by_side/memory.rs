//! Memory per idle connection.

use crate::{
    number,
    programs::{Contender, memory},
};
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

/// Six waves of connections that made one request each and stay open.
pub(crate) fn idle(contender: &Contender) {
    let wait = Duration::from_secs(number("TIDEGATE_BENCH_WAIT", 3));
    let mut open = Vec::new();
    let mut sizes = vec![memory(contender.child.id())];
    for _ in 0..6 {
        for _ in 0..1000 {
            match one_request(contender.port) {
                Ok(stream) => open.push(stream),
                Err(error) => {
                    println!("  {:<9} gave up after {} connections: {error}", contender.name, open.len());
                    return;
                }
            }
        }
        std::thread::sleep(wait);
        sizes.push(memory(contender.child.id()));
    }
    let alive = open.iter_mut().filter_map(|stream| still_open(stream).then_some(())).count();
    let growth = (i64::try_from(sizes[6]).unwrap_or(0) - i64::try_from(sizes[2]).unwrap_or(0)) / 4000;
    let waves: Vec<String> = sizes.iter().map(|size| format!("{:.1}", mebibytes(*size))).collect();
    println!(
        "  {:<9} {growth:>6}   (MiB before and after each wave: {}; {alive} of 6000 still open)",
        contender.name,
        waves.join(" ")
    );
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// A connection that has had one answer.
fn one_request(port: u16) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /small HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while !answer.ends_with(b"hello, world\n") {
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&chunk[..count]);
    }
    Ok(stream)
}

fn still_open(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).is_ok()
        && matches!(stream.read(&mut [0; 1]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}
