/** Reads the multiaddrs of the transports: `/ip4/HOST/tcp/PORT`, what stands above it, and a peer ID that is of no interest here. */

const SHAPE = /^\/(ip4|ip6|dns|dns4|dns6)\/([^/]+)\/tcp\/(\d{1,5})((?:\/(?:ws|wss|tls|sni\/[^/]+))*)(?:\/p2p\/[^/]+)?$/

/** Host, port, family, and what stands above TCP; null for any other address. */
export function read (multiaddr) {
  const parts = SHAPE.exec(multiaddr)
  if (!parts || Number(parts[3]) > 65_535) return null
  const [, kind, host, port, above] = parts
  return { host, port: Number(port), isName: kind.startsWith('dns'), family: kind.endsWith('4') ? 4 : kind.endsWith('6') ? 6 : 0, above }
}

/** A multiaddr of an IP address and a port, as `net` writes them. */
export function write (address, port) {
  const ip = address.replace(/^::ffff:(?=\d+\.)/i, '').replace(/%.*$/, '')
  return `/${ip.includes(':') ? 'ip6' : 'ip4'}/${ip}/tcp/${port}`
}
