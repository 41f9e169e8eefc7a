//! Where a request comes from.
//!
//! That is the other end of its connection, unless that is a gateway which is trusted to say who its own client is. A
//! header that anybody can send decides nothing.
use super::Seldom;
use ipnet::IpNet;
use poem::http::HeaderMap;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

const FORWARDED_FOR: &str = "x-forwarded-for";
/// A gateway that is not trusted is mentioned no more often.
const SAY_EVERY: Duration = Duration::from_mins(1);

/// Whom limits without a token are counted against: an IPv4 address, or the /64 of an IPv6 one, which is the least that
/// one customer is given, and has more addresses than anybody could count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ClientNetwork(IpAddr);

impl fmt::Display for ClientNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{address}"),
            IpAddr::V6(address) => write!(f, "{address}/64"),
        }
    }
}

impl ClientNetwork {
    /// Of a request over the operators' listener, where nobody is a stranger.
    pub(crate) const NONE: Self = Self(IpAddr::V4(Ipv4Addr::UNSPECIFIED));

    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self(IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)))
            }
            v4 @ IpAddr::V4(_) => Self(v4),
        }
    }
}

/// The gateways whose word is taken for whom they speak for.
pub(crate) struct TrustedProxies {
    networks: Vec<IpNet>,
    /// Gateways that are none of them.
    untrusted: Seldom,
}

impl TrustedProxies {
    pub(crate) fn new(networks: Vec<IpNet>) -> Self {
        Self { networks, untrusted: Seldom::every(SAY_EVERY) }
    }

    /// Returns whether that is one of them.
    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.networks.iter().any(|network| network.contains(&peer))
    }

    /// Returns who a request with these headers comes from: the last address of its way that is none of ours. Each
    /// gateway adds whom it was asked by at the end; what stands before an address that is not trusted may be anybody's
    /// invention.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> ClientNetwork {
        if !self.trusts(peer) {
            if headers.contains_key(FORWARDED_FOR) {
                self.mention(peer);
            }
            return ClientNetwork::of(peer);
        }
        let mut client = peer;
        let way = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
        let mut way: Vec<&str> = way.flat_map(|value| value.split(',')).map(str::trim).collect();
        while let Some(address) = way.pop().and_then(address_of) {
            client = address;
            if !self.trusts(address) {
                break;
            }
        }
        ClientNetwork::of(client)
    }

    /// All clients of a gateway that is not trusted share one limit: whoever runs it should know.
    fn mention(&self, peer: IpAddr) {
        if self.untrusted.count().is_some() {
            tracing::info!(%peer, "it sends X-Forwarded-For and is not in GAVEL_TRUSTED_PROXIES: limits count against itself");
        }
    }
}

/// An address, with a port or without.
fn address_of(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse().ok().or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(trusted: &[&str], peer: &str, way: &[&str]) -> String {
        let networks = trusted.iter().map(|network| network.parse().unwrap()).collect();
        let headers = way.iter().map(|value| (FORWARDED_FOR.parse().unwrap(), value.parse().unwrap())).collect();
        TrustedProxies::new(networks).client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn a_header_that_anybody_can_send_decides_nothing() {
        assert_eq!(client(&[], "192.0.2.7", &["10.1.1.1"]), "192.0.2.7");
        assert_eq!(client(&["10.0.0.0/8"], "192.0.2.7", &["10.1.1.1"]), "192.0.2.7");
    }

    #[test]
    fn a_trusted_gateway_says_whom_it_speaks_for() {
        let ours = ["10.0.0.0/8", "::1/128"];
        assert_eq!(client(&ours, "10.0.0.1", &["198.51.100.4"]), "198.51.100.4");
        // What the client itself had sent stands before what the gateway has added.
        assert_eq!(client(&ours, "10.0.0.1", &["203.0.113.9, 198.51.100.4"]), "198.51.100.4");
        assert_eq!(client(&ours, "10.0.0.1", &["203.0.113.9", "198.51.100.4"]), "198.51.100.4");
        // Two gateways, one behind the other.
        assert_eq!(client(&ours, "::1", &["198.51.100.4, 10.0.0.2"]), "198.51.100.4");
        assert_eq!(client(&ours, "::ffff:10.0.0.1", &["[2001:db8::7]:443"]), "2001:db8::/64");
        // It says nothing, or nothing that is an address.
        assert_eq!(client(&ours, "10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client(&ours, "10.0.0.1", &["198.51.100.4, unknown"]), "10.0.0.1");
    }

    #[test]
    fn the_addresses_of_one_ipv6_customer_are_one() {
        assert_eq!(client(&[], "2001:db8:1:2:3:4:5:6", &[]), client(&[], "2001:db8:1:2:ffff::1", &[]));
        assert_ne!(client(&[], "2001:db8:1:2::1", &[]), client(&[], "2001:db8:1:3::1", &[]));
    }
}
