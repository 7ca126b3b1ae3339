// js-libp2p in a page that meets another page over WebRTC, through a relay: it pings, has bytes echoed, and echoes those of others.
import { circuitRelayTransport } from '@libp2p/circuit-relay-v2'
import { identify } from '@libp2p/identify'
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { webRTC } from '@libp2p/webrtc'
import { webSockets } from '@libp2p/websockets'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

const PINGS = 5
const HTTP = '/http/1.1'

/** Starts a node with a place at a relay, and resolves with the address at which others meet it. It answers each request of HTTP. */
export async function listen (relay, patience) {
  const node = window.js = await createLibp2p({
    addresses: { listen: [`${relay}/p2p-circuit`, '/webrtc'] },
    transports: [webSockets(), webRTC({ rtcConfiguration: { iceServers: [] } }), circuitRelayTransport()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    services: { ping: ping(), identify: identify() },
    connectionGater: { denyDialMultiaddr: () => false }
  })
  await node.handle(HTTP, async (stream) => {
    for await (const piece of stream) {
      if (!new TextDecoder().decode(piece.subarray()).includes('\r\n\r\n')) continue
      stream.send(new TextEncoder().encode('HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello'))
      await stream.close()
      return
    }
  }, { runOnLimitedConnection: false })
  const late = Date.now() + patience
  for (;;) {
    const address = node.getMultiaddrs().map(String).find((address) => address.includes('/p2p-circuit/webrtc/p2p/'))
    if (address) return address
    if (Date.now() > late) throw new Error(`js-libp2p has no address to meet at: ${node.getMultiaddrs()}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

/** Dials, and resolves with the address of the connection. */
export async function dial (address, patience) {
  const connection = window.dialled = await window.js.dial(multiaddr(address), { signal: AbortSignal.timeout(patience) })
  return `${connection.remoteAddr}, ${connection.direction}, ${connection.limits === undefined ? 'no limits' : 'limits'}`
}

/** Pings the peer of the last dial, and calls its service over a stream. */
export async function call (patience) {
  const signal = () => AbortSignal.timeout(patience)
  const connection = window.dialled
  for (let number = 0; number < PINGS; number++) await window.js.services.ping.ping(connection.remotePeer, { signal: signal() })
  const stream = await connection.newStream(HTTP, { signal: signal() })
  stream.send(new TextEncoder().encode('GET /hello HTTP/1.1\r\nhost: page\r\nconnection: close\r\n\r\n'))
  let answer = ''
  for await (const piece of stream) {
    answer += new TextDecoder().decode(piece.subarray())
    if (/hello from tandem/.test(answer)) break
  }
  return `${PINGS} pings; ${answer.split('\r\n')[0]}`
}
