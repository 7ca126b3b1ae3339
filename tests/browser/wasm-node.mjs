#!/usr/bin/env node
/**
 * The node as WebAssembly in Node.js.
 *
 *   wasm-node.mjs PROGRAM SCRATCH PACKAGE
 *
 * A relay, and behind it a node that has libp2p alone: the WebAssembly hears and sends through the relay, is cut off and comes back, and is
 * attacked by relays that send garbage, floods and nothing. Exit status 0 if all of it held; each thing that did not is a line on stderr.
 */

import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import Ws from 'ws'
import { ATTACKS, HELLOS, attacker, wire } from './hostile.mjs'
import { checking, names, sha256, start, until } from './nodes.mjs'

const [program, scratch, folder] = process.argv.slice(2)
const { Node } = await import(pathToFileURL(`${folder}/tandem.js`))
const VOTES = 1000
const TRANSACTIONS = 100
const PROPOSAL_BYTES = 5 * 1024 * 1024
/** A host's WebSocket holds this much, and one message. Source: web/node/src/ws/sink.rs. */
const UNSENT_BYTES = 128 * 1024

const FLOOD_MS = 8000
/** Chosen: the budget of a node, what its host holds unread, and what a collector leaves lying. */
const FLOOD_MIB = 192

const { fail, run } = checking('WebAssembly in Node.js')
const utf8 = (bytes) => Buffer.from(bytes).toString()

/** The host's WebSocket, which notes the most that it ever held. */
const Host = globalThis.WebSocket ?? Ws
let mostUnsent = 0
class WebSocket extends Host {
  send (bytes) {
    super.send(bytes)
    mostUnsent = Math.max(mostUnsent, this.bufferedAmount - bytes.length)
  }
}

await run(async () => {
  const relay = await start(program, scratch, 'relay', '--service', 'status', '--service', 'bridge')
  const behind = await start(program, scratch, 'behind', '--mode', 'p2p', '--service', 'status', '--peer', relay.p2p)
  await until('the node behind has its relay', async () => (await behind.peers()).length === 1)
  const line = await wire(relay.ws)
  const options = { network: relay.network, WebSocket, name: 'Node.js' }
  const node = await Node.start({ ...options, peers: [line.ws] })
  const ended = []
  node.addEventListener('disconnected', ({ detail }) => ended.push(detail.reason))
  const peer = await node.connected()
  if (peer.peerId !== relay.peerId || peer.transport !== 'ws') fail(`another peer: ${JSON.stringify(peer)}`)
  await until('the relay knows it by its key', async () => (await relay.peers()).some(({ peer_id: id }) => id === node.peerId))

  // It hears.
  const [votes, proposals] = [node.on('AV'), node.on('PP')]
  let began = performance.now()
  const read = async (count) => { const found = []; while (found.length < count) found.push(utf8((await votes.next()).value.body)); return found }
  const reading = read(VOTES)
  await behind.send('AV', names('vote', VOTES))
  const found = await until('every vote', () => reading)
  if (new Set(found).size !== VOTES) fail(`of ${VOTES} votes ${new Set(found).size} are different`)
  console.log(`${VOTES} votes from libp2p in Node.js: ${Math.round(performance.now() - began)} ms`)
  const proposal = randomBytes(PROPOSAL_BYTES)
  began = performance.now()
  await behind.send('PP', [proposal])
  const { value } = await until('the proposal', () => proposals.next())
  if (sha256(value.body) !== sha256(proposal)) fail('the proposal was changed on its way')
  console.log(`a proposal of ${PROPOSAL_BYTES} bytes: ${Math.round(performance.now() - began)} ms`)

  // It sends, asks and calls.
  const transactions = await behind.heard('TX')
  for (const text of names('transaction', TRANSACTIONS)) if (node.broadcast('TX', text) !== 'queued') fail(`${text} was not taken`)
  await until('every transaction', async () => new Set(transactions).size === TRANSACTIONS)
  if (transactions.length !== TRANSACTIONS) fail(`${TRANSACTIONS} transactions were handled ${transactions.length} times`)
  const delivery = await until('a delivery', () => node.broadcastAndWait('TX', 'and wait'))
  if (delivery.written !== 1 || delivery.givenUp !== 0) fail(`a delivery: ${JSON.stringify(delivery)}`)
  if (node.relay('TX', 'of somebody else') !== 'queued') fail('it refuses to pass a message on, and does not say that it relays nothing')
  node.networkAdvanced()
  const theirs = await behind.heard('PP')
  if (node.broadcast('PP', randomBytes(PROPOSAL_BYTES)) !== 'queued') fail('a proposal was not taken')
  await until('the proposal of Node.js', async () => theirs.length === 1)
  const modes = [await node.fetch(peer, '/health'), await node.fetch(behind.peerId, '/health')].map(async (answer) => (await answer.json()).mode)
  if ((await Promise.all(modes)).join() !== 'hybrid,p2p') fail(`other nodes answered: ${await Promise.all(modes)}`)
  if ([...await node.request({ any: 'thing' })].map(([key]) => key).join() !== 'Error') fail('a strange request was answered')
  console.log(`${TRANSACTIONS} transactions, handled once each by the node with libp2p alone; a proposal, a request and calls too`)

  // What is on its way when a node is closed arrives.
  const hasty = await Node.start({ ...options, peers: [relay.ws], identity: null })
  await hasty.connected()
  const known = new Set(transactions).size
  for (const text of names('a transaction of a node that closes', 50)) hasty.broadcast('TX', text)
  await hasty.close()
  await until('the last transactions of a node that was closed', async () => new Set(transactions).size === known + 50)

  // What it does not take has a code.
  for (const [code, call] of [['tag', () => node.broadcast('XX', 'a')], ['too-large', () => node.broadcast('AV', new Uint8Array(2000))], ['body', () => node.broadcast('AV', 1)], ['tag', () => node.on('Q')], ['address', () => node.addPeer('a b')], ['not-connected', () => node.broadcast('TX', 'a', { peer: behind.peerId })]]) {
    try { call(); fail(`${call} was taken`) } catch (error) { if (error.code !== code) fail(`${call}: ${error.code ?? error}`) }
  }
  for (const [code, wrong] of [['network', { network: '' }], ['address', { peers: ['ws://'] }], ['key', { identity: new Uint8Array(3) }], ['tag', { tags: ['XX'] }]]) {
    await Node.start({ ...options, ...wrong }).then(() => fail(`${code}: it starts`), (error) => { if (error.code !== code) fail(`${code}: ${error.code ?? error.stack}`) })
  }

  // A profile of one's own: the same checks as in a native node.
  const rule = { lane: 'priority', maxBytes: 100 }
  for (const [expected, profile] of [
    [/no name for a profile/, { name: 'Mine', tags: {} }],
    [/exists already/, { name: 'tandem', tags: {} }],
    [/"priority" or "bulk"/, { name: 'my-chain', tags: { vo: { ...rule, lane: 'fast' } } }],
    [/number of bytes/, { name: 'my-chain', tags: { vo: { lane: 'bulk' } } }],
    [/no message more than/, { name: 'my-chain', tags: { vo: { ...rule, maxBytes: 1e9 } } }],
    [/belongs to the protocol/, { name: 'my-chain', tags: { MI: rule } }],
    [/is not a message tag/, { name: 'my-chain', tags: { vote: rule } }]
  ]) {
    const told = await Node.start({ ...options, profile }).then(() => 'it starts', ({ code, message }) => `${code}: ${message}`)
    if (!told.startsWith('profile: ') || !expected.test(told)) fail(`a profile that is none: ${told}`)
  }
  const { tcp } = await import(`${folder}/tcp.js`)
  const special = { ...options, WebSocket: null, transports: [tcp()], profile: { name: 'my-chain', tags: { vo: rule } } }
  const own = await Node.start({ ...special, identity: randomBytes(32), listen: '/ip4/127.0.0.1/tcp/0' })
  const its = await Node.start({ ...special, identity: randomBytes(32), peers: own.addresses })
  const foreign = await Node.start({ ...special, identity: randomBytes(32), peers: own.addresses, profile: undefined })
  const itsVotes = its.on('vo')
  await its.connected()
  await until('the link of two nodes of one profile', async () => own.peers().length === 1)
  if (own.broadcast('vo', 'a vote of its own') !== 'queued') fail('a tag of its own was not taken')
  if (utf8((await until('a vote of its own', () => itsVotes.next())).value.body) !== 'a vote of its own') fail('another vote came')
  if (foreign.peers().length > 0) fail('nodes of two profiles are linked')
  await Promise.all([its.close(), foreign.close()])
  for (const [tag, body, code] of [['AV', 'a', 'tag'], ['vo', new Uint8Array(101), 'too-large']]) {
    try { own.broadcast(tag, body); fail(`${tag} was taken`) } catch (error) { if (error.code !== code) fail(`${tag}: ${error}`) }
  }
  await own.close()

  // A start that is given up, before it begins and meanwhile.
  for (const begin of [(controller) => controller.abort(), (controller) => queueMicrotask(() => controller.abort())]) {
    const controller = new AbortController()
    begin(controller)
    const outcome = await Node.start({ ...options, signal: controller.signal }).then(() => 'it runs', ({ code }) => code)
    if (outcome !== 'closed') fail(`a start that was given up: ${outcome}`)
  }

  // Handlers and validators of JavaScript.
  const served = await Node.start({ ...options, peers: [relay.ws], identity: null })
  const judged = []
  served.validate('TX', ({ body }) => { judged.push(utf8(body)); return utf8(body).startsWith('bad') ? 'reject' : 'accept' })
  const handled = []
  served.handle('TX', async ({ body }) => { handled.push(utf8(body)); if (utf8(body) === 'throw') throw new Error('expected here') })
  await served.connected()
  if (served.peerId !== null) fail(`it has no key, and is ${served.peerId}`)
  globalThis.reportError = () => {}
  await behind.send('TX', ['throw', 'good', 'after'])
  await until('the handler', async () => handled.length === 3 && judged.length === 3)
  await served.close()
  delete globalThis.reportError

  // It is cut off while proposals are on their way, and comes back.
  const onTheWay = Promise.allSettled(Array.from({ length: 4 }, () => behind.send('PP', [randomBytes(PROPOSAL_BYTES)])))
  await until('a proposal on its way', () => proposals.next())
  line.cut()
  await until('the end of the link', async () => node.peers().length === 0)
  if (node.broadcast('TX', 'while nobody is there') === 'closed') fail('it takes itself for closed')
  await onTheWay
  const apart = performance.now()
  await line.mend()
  await node.connected()
  console.log(`back ${Math.round(performance.now() - apart)} ms after the wire is mended`)
  const again = read(100)
  await behind.send('AV', names('a vote after', 100))
  await until('the votes after', () => again)

  // A peer that takes nothing: little is in the host, and the link ends as slow.
  ended.length = 0
  mostUnsent = 0
  line.clog()
  for (let count = 0; count < 40; count++) node.broadcast('TX', randomBytes(1024 * 1024))
  await until('the end of a link that takes nothing', async () => ended.length > 0, 60_000)
  if (!['slow', 'transport'].includes(ended[0])) fail(`a link that takes nothing ended as ${ended[0]}`)
  if (mostUnsent > UNSENT_BYTES) fail(`the host held ${mostUnsent} bytes before a message`)
  console.log(`a peer that takes nothing ends as ${ended[0]}; the host held ${mostUnsent} bytes at most before a message`)
  line.cut()
  await line.mend()
  await node.connected()

  // Relays that send garbage.
  const enemy = await attacker(relay.network)
  for (const name of Object.keys(HELLOS)) {
    const victim = await Node.start({ ...options, peers: [enemy.at(name)] })
    const outcome = await victim.connected({ timeoutMs: 300 }).then(() => 'a link', ({ code }) => code)
    if (outcome !== 'unreachable') fail(`a hello that is none (${name}) made ${outcome}`)
    await victim.close()
  }
  for (const [name, { ends }] of Object.entries(ATTACKS)) {
    const victim = await Node.start({ ...options, peers: [enemy.at(name), relay.ws] })
    let reason = null
    victim.addEventListener('disconnected', ({ detail }) => { if (detail.peer.http.endsWith(name)) reason ??= detail.reason })
    await until('the good relay', async () => victim.peers().some(({ peerId }) => peerId === relay.peerId))
    if (!ends.includes(null)) await until(`the end of the attack ${name}`, async () => reason)
    if (!ends.includes(reason)) fail(`the attack ${name} ended as ${reason}`)
    // It goes on.
    const heard = victim.on('AV')
    await behind.send('AV', [`a vote after ${name}`])
    await until(`a vote after the attack ${name}`, async () => utf8((await heard.next()).value.body).includes(name))
    await victim.close()
  }
  // A flood, as fast as one thread can send and hear it, takes bounded memory, and leaves room for others.
  const flooded = await Node.start({ ...options, peers: [enemy.at('flood'), relay.ws] })
  const among = flooded.on('AV')
  await until('the good relay', async () => flooded.peers().some(({ peerId }) => peerId === relay.peerId))
  const memory = process.memoryUsage().rss
  began = performance.now()
  while (performance.now() - began < FLOOD_MS) {
    const vote = `a vote in the flood ${Math.round(performance.now() - began)}`
    await behind.send('AV', [vote])
    await until(vote, async () => { for (;;) if (utf8((await among.next()).value.body) === vote) return true })
  }
  const grown = Math.round((process.memoryUsage().rss - memory) / 1048576)
  if (grown > FLOOD_MIB) fail(`a flood takes ${grown} MiB`)
  console.log(`a flood of ${flooded.stats.received} votes in ${Math.round((performance.now() - began) / 1000)} s takes ${grown} MiB; ${Object.keys(ATTACKS).length} kinds of garbage and ${Object.keys(HELLOS).length} hellos that are none end nothing else`)
  await flooded.close()
  enemy.close()

  // A node that was closed gives its memory back to the next one.
  const compiled = await (await import(pathToFileURL(`${folder}/wasm/tandem_web.js`))).default()
  const rounds = []
  for (let round = 0; round < 2; round++) {
    for (let count = 0; count < 20; count++) await (await Node.start({ ...options, identity: null })).close()
    rounds.push(compiled.memory.buffer.byteLength)
  }
  if (rounds[1] > rounds[0]) fail(`20 nodes that were closed keep ${rounds[1] - rounds[0]} bytes`)

  // The program of the manual.
  const manual = readFileSync(new URL('../../docs/browser.md', import.meta.url), 'utf8')
  const [js] = [...manual.matchAll(/^```js\n(.*?)^```/gms)].map(([, text]) => text).filter((text) => text.includes('tandem-web'))
  const place = new URL('./node_modules/.manual-wasm/', import.meta.url)
  rmSync(place, { recursive: true, force: true })
  mkdirSync(new URL('./node_modules/', place), { recursive: true })
  cpSync(folder, new URL('./node_modules/tandem-web', place), { recursive: true })
  writeFileSync(new URL('./program.mjs', place), js.replaceAll('ws://127.0.0.1:4160', relay.ws.replace('http', 'ws')).replaceAll("network: 'tandem'", `network: '${relay.network}'`))
  const programOfManual = spawn(process.execPath, [new URL('./program.mjs', place).pathname], { stdio: ['ignore', 'pipe', 'inherit'] })
  let said = ''
  programOfManual.stdout.on('data', (text) => { said += text })
  await until('the state in the program of the manual', async () => said.includes('queued\nserving\n'))
  await behind.send('AV', ['a vote of the manual'])
  await until('the vote in the program of the manual', async () => /^AV 20 12D3KooW/m.test(said))
  programOfManual.kill()
  console.log('the program of the manual does what it says')

  // The end.
  await node.close()
  await until('the end of the loop', async () => { for await (const message of votes) void message; return true })
  if (node.broadcast('TX', 'late') !== 'closed' || node.peers().length > 0) fail('it goes on after its end')
  line.close()
})
