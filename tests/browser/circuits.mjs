#!/usr/bin/env node
/**
 * The node as WebAssembly behind a relay.
 *
 *   circuits.mjs PROGRAM SCRATCH PACKAGE
 *
 * A native node relays. One in WebAssembly, which listens nowhere, is reached through it by another one and by the program: gossip and HTTP. The relay is
 * killed, and comes back. Exit status 0 if all of it held; each thing that did not is a line on stderr.
 */

import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { checking, names, run as spawned, start, until } from './nodes.mjs'

const [program, scratch, folder] = process.argv.slice(2)
const { Node } = await import(pathToFileURL(`${folder}/tandem.js`))
const { tcp } = await import(pathToFileURL(`${folder}/tcp.js`))
const VOTES = 50
const { fail, run } = checking('circuits of WebAssembly')
const utf8 = (bytes) => Buffer.from(bytes).toString()

/** The program of the manual, which is told of a relay and shows its address. */
async function manual () {
  const relay = await start(program, scratch, 'relay-of-manual', '--mode', 'p2p', '--reachability', 'relay', '--listen-p2p', '/ip4/127.0.0.1/tcp/0/ws')
  const page = readFileSync(new URL('../../docs/browser.md', import.meta.url), 'utf8')
  const block = [...page.matchAll(/^```js\n(.*?)^```/gms)].map(([, text]) => text).find((text) => text.includes('p2p-circuit'))
  const aimed = block.replace("'tandem'", `'${relay.network}'`).replace(/\/dns4[^']*RELAY_ID/, relay.p2p).replace('websocket()', "websocket({ WebSocket: globalThis.WebSocket ?? (await import('ws')).default })")
    .replace(/'tandem-web(?:\/(\w+))?'/g, (_, name) => `'${folder}/${name ?? 'tandem'}.js'`)
  const place = new URL('./node_modules/.manual/circuits.mjs', import.meta.url)
  mkdirSync(new URL('.', place), { recursive: true })
  const show = "for (;;) { await new Promise((resolve) => { setTimeout(resolve, 20) }); if (node.addresses[0]) { console.log(node.addresses[0]); break } }"
  writeFileSync(place, `${aimed}\n${show}\n`)
  const child = spawned(process.execPath, place.pathname)
  const address = await until('the address of the program of the manual', () => child.line())
  if (!address.startsWith(`${relay.p2p}/p2p-circuit/p2p/`)) fail(`the program of the manual told ${address}`)
  child.kill()
  console.log('the program of the manual does what it says')
}

await run(async () => {
  await manual()
  const relays = ['--mode', 'p2p', '--reachability', 'relay']
  let relay = await start(program, scratch, 'relay', ...relays)
  const options = () => ({ network: relay.network, WebSocket: null, transports: [tcp()], identity: randomBytes(32) })

  const node = await Node.start({ ...options(), listen: `${relay.p2p}/p2p-circuit` })
  node.serve('/hello', (request, { peerId }) => new Response(`hello ${peerId}`))
  node.serve('/echo', (request) => new Response(request.body))
  const reached = async () => until('a place at the relay', () => node.addresses.find((address) => address.includes('/p2p-circuit/')))
  let began = performance.now()
  const address = await reached()
  console.log(`a place at the relay: ${Math.round(performance.now() - began)} ms`)

  // Another node in WebAssembly.
  const [heardByNode, other] = [node.on('AV'), await Node.start({ ...options(), peers: address })]
  const heardByOther = other.on('AV')
  began = performance.now()
  await other.connected()
  console.log(`joined through it: ${Math.round(performance.now() - began)} ms`)
  await until('the node knows the other', async () => node.peers().some(({ peerId }) => peerId === other.peerId))
  for (const [from, loop] of [[node, heardByOther], [other, heardByNode]]) {
    for (const text of names('a vote', VOTES)) if (from.broadcast('AV', `${text} of ${from.peerId}`) !== 'queued') fail(`${text} was not taken`)
    const found = new Set()
    while (found.size < VOTES) found.add(utf8((await until(`vote ${found.size}`, () => loop.next())).value.body))
  }
  for (let at = 0; at < 5; at++) {
    const told = await (await other.fetch(address, '/hello')).text()
    if (told !== `hello ${other.peerId}`) fail(`call ${at}: ${told}`)
  }
  const bytes = randomBytes(64 * 1024)
  const echo = await (await other.fetch(address, '/echo', { method: 'POST', body: bytes })).arrayBuffer()
  if (!bytes.equals(Buffer.from(echo))) fail('64 KiB were changed on their way')
  console.log(`${VOTES} votes each way, five calls and 64 KiB there and back`)

  // A native node.
  const { stdout } = await promisify(execFile)(program, ['http', `${address}/hello`])
  if (!stdout.startsWith('hello ')) fail(`the program was told: ${stdout}`)

  // The relay dies, and comes back where it was.
  const listens = ['--listen-p2p', relay.p2p.replace(/\/p2p\/.*/, '')]
  relay.kill()
  await until('the end of the place', async () => node.addresses.length === 0)
  if (!(await node.fetch(other.peerId, '/hello').then(() => false, () => true))) fail('a peer behind a dead relay answered')
  began = performance.now()
  relay = await start(program, scratch, 'relay', ...relays, ...listens)
  if (await reached() !== address) fail('the address has changed')
  await until('the link through the new relay', async () => other.peers().some(({ peerId }) => peerId === node.peerId))
  if (node.broadcast('AV', 'a vote after it') !== 'queued') fail('a vote was not taken after the death of the relay')
  while (utf8((await until('the vote after it', () => heardByOther.next())).value.body) !== 'a vote after it') { /* Another one. */ }
  console.log(`back ${Math.round(performance.now() - began)} ms after the relay began to come back`)

  // A node that gives no places, and an address that is none.
  const plain = await start(program, scratch, 'plain', '--mode', 'p2p')
  const homeless = await Node.start({ ...options(), listen: `${plain.p2p}/p2p-circuit`, peers: plain.p2p })
  await homeless.connected()
  if (homeless.addresses.length > 0) fail(`a place at a node that has none: ${homeless.addresses}`)
  await homeless.fetch(`${plain.p2p}/p2p-circuit/p2p/${other.peerId}`, '/hello').then(() => fail('a circuit through a node that relays nothing'), ({ message }) => console.log(`no relay: ${message}`))
  await Promise.all([node, other, homeless].map((ending) => ending.close()))
})
