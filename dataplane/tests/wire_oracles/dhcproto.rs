//! dhcproto and we read each other's DHCP.
//!
//! dhcproto 0.15 stops at the first option it dislikes, without an error, ignores option 52 and pads nothing: these
//! corners have their tests in `wire::dhcpv4` itself. It also keeps options sorted, so order is not compared here.

use dataplane::wire::dhcpv4::{self, MessageType, Reply, code};
use dhcproto::v4::{self, DhcpOption, OptionCode, UnknownOption};
use dhcproto::{Decodable as _, Decoder, Encodable as _, Encoder};
use ipnet::Ipv4Net;

use crate::*;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

fn joined(value: Option<dhcpv4::Value<'_>>) -> Option<Vec<u8>> {
    value.map(|value| value.bytes().collect())
}

proptest! {
    #[test]
    fn their_requests(xid: u32, mac in mac(), requested: [u8; 4], ciaddr: [u8; 4], broadcast: bool, size: u16,
                      client_id in proptest::collection::vec(any::<u8>(), 2..40), class in proptest::collection::vec(any::<u8>(), 1..40)) {
        let mut theirs = v4::Message::default();
        let flags = if broadcast { v4::Flags::default().set_broadcast() } else { v4::Flags::default() };
        theirs.set_xid(xid).set_chaddr(&mac.0).set_ciaddr(ciaddr).set_flags(flags);
        let options = theirs.opts_mut();
        options.insert(DhcpOption::MessageType(v4::MessageType::Request));
        options.insert(DhcpOption::RequestedIpAddress(requested.into()));
        options.insert(DhcpOption::ServerIdentifier(SERVER));
        options.insert(DhcpOption::MaxMessageSize(size));
        options.insert(DhcpOption::ParameterRequestList(vec![OptionCode::SubnetMask, OptionCode::Router]));
        options.insert(DhcpOption::ClientIdentifier(client_id.clone()));
        options.insert(DhcpOption::ClassIdentifier(class.clone()));
        options.insert(DhcpOption::RapidCommit);
        let mut bytes = Vec::new();
        theirs.encode(&mut Encoder::new(&mut bytes)).unwrap();

        let ours = dhcpv4::Message::parse(&bytes).unwrap();
        prop_assert_eq!((ours.is_reply, ours.xid, ours.chaddr), (false, xid, mac));
        prop_assert_eq!((ours.ciaddr, ours.flags & dhcpv4::BROADCAST_FLAG != 0), (ciaddr.into(), broadcast));
        prop_assert_eq!(ours.message_type, Some(MessageType::Request));
        prop_assert_eq!((ours.requested_ip, ours.server_id), (Some(requested.into()), Some(SERVER)));
        prop_assert_eq!((ours.max_message_bytes, ours.rapid_commit), (Some(size), true));
        prop_assert_eq!(joined(ours.parameter_requests), Some(vec![1, 3]));
        prop_assert_eq!(joined(ours.client_id), Some(client_id));
        prop_assert_eq!(joined(ours.vendor_class), Some(class));
    }

    #[test]
    fn our_replies(xid: u32, mac in mac(), address: [u8; 4], seconds: u32, mtu in 68_u16.., domain in "[a-z]{1,40}",
                   routes in proptest::collection::vec((any::<[u8; 4]>(), 0_u8..=32), 1..8),
                   client_id in proptest::collection::vec(any::<u8>(), 2..40)) {
        let mut request = vec![0; 236];
        request[..4].copy_from_slice(&[1, 1, 6, 0]);
        request[4..8].copy_from_slice(&xid.to_be_bytes());
        request[28..34].copy_from_slice(&mac.0);
        request.extend([99, 130, 83, 99, 53, 1, 1, 61, u8::try_from(client_id.len()).unwrap()]);
        request.extend(&client_id);
        let request = dhcpv4::Message::parse(&request).unwrap();
        let routes: Vec<_> = routes.into_iter().map(|(ip, length)| (Ipv4Net::new(ip.into(), length).unwrap().trunc(), SERVER)).collect();
        let ours = Reply {
            yiaddr: address.into(),
            lease_seconds: Some(seconds),
            renewal_seconds: Some(seconds / 2),
            rebinding_seconds: Some(seconds - seconds / 8),
            subnet_mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
            routers: &[SERVER],
            dns: &[SERVER, Ipv4Addr::BROADCAST],
            domain: &domain,
            mtu: Some(mtu),
            broadcast: Some(Ipv4Addr::BROADCAST),
            classless_routes: &routes,
            wireserver: Some(Ipv4Addr::new(168, 63, 129, 16)),
            host_name: "web-1",
            message: "hello",
            ..Reply::to(&request, MessageType::Offer, SERVER)
        };
        let mut out = [0; 1500];
        let length = ours.emit(&mut out).unwrap();

        let theirs = v4::Message::decode(&mut Decoder::new(&out[..length])).unwrap();
        prop_assert_eq!((theirs.opcode(), theirs.xid(), theirs.chaddr()), (v4::Opcode::BootReply, xid, &mac.0[..]));
        prop_assert_eq!(theirs.yiaddr(), Ipv4Addr::from(address));
        let expected = [
            DhcpOption::MessageType(v4::MessageType::Offer),
            DhcpOption::ServerIdentifier(SERVER),
            DhcpOption::AddressLeaseTime(seconds),
            DhcpOption::Renewal(seconds / 2),
            DhcpOption::Rebinding(seconds - seconds / 8),
            DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)),
            DhcpOption::Router(vec![SERVER]),
            DhcpOption::DomainNameServer(vec![SERVER, Ipv4Addr::BROADCAST]),
            DhcpOption::DomainName(domain.clone()),
            DhcpOption::InterfaceMtu(mtu),
            DhcpOption::BroadcastAddr(Ipv4Addr::BROADCAST),
            DhcpOption::ClasslessStaticRoute(routes.clone()),
            DhcpOption::Unknown(UnknownOption::new(OptionCode::Unknown(code::WIRESERVER), vec![168, 63, 129, 16])),
            DhcpOption::Hostname("web-1".into()),
            DhcpOption::Message("hello".into()),
            DhcpOption::ClientIdentifier(client_id),
        ];
        for option in &expected {
            prop_assert_eq!(theirs.opts().get(OptionCode::from(option)), Some(option));
        }
        prop_assert_eq!(theirs.opts().len(), expected.len());
    }
}
