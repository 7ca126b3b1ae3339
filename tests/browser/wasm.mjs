#!/usr/bin/env node
/**
 * The node as WebAssembly in a page of Chromium or Firefox, and in a worker.
 *
 *   wasm.mjs BROWSER PROGRAM SCRATCH PACKAGE
 *
 * Relays, one of them over TLS, and behind them a node that has libp2p alone. A page of a site that the relays let in hears and sends, goes on when a relay is
 * killed while a proposal is on its way, is cut off and comes back, and is attacked; a page of another site is refused. Exit status 0 if all
 * of it held; each thing that did not is a line on stderr.
 */

import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import puppeteer from 'puppeteer-core'
import { ATTACKS, HELLOS, attacker, wire } from './hostile.mjs'
import { checking, names, sha256, start, until } from './nodes.mjs'
import { servePackage } from './package-site.mjs'

const [executablePath, program, scratch, folder] = process.argv.slice(2)
const VOTES = 1000
const TRANSACTIONS = 100
const PROPOSAL_BYTES = 5 * 1024 * 1024

const { fail, run } = checking('WebAssembly in a page')

const site = await servePackage(folder)
const foreign = await servePackage(folder)
const browser = await puppeteer.launch(executablePath.includes('firefox')
  ? { browser: 'firefox', executablePath, acceptInsecureCerts: true }
  : { executablePath, acceptInsecureCerts: true, args: ['--no-sandbox', '--disable-gpu'] })

/** A page of a site, whose errors are failures unless they tell of connections. */
async function open (of) {
  const page = await browser.newPage()
  const expected = /WebSocket|ERR_CONNECTION_REFUSED|CORS|ERR_FAILED|establish a connection|was interrupted/
  page.on('pageerror', (error) => { if (!expected.test(error)) fail(`a script failed: ${error}`) })
  page.on('console', (message) => { if (message.type() === 'error' && !expected.test(message.text())) fail(`a console: ${message.text()}`) })
  await page.goto(`${of.origin}/`)
  await page.waitForFunction(() => document.title === 'ready')
  return page
}
const heard = (page, name, tag) => page.evaluate((name, tag) => heard[name][tag].length, name, tag)

/** A page joins by a relay, hears votes and a proposal of the node behind it, and sends transactions to that. */
async function converses (page, name, options, [relay, behind]) {
  let began = performance.now()
  const joined = await page.evaluate((name, options) => join(name, options), name, options)
  console.log(`${options.peers}: joined after ${Math.round(performance.now() - began)} ms`)
  if (joined.peer.peerId !== relay.peerId) fail(`the relay proved another identity: ${JSON.stringify(joined)}`)
  await until('the relay knows the page by its key', async () => (await relay.peers()).some(({ peer_id: id }) => id === joined.peerId))
  began = performance.now()
  await behind.send('AV', names(`vote for ${name}`, VOTES))
  await until('every vote', async () => await heard(page, name, 'AV') >= VOTES)
  const votes = await page.evaluate((name) => heard[name].AV, name)
  if (new Set(votes).size !== VOTES || votes.length !== VOTES) fail(`of ${VOTES} votes came ${votes.length}, ${new Set(votes).size} of them different`)
  console.log(`  ${votes.length} votes from libp2p: ${Math.round(performance.now() - began)} ms`)
  const proposal = randomBytes(PROPOSAL_BYTES)
  began = performance.now()
  await behind.send('PP', [proposal])
  await until('the proposal', async () => await heard(page, name, 'PP') === 1)
  if (await page.evaluate((name) => sha256(heard[name].PP[0]), name) !== sha256(proposal)) fail('the proposal was changed on its way')
  console.log(`  a proposal of ${PROPOSAL_BYTES} bytes: ${Math.round(performance.now() - began)} ms`)
  const transactions = await behind.heard('TX')
  const sent = await page.evaluate((name, count) => Array.from({ length: count }, (_, at) => nodes[name].broadcast('TX', `transaction ${at} of ${name}`)), name, TRANSACTIONS)
  if (sent.some((admission) => admission !== 'queued')) fail(`a transaction was not taken: ${sent}`)
  await until('every transaction', async () => new Set(transactions).size === TRANSACTIONS)
  if (transactions.length !== TRANSACTIONS) fail(`${TRANSACTIONS} transactions were handled ${transactions.length} times`)
  console.log(`  ${transactions.length} transactions, handled once each by the node with libp2p alone`)
  return { ...joined, transactions }
}

await run(async () => {
  const relay = (name) => start(program, scratch, name, '--page-origin', site.origin, '--service', 'status', '--service', 'bridge', '--max-inbound-per-ip', '30')
  const [first, second] = [await relay('first'), await relay('second')]
  const behind = await start(program, scratch, 'behind', '--mode', 'p2p', '--service', 'status', '--peer', first.p2p, '--peer', second.p2p)
  await until('the node behind has both relays', async () => (await behind.peers()).length === 2)
  const line = await wire(first.ws)
  const options = { network: first.network, name: 'a page' }

  // It joins, hears and sends.
  const page = await open(site)
  const joined = await converses(page, 'page', { ...options, peers: [line.ws] }, [first, behind])
  const modes = await page.evaluate(async (peer) => {
    const answers = [await nodes.page.fetch(nodes.page.peers()[0], '/health'), await nodes.page.fetch(peer, '/health')]
    return Promise.all(answers.map(async (answer) => (await answer.json()).mode))
  }, behind.peerId)
  if (modes.join() !== 'hybrid,p2p') fail(`other nodes answered: ${modes}`)

  // The same over TLS.
  const [cert, key] = [`${scratch}/tls.pem`, `${scratch}/tls.key`]
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', key, '-out', cert], { stdio: 'ignore' })
  const secure = await start(program, scratch, 'secure', '--page-origin', site.origin, '--tls-cert', cert, '--tls-key', key, '--peer', behind.p2p)
  const over = await open(site)
  await converses(over, 'secure page', { ...options, peers: [secure.ws.replace('http', 'wss')] }, [secure, behind])
  await over.close()

  // The seed stays, sealed by a key that cannot be read, and is held by one page at a time.
  const other = await open(site)
  const { peerId: another } = await other.evaluate((options) => join('other', options), { ...options, peers: [second.ws] })
  if (another === joined.peerId) fail('two pages have one key at the same time')
  await other.close()
  const kept = await page.evaluate(async () => {
    const asked = indexedDB.open('tandem-node')
    await new Promise((resolve) => { asked.onsuccess = resolve })
    const get = asked.result.transaction('seeds').objectStore('seeds').get('identity')
    await new Promise((resolve) => { get.onsuccess = resolve })
    asked.result.close()
    return [Object.keys(get.result).sort().join(), await crypto.subtle.exportKey('raw', get.result.key).then(() => 'read', (error) => error.name)]
  })
  if (kept.join() !== 'iv,key,sealed,InvalidAccessError') fail(`the kept key: ${kept}`)

  // A worker.
  const worker = page.evaluate((options) => new Promise((resolve) => {
    const worker = new Worker('/worker.js', { type: 'module' })
    worker.onmessage = ({ data }) => { if (data.joined) window.workerJoined = true; else resolve(data.vote) }
    worker.postMessage(options)
  }), { ...options, peers: [second.ws], identity: null })
  await page.waitForFunction(() => window.workerJoined)
  await behind.send('AV', ['a vote for a worker'])
  if (await worker !== 'a vote for a worker') fail('a worker heard something else')

  // A page that reads too slowly loses the oldest.
  await page.evaluate(async (options) => {
    window.slow = await tandem.Node.start(options)
    await slow.connected()
    window.slowVotes = slow.on('AV')
  }, { ...options, peers: [second.ws], identity: null, limits: { queueMessages: 10 } })
  await behind.send('AV', names('a vote for a slow page', 50))
  // The last one may be counted, and not yet be with the loop.
  await page.waitForFunction(() => slow.stats.received >= 50 && slow.stats.dropped >= 40, { timeout: 10_000 }).catch(() => {})
  const lost = await page.evaluate(async () => { await slowVotes.next(); await slow.close(); return slow.stats.dropped })
  if (lost !== 40) fail(`of 50 votes with room for ten were dropped ${lost}`)

  // A page of another site is refused.
  const stranger = await open(foreign)
  const refused = await stranger.evaluate(async (options) => {
    const node = await tandem.Node.start(options)
    const outcome = await node.connected({ timeoutMs: 1000 }).then(() => 'joined', ({ code }) => code)
    await node.close()
    return outcome
  }, { ...options, peers: [second.ws], identity: null })
  if (refused !== 'unreachable') fail(`a page of another site: ${refused}`)
  if (await second.count('ws_upgrades_refused_total', 'reason="origin"') < 1) fail('a page of another site was not counted')
  await stranger.close()

  // Relays that send garbage.
  const enemy = await attacker(first.network)
  const ends = await page.evaluate(async (options, attacks, hellos, good) => {
    const ended = []
    for (const [name, address] of hellos) {
      // With a key, because a node without one asks for no identity.
      const node = await tandem.Node.start({ ...options, peers: [address], identity: crypto.getRandomValues(new Uint8Array(32)) })
      ended.push([name, await node.connected({ timeoutMs: 300 }).then(() => 'joined', ({ code }) => code)])
      await node.close()
    }
    for (const [name, address, mayStay] of attacks) {
      const node = await tandem.Node.start({ ...options, peers: [address, good] })
      let reason = null
      node.addEventListener('disconnected', ({ detail }) => { if (detail.peer.http.endsWith(name)) reason ??= detail.reason })
      const deadline = performance.now() + 10_000
      const isDone = () => (reason || mayStay) && node.peers().some(({ http }) => !http.endsWith(name))
      while (!isDone() && performance.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 20))
      ended.push([name, isDone() ? reason : 'no end'])
      await node.close()
    }
    return ended
  }, { ...options, identity: null }, Object.entries(ATTACKS).map(([name, { ends }]) => [name, enemy.at(name), ends.includes(null)]), Object.keys(HELLOS).map((name) => [name, enemy.at(name)]), second.ws)
  for (const [name, reason] of ends) if (!(ATTACKS[name]?.ends ?? ['unreachable']).includes(reason)) fail(`the attack ${name} ended as ${reason}`)
  console.log(`${ends.length} kinds of garbage end their link and nothing else`)
  enemy.close()

  // The wire is cut while proposals are on their way; the page comes back, and has a second relay when the first is killed.
  let before = await heard(page, 'page', 'PP')
  const onTheWay = Promise.allSettled(Array.from({ length: 4 }, () => behind.send('PP', [randomBytes(PROPOSAL_BYTES)])))
  await until('a proposal on its way', async () => await heard(page, 'page', 'PP') > before)
  line.cut()
  await page.waitForFunction(() => nodes.page.peers().length === 0)
  await onTheWay
  const began = performance.now()
  await line.mend()
  await page.waitForFunction(() => nodes.page.peers().length === 1)
  console.log(`back ${Math.round(performance.now() - began)} ms after the wire is mended`)
  await page.evaluate((address) => nodes.page.addPeer(address), second.ws)
  await page.waitForFunction(() => nodes.page.peers().length === 2)
  const had = await heard(page, 'page', 'AV')
  first.kill()
  await page.waitForFunction(() => nodes.page.peers().length === 1)
  await behind.send('AV', names('a vote after', 100))
  await until('the votes after', async () => await heard(page, 'page', 'AV') === had + 100)
  const pieces = await page.evaluate((bytes) => heard.page.PP.filter((body) => body.length !== bytes).length, PROPOSAL_BYTES)
  if (pieces > 0) fail(`${pieces} proposals came in part`)
  const { transactions } = joined
  before = transactions.length
  if (await page.evaluate(() => nodes.page.broadcast('TX', 'back again')) !== 'queued') fail('it cannot send after its relay died')
  await until('a transaction by the other relay', async () => transactions.length > before)

  // The page of the manual.
  const manual = readFileSync(new URL('../../docs/browser.md', import.meta.url), 'utf8')
  const [html] = [...manual.matchAll(/^```html\n(.*?)^```/gms)].map(([, text]) => text).filter((text) => text.includes('tandem-web'))
  site.show(html.replaceAll('ws://127.0.0.1:4160', second.ws.replace('http', 'ws')).replaceAll("network: 'tandem'", `network: '${first.network}'`))
  const shown = await browser.newPage()
  shown.on('pageerror', (error) => fail(`the manual's page failed: ${error}`))
  await shown.goto(`${site.origin}/manual`)
  await shown.waitForFunction((id) => document.querySelector('#relay').textContent === id, {}, second.peerId)
  await behind.send('AV', ['a vote of the manual'])
  await shown.waitForFunction(() => document.querySelector('#votes li')?.textContent === 'a vote of the manual')
  await shown.close()

  // Its key is there when it is opened again.
  await page.reload()
  await page.waitForFunction(() => document.title === 'ready')
  const { peerId } = await page.evaluate((options) => join('again', options), { ...options, peers: [second.ws] })
  if (peerId !== joined.peerId) fail('the key of the page did not stay')
  line.close()
}, () => browser.close(), site.close, foreign.close)
