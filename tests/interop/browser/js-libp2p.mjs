// js-libp2p in a page: pings five times and has 1 MB echoed, over WebRTC Direct (version 1 of its handshake).
import { identify } from '@libp2p/identify'
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { webRTCDirect } from '@libp2p/webrtc'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

const PINGS = 5

export async function call (address, { protocol, bytes, patience }) {
  const node = await createLibp2p({
    transports: [webRTCDirect()],
    connectionEncrypters: [noise()],
    services: { ping: ping(), identify: identify() },
    connectionGater: { denyDialMultiaddr: () => false }
  })
  const connection = await node.dial(multiaddr(address), { signal: AbortSignal.timeout(patience) })
  for (let number = 0; number < PINGS; number++) {
    await node.services.ping.ping(connection.remotePeer, { signal: AbortSignal.timeout(patience) })
  }
  const stream = await connection.newStream(protocol, { signal: AbortSignal.timeout(patience) })
  let back = 0
  const reading = (async () => {
    for await (const piece of stream) {
      for (const byte of piece.subarray()) {
        if (byte !== back++ % 251) throw new Error(`byte ${back - 1} came back as ${byte}`)
      }
      if (back >= bytes) return
    }
  })()
  const sent = Uint8Array.from({ length: bytes }, (_, at) => at % 251)
  for (let at = 0; at < bytes; at += 65536) {
    if (!stream.send(sent.subarray(at, at + 65536))) {
      await stream.onDrain({ signal: AbortSignal.timeout(patience) })
    }
  }
  await Promise.race([reading, new Promise((resolve, reject) => setTimeout(() => reject(new Error(`${back} of ${bytes} bytes came back`)), patience))])
  await stream.close()
  await node.stop()
  return `${PINGS} pings, ${back} bytes back`
}
