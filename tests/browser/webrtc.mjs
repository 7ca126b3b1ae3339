#!/usr/bin/env node
/**
 * Has the WebAssembly node in a page gossip over WebRTC Direct: in Chromium with both versions of the handshake, and with the second one where
 * the browser forbids the first; in Firefox with both.
 *
 *   webrtc.mjs BROWSER PROGRAM PACKAGE SCRATCH
 *
 * The node's only peer is a native one, by libp2p alone, and behind that is one that has gossip over WebSocket alone. Exit status 0 if all of it
 * held; each thing that did not is a line on stderr.
 */

import { randomBytes } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { readFileSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import puppeteer from 'puppeteer-core'
import { freePort, gossip, inPage, names, serve, sha256 } from './gossiping.mjs'
import { start, stopAll, until } from './nodes.mjs'

const [executablePath, program, folder, scratch] = process.argv.slice(2)
const isFirefox = executablePath.includes('firefox')
const browserName = isFirefox ? 'Firefox' : 'Chromium'
/** Chromium's trial that forbids a page to change the description of its own end, as version 1 does. */
const NO_MUNGING = '--force-fieldtrials=WebRTC-NoSdpMangleUfrag/Enabled/'

let status = 0
const fail = (text) => {
  console.error(`WebRTC: ${`${text}`.slice(0, 600)}`)
  status = 1
}

/** Firefox reaches nobody over WebRTC at a loopback address. */
const host = isFirefox
  ? Object.values(networkInterfaces()).flat().find(({ family, internal }) => family === 'IPv4' && !internal)?.address
  : '127.0.0.1'

const launch = (...args) => puppeteer.launch(isFirefox
  ? { browser: 'firefox', executablePath, headless: true }
  : { executablePath, args: ['--no-sandbox', '--disable-gpu', ...args] })

/** A UDP port that is free now, for a node that comes back on it. */
async function freeUdpPort () {
  const socket = createSocket('udp4')
  await new Promise((resolve) => socket.bind(0, '127.0.0.1', resolve))
  const { port } = socket.address()
  await new Promise((resolve) => socket.close(resolve))
  return port
}

/** A page of the site, whose errors are failures but for that of a stream that is reset unread, which Firefox tells. */
async function openPage (browser, name, site) {
  const page = await browser.newPage()
  const expected = /the connection broke before the response ended/
  page.on('pageerror', (error) => expected.test(error) || fail(`${name}: a script failed: ${error}`))
  page.on('console', (message) => { if (message.type() === 'error') fail(`${name}: the console: ${message.text()}`) })
  await page.goto(`${site.origin}/`)
  await page.waitForFunction(() => document.title === 'ready')
  return page
}

/** The program of the manual's section on WebRTC Direct, with the network and the address of the relay. */
async function manual (browser, site, { address, peerId }) {
  const text = readFileSync(new URL('../../docs/browser.md', import.meta.url), 'utf8')
  const block = [...text.matchAll(/^```js\n(.*?)^```/gms)].map(([, text]) => text).find((text) => text.includes('tandem-web/webrtc'))
  const aimed = block.replace("'tandem'", "'browser-check'").replace(/'\/ip4\/[^']*PEER_ID'/, `'${address}'`)
    .replace(/'tandem-web(?:\/(\w+))?'/g, (_, name) => `'./${name ?? 'tandem'}.js'`)
  site.show('/manual.js', aimed)
  const page = await openPage(browser, 'the manual', site)
  const told = []
  page.on('console', (message) => told.push(message.text()))
  await page.evaluate(() => import('/manual.js').then(() => {}))
  await until('the program of the manual tells its peer', async () => told.includes(peerId))
  await page.close()
  console.log('the program of the manual does what it says')
}

/** Bytes of a file that nobody reads: more than a stream may keep. */
const UNREAD_BYTES = 20_000_000
const GARBAGE_CHANNELS = 300

/**
 * Hands the node's connection channels of another one, all at once, with garbage on each: they are real ones, and no peer of libp2p that is not
 * hostile would open them. Resolves with the number that was handed over.
 */
const garbage = async (channels) => {
  const target = window.made.at(-1)
  const [near, far] = [new RTCPeerConnection(), new RTCPeerConnection()]
  for (const [one, other] of [[near, far], [far, near]]) one.onicecandidate = ({ candidate }) => { if (candidate) other.addIceCandidate(candidate) }
  let given = 0
  far.ondatachannel = (event) => {
    given += 1
    target.ondatachannel({ channel: event.channel })
  }
  const opened = Array.from({ length: channels }, () => near.createDataChannel(''))
  await near.setLocalDescription()
  await far.setRemoteDescription(near.localDescription)
  await far.setLocalDescription()
  await near.setRemoteDescription(far.localDescription)
  await Promise.all(opened.map((channel, at) => new Promise((resolve) => {
    channel.onopen = () => {
      channel.send(crypto.getRandomValues(new Uint8Array(1 + at * 50)))
      channel.send('a text')
      channel.send(new Uint8Array(0))
      // A length that never ends.
      channel.send(new Uint8Array(100).fill(255))
      resolve()
    }
  })))
  while (given < channels) await new Promise((resolve) => { setTimeout(resolve, 20) })
  await new Promise((resolve) => { setTimeout(resolve, 500) })
  near.close()
  far.close()
  return given
}

/** What a hostile or dying peer does costs the page a stream, or its connection, and nothing else. */
async function attacked (name, page, address, { relay, behind, restart, ws }) {
  const joined = await inPage(page)({ version: 2, peers: [address] })
  await until(`${name}: the link`, async () => (await joined.peers()).length === 1)
  const [link] = await joined.peers()
  const goesOn = async (what, votes) => {
    const before = await joined.count('AV')
    await behind.send('AV', names(`${name}, ${what}`, votes))
    await until(`${name}: votes after ${what}`, async () => await joined.count('AV') === before + votes)
    const peers = await joined.peers()
    if (peers.length !== 1 || peers[0].id !== link.id) fail(`${name}: ${what} cost the link`)
  }

  const given = await page.evaluate(garbage, GARBAGE_CHANNELS)
  await goesOn(`${given} channels of garbage`, 100)
  console.log(`${name}: ${given} channels at once with garbage on each: votes go on over the same link`)

  const arrived = () => page.evaluate(async () => {
    const stats = await window.made.at(-1).getStats()
    return [...stats.values()].filter(({ type }) => type === 'data-channel').reduce((sum, { bytesReceived }) => sum + bytesReceived, 0)
  })

  // A stream that is not read, of a file that is larger than what may be kept of it.
  const put = await fetch(`http://127.0.0.1:${ws}/files`, { method: 'POST', body: randomBytes(UNREAD_BYTES) })
  const id = (await put.text()).match(/[0-9a-f]{64}/)?.[0]
  if (!put.ok || !id) throw new Error(`the file was not taken: ${put.status}`)
  const path = `/files/${id}`
  await page.evaluate(async (peer, path) => { window.unread = await node.fetch(peer, path) }, link.peerId, path)
  const begun = await arrived()
  // Its channel goes, and takes its bytes out of the sum.
  await until(`${name}: the end of the stream`, async () => await arrived() < begun)
  await goesOn('a stream that nobody reads', 1000)
  const rest = await page.evaluate(() => window.unread.arrayBuffer().then((bytes) => `${bytes.byteLength} bytes`, ({ message }) => message))
  if (/bytes$/.test(rest)) fail(`${name}: of a stream that nobody read came ${rest}`)
  const whole = await page.evaluate(async (peer, path) => (await (await node.fetch(peer, path)).arrayBuffer()).byteLength, link.peerId, path)
  if (whole !== UNREAD_BYTES) fail(`${name}: of a file that is read came ${whole} bytes`)
  console.log(`${name}: a stream that nobody read was reset (${rest}), votes went on; read at once, all ${whole} bytes came`)

  // The peer dies within a message.
  const before = await arrived()
  const lost = randomBytes(5 * 1024 * 1024)
  behind.send('PP', [lost]).catch(() => {})
  await until(`${name}: a part of the proposal`, async () => await arrived() - before > 500_000)
  relay.now.kill()
  await until(`${name}: the link ends`, async () => (await joined.peers()).length === 0, 60_000)
  const within = await joined.count('PP') === 0
  await restart()
  await until(`${name}: the link comes back`, async () => (await joined.peers()).length === 1, 60_000)
  await until('the node behind is back too', async () => (await behind.peers()).some(({ peer_id: id }) => id === relay.now.peerId), 60_000)
  const next = randomBytes(1_000_000)
  await behind.send('PP', [next])
  const known = new Set([lost, next].map(sha256))
  await until(`${name}: the proposal after`, async () => {
    const count = await joined.count('PP')
    const last = count > 0 ? await joined.proposal(count - 1) : null
    if (last && !known.has(last)) throw new Error(`${name}: a part of a proposal was taken for one`)
    return last === sha256(next)
  })
  console.log(`${name}: a peer that was killed within a proposal (${within ? 'none of it was handled' : 'it had come already'}): the next one came whole after it was back`)
  await joined.close()
}

/** Objects with data channels that do not keep to what was agreed: each is a dial that failed, with a text, and the node goes on. */
async function misbehaving (address) {
  const { Node } = await import(`${folder}/tandem.js`)
  const { webrtc } = await import(`${folder}/webrtc.js`)
  const never = new Promise(() => {})
  const closed = []
  const connection = (parts) => ({ certificate: new Uint8Array(32), open () {}, send () {}, buffered: () => 0, closeChannel () {}, close () {}, ...parts })
  const cases = {
    throws: [() => { throw new Error('it threw at once') }, /it threw at once/],
    rejects: [async () => { throw new Error('it was rejected') }, /it was rejected/],
    'gives nothing': [() => undefined, /gave no object/],
    'has no certificate': [() => connection({ certificate: undefined, close: () => closed.push('certificate') }), /lacks a method for channels, or its certificate/],
    'has a short certificate': [() => connection({ certificate: new Uint8Array(31) }), /lacks a method for channels, or its certificate/],
    'cannot send': [() => connection({ send: 7, close: () => closed.push('send') }), /lacks a method for channels/],
    'sends with an error': [(_, events) => { events.message(0, new Uint8Array([34, 18, 32, ...new Array(32).fill(9)])); return connection({ send () { throw new Error('no room') } }) }, /./],
    'says garbage': [(_, events) => { events.message(0, randomBytes(40_000)); return connection() }, /./],
    'says no bytes': [(_, events) => { events.message(0, 'a text'); events.message(7, {}); events.ended(new Error('it gave up')); return connection() }, /./],
    'ends at once': [(_, events) => { events.ended(new Error('it gave up')); return connection({ close: () => closed.push('end') }) }, /./],
    'calls all there is': [(_, events) => {
      for (const id of [0, 1, 2, 65_535]) { events.opened(id); events.drained(id); events.closed(id); events.message(id, new Uint8Array(1)) }
      for (let at = 0; at < 2000; at += 1) events.accepted()
      events.ended(undefined)
      return connection({ buffered: () => 'many' })
    }, /./],
    'never answers': [() => never, /in time|timed out|Timeout/i],
    'never says a word': [() => connection({ close: () => closed.push('late') }), /timed out|Timeout/i]
  }
  await Promise.all(Object.entries(cases).map(async ([name, [dialChannels, expected]]) => {
    const node = await Node.start({ network: 'browser-check', identity: randomBytes(32), WebSocket: null, transports: [{ dialChannels }], peers: [address] })
    const error = await until(`a dial that ${name}`, async () => node.dials()[0]?.error, 30_000)
    if (!expected.test(error)) fail(`a dial that ${name} told: ${error}`)
    if (node.broadcast('TX', 'still here') === 'closed') fail(`a dial that ${name} closed the node`)
    await node.close()
  }))
  for (const what of ['certificate', 'send', 'end', 'late']) if (!closed.includes(what)) fail(`a connection was not closed: ${what}`)
  for (const [options, expected] of [[{}, /no RTCPeerConnection/], [{ version: 3, RTCPeerConnection: class {} }, /no version 3/]]) {
    let told = 'nothing'
    try { webrtc(options) } catch ({ message }) { told = message }
    if (!expected.test(told)) fail(`webrtc() in Node.js told: ${told}`)
  }
  console.log(`${Object.keys(cases).length} transports with data channels that misbehave: each is a dial that failed, and the node goes on`)
}

const site = await serve(folder)
let browser = null
try {
  const [ws, udp] = [await freePort(), await freeUdpPort()]
  const relay = { now: null }
  const restart = async () => {
    relay.now = await start(program, scratch, 'relay', '--listen-ws', `127.0.0.1:${ws}`, '--listen-p2p', `/ip4/${host}/udp/${udp}/webrtc-direct`, '--service', 'status', '--service', 'files', '--uploads-from', 'anyone', '--max-inbound-per-ip', '50')
  }
  await restart()
  const behind = await start(program, scratch, 'behind', '--mode', 'ws', '--peer', `127.0.0.1:${ws}`)
  await until('the node behind has its relay', async () => (await behind.peers()).length === 1)
  const native = { relay, behind, restart, fail }
  const address = relay.now.addresses.find((address) => address.includes('/webrtc-direct/certhash/'))
  if (!isFirefox) await misbehaving(address)
  const ways = [[2], [1], ...(isFirefox ? [] : [[2, NO_MUNGING]])]
  for (const [version, ...flags] of ways) {
    const name = `${browserName}, WebRTC v${version}${flags.length > 0 ? ', where v1 is forbidden' : ''}`
    browser = await launch(...flags)
    if (version === 2 && flags.length === 0) await manual(browser, site, { address, peerId: relay.now.peerId })
    const page = await openPage(browser, name, site)
    await gossip(name, (options) => inPage(page)({ version, ...options }), address, native)
    if (version === 2 && flags.length === 0) await attacked(name, await openPage(browser, name, site), address, { ...native, ws })
    await browser.close()
  }
} catch (error) {
  fail(error.stack)
} finally {
  await browser?.close()
  stopAll()
  site.close()
}
process.exit(status)
