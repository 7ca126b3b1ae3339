//! UPnP: a router is found by a question to all of the local network, describes itself, and is asked by SOAP. Source: UPnP
//! Device Architecture 1.1; UPnP Forum, WANIPConnection:1 and :2.
//!
//! # Invariants
//!
//! * Only the host that has answered the question is asked, whatever its answer and its description name.
//! * Of one search, [`MAX_ANSWERS`] answers are looked at.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    time::Duration,
};

use http::{Request, StatusCode, Uri, header};
use roxmltree::{Document, Node, ParsingOptions};
use runtime::Environment;
use tokio::{net::UdpSocket, time};

use super::{
    MappingError,
    http::RouterClient,
    ports::{Carrier, Inside},
};

/// The group in which devices are asked for. Source: UPnP Device Architecture.
pub(super) const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 255, 255, 250), 1_900);

/// Longest wait for answers. Chosen: devices are told to answer within two seconds.
const SEARCH: Duration = Duration::from_secs(3);

/// Answers of a search that are looked at. Chosen.
const MAX_ANSWERS: usize = 16;

/// Longest answer to a search. Chosen: a datagram that no network cuts.
const MAX_ANSWER: usize = 1_500;

/// Elements and texts of a document, at most. Chosen: descriptions have a few hundred.
const MAX_NODES: u32 = 4_096;

/// Longest path of a service. Chosen.
const MAX_PATH: usize = 256;

/// Code of an error: the port is somebody else's. Source: WANIPConnection:1, 2.4.16.
pub(super) const CONFLICT: u16 = 718;

/// Code of an error: the router keeps ports without a time. Source: there.
const ONLY_PERMANENT: u16 = 725;

/// The devices that are asked for.
const DEVICES: [&str; 2] = [
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
];

/// The services that map ports.
const SERVICES: [&str; 3] = [
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];

/// A service that maps ports, and the path at which it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Service {
    kind: &'static str,
    path: String,
}

/// A router that speaks it.
#[derive(Debug)]
pub(super) struct Upnp {
    client: RouterClient,
    service: Service,
    /// The address of the router.
    pub(super) gateway: Ipv4Addr,
    /// The address of this node in the network of the router.
    pub(super) host: Ipv4Addr,
}

/// Where the description of a device lies that has answered from `host`.
fn location(answer: &[u8], host: Ipv4Addr) -> Option<(SocketAddrV4, String)> {
    let text = std::str::from_utf8(answer).ok()?;
    let lines = text.split("\r\n").filter_map(|line| line.split_once(':'));
    let (_, place) = lines.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("location"))?;
    let place: Uri = place.trim().parse().ok()?;
    let is_its_own = place.scheme_str() == Some("http")
        && place.host().and_then(|name| name.parse().ok()) == Some(host);
    let at = SocketAddrV4::new(host, place.port_u16().unwrap_or(80));
    is_its_own.then(|| (at, path_of(&place)))
}

fn path_of(place: &Uri) -> String {
    place.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string)
}

fn document(text: &str) -> Result<Document<'_>, MappingError> {
    let options = ParsingOptions { nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    Document::parse_with_options(text, options).map_err(|_| MappingError::Malformed)
}

fn text_of<'a>(parent: Node<'a, '_>, name: &str) -> Option<&'a str> {
    let element = parent.descendants().find(|node| node.tag_name().name() == name)?;
    element.text().map(str::trim)
}

/// The service of a description that maps ports.
fn service(description: &str) -> Result<Service, MappingError> {
    let document = document(description)?;
    let found = document.descendants().filter(|node| node.tag_name().name() == "service");
    let found = found.filter_map(|node| {
        let named = text_of(node, "serviceType")?;
        let kind = SERVICES.into_iter().find(|kind| *kind == named)?;
        // Some give the whole address. Its host is not looked at.
        let place = text_of(node, "controlURL")?;
        let path = match place.starts_with("http://") {
            true => path_of(&place.parse().ok()?),
            false => format!("/{}", place.trim_start_matches('/')),
        };
        (path.len() <= MAX_PATH).then_some(Service { kind, path })
    });
    let rank = |service: &Service| SERVICES.iter().position(|kind| *kind == service.kind);
    found.min_by_key(rank).ok_or(MappingError::Malformed)
}

const fn name(carrier: Carrier) -> &'static str {
    match carrier {
        Carrier::Tcp => "TCP",
        Carrier::Udp => "UDP",
    }
}

/// The content of a call. No value needs to be escaped: they are numbers, addresses and names of this file.
fn envelope(service: &Service, action: &str, values: &[(&str, String)]) -> String {
    let values: String =
        values.iter().map(|(name, value)| format!("<{name}>{value}</{name}>")).collect();
    format!(
        "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body><u:{action} \
         xmlns:u=\"{}\">{values}</u:{action}></s:Body></s:Envelope>",
        service.kind
    )
}

impl Upnp {
    /// Searches for a router by a question to `group`.
    pub(super) async fn search(
        group: SocketAddrV4,
        by: &Environment,
    ) -> Result<Self, MappingError> {
        let socket = UdpSocket::from_std(by.bind_udp((Ipv4Addr::UNSPECIFIED, 0).into())?)?;
        for device in DEVICES {
            let question = format!(
                "M-SEARCH * HTTP/1.1\r\nHOST: {GROUP}\r\nMAN: \"ssdp:discover\"\r\nMX: 2\r\nST: {device}\r\n\r\n"
            );
            socket.send_to(question.as_bytes(), group).await?;
        }
        let until = time::Instant::now() + SEARCH;
        let (mut answer, mut error) = ([0; MAX_ANSWER], MappingError::Silent);
        for _ in 0..MAX_ANSWERS {
            let received = time::timeout_at(until, socket.recv_from(&mut answer)).await;
            let Ok(Ok((length, SocketAddr::V4(from)))) = received else { break };
            let read = answer.get(..length).unwrap_or_default();
            let found = match location(read, *from.ip()) {
                Some(place) => Self::described(place, by).await,
                None => Err(MappingError::Malformed),
            };
            match found {
                Ok(found) => return Ok(found),
                Err(failed) => error = failed,
            }
        }
        Err(error)
    }

    /// Reads the description of a router.
    async fn described(
        (at, path): (SocketAddrV4, String),
        by: &Environment,
    ) -> Result<Self, MappingError> {
        let request = Request::get(path).body(String::new());
        let request = request.map_err(|_| MappingError::Malformed)?;
        let client = RouterClient::new(at, by)?;
        let (status, description) = client.send(request).await?;
        if status != StatusCode::OK {
            return Err(MappingError::Refused(status.as_u16()));
        }
        let service = service(&description)?;
        // A socket that is connected has the address from which this node reaches the router; nothing is sent.
        let towards = by.bind_udp((Ipv4Addr::UNSPECIFIED, 0).into())?;
        towards.connect(at)?;
        let SocketAddr::V4(own) = towards.local_addr()? else {
            return Err(MappingError::Malformed);
        };
        Ok(Self { client, service, gateway: *at.ip(), host: *own.ip() })
    }

    async fn call(&self, action: &str, values: &[(&str, String)]) -> Result<String, MappingError> {
        let request = Request::post(&self.service.path)
            .header("SOAPAction", format!("\"{}#{action}\"", self.service.kind))
            .header(header::CONTENT_TYPE, "text/xml; charset=\"utf-8\"")
            .header(header::CONNECTION, "close")
            .body(envelope(&self.service, action, values))
            .map_err(|_| MappingError::Malformed)?;
        let (status, answer) = self.client.send(request).await?;
        if status == StatusCode::OK {
            return Ok(answer);
        }
        let code =
            text_of(document(&answer)?.root(), "errorCode").and_then(|code| code.parse().ok());
        Err(MappingError::Refused(code.unwrap_or(status.as_u16())))
    }

    /// The address on the other side of the router.
    pub(super) async fn outside(&self) -> Result<Ipv4Addr, MappingError> {
        let answer = self.call("GetExternalIPAddress", &[]).await?;
        let document = document(&answer)?;
        let told = text_of(document.root(), "NewExternalIPAddress");
        told.and_then(|host| host.parse().ok()).ok_or(MappingError::Malformed)
    }

    /// Asks for a port. Returns the lease in seconds.
    pub(super) async fn map(
        &self,
        inside: &Inside,
        outside: u16,
        lease: u32,
    ) -> Result<u32, MappingError> {
        let ask = async |lease: u32| {
            let values = [
                ("NewRemoteHost", String::new()),
                ("NewExternalPort", outside.to_string()),
                ("NewProtocol", name(inside.carrier).to_owned()),
                ("NewInternalPort", inside.address.port().to_string()),
                ("NewInternalClient", inside.address.ip().to_string()),
                ("NewEnabled", "1".to_owned()),
                ("NewPortMappingDescription", "tandem".to_owned()),
                ("NewLeaseDuration", lease.to_string()),
            ];
            self.call("AddPortMapping", &values).await
        };
        match ask(lease).await {
            // It lasts until it is given back. Asked for again in time, it is there also after the router began anew.
            Err(MappingError::Refused(ONLY_PERMANENT)) => ask(0).await?,
            answer => answer?,
        };
        Ok(lease)
    }

    /// Gives a port back.
    pub(super) async fn unmap(&self, inside: &Inside, outside: u16) -> Result<(), MappingError> {
        let values = [
            ("NewRemoteHost", String::new()),
            ("NewExternalPort", outside.to_string()),
            ("NewProtocol", name(inside.carrier).to_owned()),
        ];
        self.call("DeletePortMapping", &values).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_asked_where_it_is_and_nowhere_else() {
        let host = Ipv4Addr::new(10, 0, 0, 1);
        let at = |place: &str| {
            let answer = format!("HTTP/1.1 200 OK\r\nST: x\r\nLocation: {place}\r\n\r\n");
            location(answer.as_bytes(), host).map(|(at, path)| format!("{at}{path}"))
        };
        assert_eq!(at("http://10.0.0.1:5000/a.xml?b").as_deref(), Some("10.0.0.1:5000/a.xml?b"));
        assert_eq!(at("http://10.0.0.1").as_deref(), Some("10.0.0.1:80/"));
        for other in ["http://10.0.0.2/", "https://10.0.0.1/", "http://router/", "/a.xml", "\u{1}"]
        {
            assert_eq!(at(other), None, "{other}");
        }
        assert_eq!(location(&[0xff; 100], host), None);
        assert_eq!(location(b"", host), None);
    }

    #[test]
    fn the_newest_service_of_a_description_is_asked_at_its_path() {
        let of = |services: &[(&str, &str)]| {
            let each = |(kind, place): &(&str, &str)| {
                format!(
                    "<service><serviceType>{kind}</serviceType><controlURL>{place}</controlURL></service>"
                )
            };
            let services: String = services.iter().map(each).collect();
            service(&format!("<root xmlns=\"urn:x\"><device><serviceList>{services}</serviceList></device></root>"))
                .map(|service| service.path)
        };
        assert_eq!(of(&[(SERVICES[1], "/one"), (SERVICES[0], "two")]).unwrap(), "/two");
        let whole = of(&[("urn:other", "/x"), (SERVICES[2], "http://9.9.9.9:80/ctl?y")]);
        assert_eq!(whole.unwrap(), "/ctl?y");
        assert!(of(&[("urn:other", "/x")]).is_err());
        assert!(of(&[(SERVICES[0], &"x".repeat(1_000))]).is_err());
    }

    #[test]
    fn no_document_costs_more_than_its_length() {
        let many = format!("<a>{}</a>", "<b/>".repeat(10_000));
        assert!(document(&many).is_err());
        let deep = |levels| format!("{}{}", "<a>".repeat(levels), "</a>".repeat(levels));
        assert!(document(&deep(10_000)).is_err());
        assert!(service(&deep(4_000)).is_err(), "it is read, and names no service");
        let bomb = "<!DOCTYPE a [<!ENTITY b \"cc\"><!ENTITY d \"&b;&b;\">]><a>&d;</a>";
        assert!(document(bomb).is_err());
        assert!(document("").is_err() && document("\0").is_err());
    }
}
