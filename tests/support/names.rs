//! A name server that says where each name is at the moment.

use std::collections::HashMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// It answers as long as it is there.
pub(crate) struct Names {
    places: Arc<Mutex<HashMap<String, Ipv4Addr>>>,
    pub(crate) port: u16,
}

impl Names {
    /// One that knows no name yet.
    pub(crate) fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        let port = socket.local_addr().expect("an address").port();
        let places: Arc<Mutex<HashMap<String, Ipv4Addr>>> = Arc::default();
        let known = Arc::downgrade(&places);
        std::thread::spawn(move || {
            let mut packet = [0; 512];
            while let Some(places) = known.upgrade() {
                if let Ok((length, client)) = socket.recv_from(&mut packet)
                    && let Some(reply) = reply(&packet[..length], &places.lock().expect("names"))
                {
                    let _ = socket.send_to(&reply, client);
                }
            }
        });
        Self { places, port }
    }

    /// From now on a name is there.
    pub(crate) fn set(&self, name: &str, place: Ipv4Addr) {
        self.places.lock().expect("names").insert(name.to_owned(), place);
    }

    /// From now on there is no such name.
    pub(crate) fn forget(&self, name: &str) {
        self.places.lock().expect("names").remove(name);
    }
}

/// The answer to a query of one question (RFC 1035, 4.1).
fn reply(query: &[u8], places: &HashMap<String, Ipv4Addr>) -> Option<Vec<u8>> {
    let (mut at, mut labels) = (12, Vec::new());
    while *query.get(at)? != 0 {
        let length = usize::from(query[at]);
        labels.push(String::from_utf8_lossy(query.get(at + 1..at + 1 + length)?).to_ascii_lowercase());
        at += 1 + length;
    }
    let question = query.get(12..at + 5)?;
    let place = places.get(&labels.join("."));
    let asks_v4 = question[question.len() - 4..] == [0, 1, 0, 1];
    let found = place.filter(|_| asks_v4);
    let code = if place.is_some() { 0 } else { 3 };
    let mut reply = query[..2].to_vec();
    reply.extend([0x81, 0x80 | code, 0, 1, 0, u8::from(found.is_some()), 0, 0, 0, 0]);
    reply.extend_from_slice(question);
    if let Some(place) = found {
        // The name of the question, an address, good for a second.
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        reply.extend(place.octets());
    }
    Some(reply)
}
