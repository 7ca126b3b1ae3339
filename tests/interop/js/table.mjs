/**
 * A part in the DHT of a node: finds the node as a provider of the first
 * capability, provides the second, puts a value under its hash, and prints its
 * own peer ID. Then it prints the value of each key that stdin names, and
 * serves until stdin closes.
 */

import { createInterface } from 'node:readline'
import { kadDHT, passthroughMapper } from '@libp2p/kad-dht'
import { ping } from '@libp2p/ping'
import { multiaddr } from '@multiformats/multiaddr'
import { sha256 } from '@noble/hashes/sha2.js'
import { bytesToHex } from '@noble/hashes/utils.js'
import { CID } from 'multiformats/cid'
import * as raw from 'multiformats/codecs/raw'
import { sha256 as sha256Hasher } from 'multiformats/hashes/sha2'

/** Time for each step, in milliseconds. Chosen: each takes well under a second on a loopback. */
const DEADLINE_MS = 30_000

/** Time between two tries of a step that needs the other side to be ready, in milliseconds. */
const RETRY_MS = 100

/** The services of a node that takes part in the DHT of a prefix. */
export function tableOf (prefix) {
  return {
    ping: ping(),
    dht: kadDHT({
      protocol: `${prefix}/kad/1.0.0`,
      clientMode: false,
      // Addresses of this machine count.
      peerInfoMapper: passthroughMapper,
      allowQueryWithZeroPeers: true,
      validators: { content: validate },
      // A key has one valid value.
      selectors: { content: () => 0 }
    })
  }
}

function contentKey (value) {
  return `/content/${bytesToHex(sha256(value))}`
}

async function validate (key, value) {
  if (new TextDecoder().decode(key) !== contentKey(value)) {
    throw new Error('the value is not the one of its key')
  }
}

/** The content ID under which nodes that offer something are found. */
async function capability (name) {
  return CID.createV1(raw.code, await sha256Hasher.digest(new TextEncoder().encode(name)))
}

/** Repeats a step until it returns something. */
async function until (what, step) {
  const deadline = Date.now() + DEADLINE_MS
  for (;;) {
    let cause = 'there was no answer'
    try {
      const result = await step(AbortSignal.timeout(DEADLINE_MS))
      if (result !== undefined) {
        return result
      }
    } catch (error) {
      cause = error
    }
    if (Date.now() > deadline) {
      throw new Error(`${what}: ${cause}`)
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS))
  }
}

/** Says whether every step held. */
export async function table (node, [address, , find, provide, value]) {
  const server = multiaddr(address)
  const encoder = new TextEncoder()
  try {
    const { remotePeer } = await node.dial(server)
    const wanted = await capability(find)
    await until(`the node provides ${find}`, async (signal) => {
      for await (const event of node.services.dht.findProviders(wanted, { signal })) {
        const found = event.name === 'PROVIDER' ? event.providers : []
        if (found.some(({ id, multiaddrs }) => id.equals(remotePeer) && multiaddrs.length > 0)) {
          return true
        }
      }
    })
    const offered = await capability(provide)
    // Says so once a node has it.
    await until(`providing ${provide}`, async (signal) => {
      let stored
      for await (const event of node.services.dht.provide(offered, { signal })) {
        stored = event.name === 'PEER_RESPONSE' && event.messageName === 'ADD_PROVIDER' ? true : stored
      }
      return stored
    })
    await until('putting a value', async (signal) => {
      let stored
      const key = encoder.encode(contentKey(encoder.encode(value)))
      for await (const event of node.services.dht.put(key, encoder.encode(value), { signal })) {
        stored = event.name === 'PEER_RESPONSE' && event.messageName === 'PUT_VALUE' ? true : stored
      }
      return stored
    })
    console.log(String(node.peerId))
    for await (const key of createInterface({ input: process.stdin })) {
      console.log(await until(`getting ${key}`, async (signal) => {
        for await (const event of node.services.dht.get(encoder.encode(key), { signal })) {
          if (event.name === 'VALUE') {
            return new TextDecoder().decode(event.value)
          }
        }
      }))
    }
    return true
  } catch (error) {
    console.error(`peer.mjs: ${error}`)
    return false
  }
}
