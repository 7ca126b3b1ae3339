// js-libp2p in a page: pings five times and has 1 MB echoed, over WebRTC Direct (version 1 of its handshake) or WebSocket; and gossips.
import { gossipsub } from '@libp2p/gossipsub'
import { identify } from '@libp2p/identify'
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { webRTCDirect } from '@libp2p/webrtc'
import { webSockets } from '@libp2p/websockets'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

const PINGS = 5

const start = (services) => createLibp2p({
  transports: [webRTCDirect(), webSockets()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: { ping: ping(), identify: identify(), ...services },
  connectionGater: { denyDialMultiaddr: () => false }
})

/** Publishes on a topic five times a second until a message of the node has come, and two seconds longer. */
export async function topic (address, { name, patience }) {
  const node = await start({ pubsub: gossipsub() })
  const { pubsub } = node.services
  const heard = new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error('no message of the node came')), patience)
    pubsub.addEventListener('message', ({ detail: { data, from, topic } }) => {
      const text = new TextDecoder().decode(data)
      if (topic !== name || !text.startsWith('hello from tandem')) return
      if (!address.endsWith(from.toString())) reject(new Error(`the author is ${from}`))
      resolve(text)
    })
  })
  pubsub.subscribe(name)
  await node.dial(multiaddr(address), { signal: AbortSignal.timeout(patience) })
  let number = 0
  // Nobody may be subscribed yet.
  const publishing = setInterval(() => { pubsub.publish(name, new TextEncoder().encode(`hello from a page, ${number++}`)).catch(() => {}) }, 200)
  const text = await heard
  await new Promise(resolve => setTimeout(resolve, 2000))
  clearInterval(publishing)
  await node.stop()
  return text
}

export async function call (address, { protocol, bytes, patience }) {
  const node = await start({})
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
