//! Networks: addresses that begin with the same bits.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    base: u128,
    mask: u128,
    is_v4: bool,
}

impl Network {
    /// Whether the address is one of them. An IPv4 address in IPv6 clothes is an IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (bits, is_v4) = bits_of(address.to_canonical());
        is_v4 == self.is_v4 && bits & self.mask == self.base
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.mask.leading_ones();
        match self.is_v4 {
            true => write!(f, "{}/{bits}", Ipv4Addr::from_bits((self.base >> 96) as u32)),
            false => write!(f, "{}/{bits}", Ipv6Addr::from_bits(self.base)),
        }
    }
}

fn bits_of(address: IpAddr) -> (u128, bool) {
    match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, true),
        IpAddr::V6(v6) => (v6.to_bits(), false),
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Network, String> {
        const SHAPE: &str = "a network is an address, or address/bits such as 10.0.0.0/8";
        let (address, length) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| format!("{address:?} is not an IP address; {SHAPE}"))?;
        let (bits, is_v4) = bits_of(address);
        let widest = if is_v4 { 32 } else { 128 };
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        let length = length.map_or(Some(widest), digits).filter(|&length| length <= widest);
        let length = length.ok_or_else(|| format!("more than {widest} bits, or not a number of bits; {SHAPE}"))?;
        let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
        Ok(Network { base: bits & mask, mask, is_v4 })
    }
}
