//! Sets of addresses: `all`, `unix:`, an address, a CIDR network.

use std::net::IpAddr;

/// A set of client addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    All,
    /// Clients of unix sockets.
    Unix,
    Net {
        address: IpAddr,
        bits: u8,
        host_bits: bool,
    },
}

impl Network {
    /// Reads nginx's spelling.
    pub fn parse(text: &[u8]) -> Option<Self> {
        match text {
            b"all" => return Some(Self::All),
            b"unix:" => return Some(Self::Unix),
            _ => {}
        }
        let text = std::str::from_utf8(text).ok()?;
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address.parse::<IpAddr>().ok()?, Some(bits)),
            None => (text.parse::<IpAddr>().ok()?, None),
        };
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) => mask_bits(bits).filter(|bits| *bits <= most)?,
        };
        let masked = mask(address, bits);
        Some(Self::Net { address: masked, bits, host_bits: masked != address })
    }

    /// One address.
    pub fn host(address: IpAddr) -> Self {
        Self::Net { address, bits: if address.is_ipv4() { 32 } else { 128 }, host_bits: false }
    }

    /// The first address of the network that an address has with so many bits.
    pub fn first(address: IpAddr, bits: u8) -> IpAddr {
        mask(address, bits)
    }

    /// Whether bits outside the mask were written.
    pub fn has_host_bits(self) -> bool {
        matches!(self, Self::Net { host_bits: true, .. })
    }

    /// Whether a client belongs to it; `None` is a client of a unix socket.
    pub fn contains(self, client: Option<IpAddr>) -> bool {
        match (self, client) {
            (Self::All, _) | (Self::Unix, None) => true,
            (Self::Net { address, bits, .. }, Some(client)) => {
                let client = client.to_canonical();
                client.is_ipv4() == address.is_ipv4() && mask(client, bits) == address
            }
            _ => false,
        }
    }
}

/// The number of bits, or an IPv4 mask whose ones come first.
fn mask_bits(text: &str) -> Option<u8> {
    if let Ok(bits) = text.parse() {
        return Some(bits);
    }
    let mask = u32::from(text.parse::<std::net::Ipv4Addr>().ok()?);
    let ones = mask.leading_ones();
    (mask.count_ones() == ones).then(|| u8::try_from(ones).unwrap_or(32))
}

fn mask(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_what_their_bits_say() {
        let client = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        for (network, ip, inside) in [
            ("all", "1.2.3.4", true),
            ("10.0.0.0/8", "10.200.1.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/255.0.0.0", "10.1.1.1", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "::ffff:127.0.0.1", true),
            ("0.0.0.0/0", "9.9.9.9", true),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "1.2.3.4", false),
        ] {
            assert_eq!(Network::parse(network.as_bytes()).unwrap().contains(client(ip)), inside, "{network} {ip}");
        }
        assert!(Network::parse(b"unix:").unwrap().contains(None));
        for wrong in ["1.2.3", "1.2.3.4/33", "::1/129", "1.2.3.4/255.0.255.0", "host"] {
            assert_eq!(Network::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
