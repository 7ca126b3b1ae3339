/**
 * A topic of a node: subscribes to it, publishes on it five times a second, and
 * prints the first message of the node. It goes on until stdin closes.
 *
 * The policy is strict (messages are signed), none (they name nobody), or
 * floodsub (signed, without GossipSub).
 */

import { floodsub } from '@libp2p/floodsub'
import { gossipsub } from '@libp2p/gossipsub'
import { multiaddr } from '@multiformats/multiaddr'
import { blake2b } from '@noble/hashes/blake2.js'

/** Time until a message of the node has come, in milliseconds. Chosen: a mesh forms within a second or two. */
const DEADLINE_MS = 60_000

/** Time between two messages of this peer, in milliseconds. */
const PAUSE_MS = 200

/** The pub-sub of a policy, as a service of a node. */
export function pubsubOf (policy) {
  switch (policy) {
    case 'strict': return gossipsub()
    case 'none': return gossipsub({
      globalSignaturePolicy: 'StrictNoSign',
      msgIdFn: (message) => blake2b(message.data, { dkLen: 32 })
    })
    case 'floodsub': return floodsub()
    default: throw new Error(`${policy} is no policy`)
  }
}

/** Says whether a message of the node came in time. */
export async function topic (node, [address, name, policy]) {
  const pubsub = node.services.pubsub
  const server = multiaddr(address)
  const heard = new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error('no message of the node came')), DEADLINE_MS).unref()
    pubsub.addEventListener('message', ({ detail: message }) => {
      const text = new TextDecoder().decode(message.data)
      if (message.topic !== name || !text.startsWith('hello from tandem')) {
        return
      }
      const author = message.from?.toString()
      if (policy === 'none' ? author != null : !address.endsWith(author)) {
        reject(new Error(`the author is ${author}`))
      }
      resolve(text)
    })
  })
  pubsub.subscribe(name)
  await node.dial(server)
  let number = 0
  const publishing = setInterval(() => {
    // Nobody may be subscribed yet.
    pubsub.publish(name, new TextEncoder().encode(`hello from js, ${number++}`)).catch(() => {})
  }, PAUSE_MS)
  try {
    const text = await heard
    const streams = node.getConnections().flatMap(({ streams }) => streams)
    const spoken = streams.filter(({ protocol }) => protocol.includes('sub/')).map(({ direction, protocol }) => `${direction} ${protocol}`)
    console.log(`${text} ${spoken.sort().join(', ')}`)
    await new Promise((resolve) => process.stdin.on('end', resolve).on('close', resolve).on('error', resolve).resume())
    return true
  } catch (error) {
    console.error(`peer.mjs: ${error}`)
    return false
  } finally {
    clearInterval(publishing)
  }
}
