/** A program in strict TypeScript on the package: compiles, and runs in no test. */

import { Node, TandemError, load } from 'tandem-web'
import type { Admission, Dial, ErrorCode, Message, Peer } from 'tandem-web'

export async function uses (seed: Uint8Array): Promise<void> {
  await load()
  const node: Node = await Node.start({ network: 'tandem', peers: ['ws://127.0.0.1:4160'], identity: seed, limits: { queueMessages: 10 } })
  const peer: Peer = await node.connected({ timeoutMs: 10 })
  const admission: Admission = node.broadcast('TX', 'text', { peer })
  const dials: Dial[] = node.dials()
  node.addEventListener('disconnected', ({ detail }) => { const reason: string = detail.reason; console.log(reason, detail.peer.peerId) })
  node.addEventListener('connected', ({ detail }) => { console.log(detail.rttMs) })
  node.validate('TX', ({ body }) => body.length > 0 ? 'accept' : 'reject')
  node.handle('TX', () => 'relay')
  node.handle('PP', async ({ peerId }) => { console.log(peerId) })
  node.handle('UE', async () => ({ answer: new Uint8Array(1) }))
  const answer: Map<string, Uint8Array> = await node.request({ key: 'data' }, { peer: 1 })
  const response: Response = await node.fetch(peer, '/health', { method: 'GET' })
  for await (const message of node.on('AV')) {
    const { tag, body, at }: Message = message
    console.log(tag, body.byteLength, at.toFixed(), admission, dials, answer, response.ok)
  }
  // @ts-expect-error a tag is a text
  node.on(1)
  // @ts-expect-error a judgement is one of three words
  node.validate('TX', () => 'perhaps')
  // @ts-expect-error a network is named
  await Node.start({ peers: [] })
  await node.close().catch((error: unknown) => {
    const code: ErrorCode | undefined = error instanceof TandemError ? error.code : undefined
    console.log(code)
  })
}
