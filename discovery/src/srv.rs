//! Reads addresses out of SRV records.
//!
//! # Invariants
//!
//! * An address is the target of a record and its port, both of which can be dialled as far as text can tell.
//! * Priority and weight are not looked at. Source: wire facts 10.4.

use hickory_resolver::proto::rr::{RData, rdata::SRV};

use crate::name::DnsName;

/// The addresses of an answer, each once, and the number of records that have none.
pub(crate) fn addresses(records: &[RData]) -> (Vec<String>, usize) {
    let (mut found, mut unusable) = (Vec::new(), 0);
    for record in records {
        match record {
            RData::SRV(record) => match address(record) {
                Some(address) if found.contains(&address) => {}
                Some(address) => found.push(address),
                None => unusable += 1,
            },
            _ => unusable += 1,
        }
    }
    (found, unusable)
}

fn address(record: &SRV) -> Option<String> {
    let host = DnsName::new(&record.target.to_ascii())?;
    (record.port != 0).then(|| format!("{host}:{}", record.port))
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::Name;

    use super::*;

    fn record(port: u16, target: Name) -> RData {
        RData::SRV(SRV::new(0, 0, port, target))
    }

    #[test]
    fn a_target_that_is_no_host_is_left_out() {
        let good = Name::from_ascii("Relay.Example.").unwrap();
        let odd = |label: &[u8]| Name::from_labels([label, b"example"]).unwrap();
        let records = [
            record(4160, good.clone()),
            record(4160, good.clone()),
            record(0, good),
            record(4160, Name::root()),
            record(4160, odd(b"a b")),
            record(4160, odd(b"a/b?c#d")),
            record(4160, odd(b"a\nb")),
            record(4160, odd(b"user@a")),
            record(4160, odd("\u{e4}".as_bytes())),
            RData::CNAME(hickory_resolver::proto::rr::rdata::CNAME(Name::root())),
        ];
        assert_eq!(addresses(&records), (vec!["relay.example:4160".to_owned()], 8));
    }
}
