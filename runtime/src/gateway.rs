//! The router that the system sends to whatever is not in a network of its own.

use std::net::Ipv4Addr;

/// The default route of lowest metric in the table that Linux shows as `/proc/net/route`.
pub(crate) fn of_table(table: &str) -> Option<Ipv4Addr> {
    let routes = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let hex = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok();
        let (destination, gateway, mask) = (hex(1)?, hex(2)?, hex(7)?);
        let metric: u32 = fields.get(6)?.parse().ok()?;
        // The addresses are written as numbers of this machine, which lie in memory in the order of the network.
        let is_default = destination == 0 && mask == 0 && gateway != 0;
        is_default.then(|| (metric, Ipv4Addr::from(gateway.to_ne_bytes())))
    });
    routes.min_by_key(|(metric, _)| *metric).map(|(_, gateway)| gateway)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_of_lowest_metric_leads_to_the_gateway() {
        let word = |octets: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(octets));
        let line = |interface: &str, gateway, metric| {
            let (any, gateway) = (word([0; 4]), word(gateway));
            format!("{interface}\t{any}\t{gateway}\t0003\t0\t0\t{metric}\t{any}\t0\t0\t0\n")
        };
        let head =
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        let own = format!(
            "eth0\t{}\t{}\t0001\t0\t0\t0\t{}\t0\t0\t0\n",
            word([10, 0, 0, 0]),
            word([0; 4]),
            word([255, 0, 0, 0])
        );
        let table = format!(
            "{head}{}{own}{}",
            line("wlan0", [192, 168, 1, 1], 600),
            line("eth0", [10, 0, 0, 1], 100)
        );
        assert_eq!(of_table(&table), Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(of_table(&format!("{head}{own}")), None);
        assert_eq!(of_table("no table\nat all"), None);
    }
}
