#!/usr/bin/env node
/**
 * Joins the gossip from pages in Chromium or Firefox, from a worker, and from Node.js.
 *
 *   join.mjs BROWSER PROGRAM SCRATCH
 *
 * Two relays, and behind them a node that has libp2p alone. Pages of a site that the relays let in hear and send through them; one relay
 * is killed while a proposal is on its way; a page of another site is refused. Exit status 0 if all of it held; each thing that did not is a
 * line on stderr.
 */

import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename } from 'node:path'
import puppeteer from 'puppeteer-core'
import WebSocket from 'ws'
import { Node } from '../../web/client/tandem.js'
import { wire } from './hostile.mjs'
import { checking, names, sha256, start, until } from './nodes.mjs'
import { serve } from './site.mjs'

const [executablePath, program, scratch] = process.argv.slice(2)
const VOTES = 1000
const TRANSACTIONS = 100
const PROPOSAL_BYTES = 5 * 1024 * 1024
const PAGES = 50

const { fail, run } = checking('browser')

/** The blocks of a language in the manual's page, for the relay at an address. */
const manual = readFileSync(new URL('../../docs/browser.md', import.meta.url), 'utf8')
const blocks = (language) => [...manual.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\``, 'gms'))].map(([, text]) => text)
const aimed = (text, { ws, network }) => text.replaceAll('ws://127.0.0.1:4160', ws.replace('http', 'ws')).replaceAll("network: 'tandem'", `network: '${network}'`)

const site = await serve()
const foreign = await serve()
const browser = await puppeteer.launch(executablePath.includes('firefox')
  ? { browser: 'firefox', executablePath }
  : { executablePath, args: ['--no-sandbox', '--disable-gpu'] })

/** A page of a site, whose errors are failures unless they are told of before. */
async function open (of, { context = browser, expected = /^$/ } = {}) {
  const page = await context.newPage()
  // Firefox tells of a connection that is refused as of an error of the script.
  page.on('pageerror', (error) => { if (!expected.test(error)) fail(`a script failed: ${error}`) })
  page.on('console', (message) => { if (message.type() === 'error' && !expected.test(message.text())) fail(`a console: ${message.text()}`) })
  await page.goto(`${of.origin}/`)
  await page.waitForFunction(() => document.title === 'ready')
  return page
}
const heard = (page, name, tag) => page.evaluate((name, tag) => heard[name][tag].length, name, tag)

await run(async () => {
  const relay = (name) => start(program, scratch, name, '--page-origin', site.origin, '--max-inbound-per-ip', `${PAGES + 10}`, '--service', 'status', '--service', 'bridge')
  const [first, second] = [await relay('first'), await relay('second')]
  const behind = await start(program, scratch, 'behind', '--mode', 'p2p', '--service', 'status', '--peer', first.p2p, '--peer', second.p2p)
  await until('the node behind has both relays', async () => (await behind.peers()).length === 2)
  const options = { addresses: [first.ws, second.ws], network: first.network, inOrder: true, name: 'a page' }

  // It joins, hears and sends.
  const page = await open(site, { expected: /ERR_CONNECTION_REFUSED|WebSocket|establish a connection|was interrupted/ })
  const joined = await page.evaluate((options) => join('page', options), options)
  if (joined.relay.peerId !== first.peerId) fail(`the relay proved another identity: ${JSON.stringify(joined)}`)
  await until('the relay knows the page by its key', async () => (await first.peers()).some(({ peer_id: id }) => id === joined.peerId))
  let began = performance.now()
  await behind.send('AV', names('vote', VOTES))
  await until('every vote', async () => await heard(page, 'page', 'AV') >= VOTES)
  const votes = await page.evaluate(() => heard.page.AV)
  if (new Set(votes).size !== VOTES || votes.length !== VOTES) fail(`of ${VOTES} votes came ${votes.length}, ${new Set(votes).size} of them different`)
  console.log(`${votes.length} votes from libp2p in a page: ${Math.round(performance.now() - began)} ms`)
  const proposal = randomBytes(PROPOSAL_BYTES)
  began = performance.now()
  await behind.send('PP', [proposal])
  await until('the proposal', async () => await heard(page, 'page', 'PP') === 1)
  const digest = await page.evaluate(() => sha256(heard.page.PP[0]))
  if (digest !== sha256(proposal)) fail('the proposal was changed on its way')
  console.log(`a proposal of ${PROPOSAL_BYTES} bytes, whole: ${Math.round(performance.now() - began)} ms`)
  const transactions = await behind.heard('TX')
  const sent = await page.evaluate((count) => Array.from({ length: count }, (_, at) => nodes.page.broadcast('TX', `transaction ${at} of a page`)), TRANSACTIONS)
  if (sent.some((admission) => admission !== 'queued')) fail(`a transaction was not taken: ${sent}`)
  await until('every transaction', async () => new Set(transactions).size === TRANSACTIONS)
  if (transactions.length !== TRANSACTIONS) fail(`${TRANSACTIONS} transactions were handled ${transactions.length} times`)
  console.log(`${transactions.length} transactions of a page, handled once each by the node with libp2p alone`)

  // HTTP: of the relay, and through it of the node that has libp2p alone.
  const health = await page.evaluate(async (peer) => [await (await nodes.page.fetch('/health')).json(), await (await nodes.page.fetch('/health', { peer })).json()], behind.peerId)
  if (health[0].mode !== 'hybrid' || health[1].mode !== 'p2p') fail(`other nodes answered: ${JSON.stringify(health)}`)
  const answer = await page.evaluate(async () => [...await nodes.page.request({ any: 'thing' })].map(([key]) => key))
  if (answer.join() !== 'Error') fail(`the relay answered a strange request with ${answer}`)

  // The key stays, cannot be read, and is held by one page at a time.
  const other = await open(site)
  const ids = await other.evaluate((options) => join('other', { ...options }).then(({ peerId }) => peerId), options)
  if (ids === joined.peerId) fail('two pages have one key at the same time')
  await other.close()
  const kept = await page.evaluate(async () => {
    const asked = indexedDB.open('tandem')
    await new Promise((resolve) => { asked.onsuccess = resolve })
    const get = asked.result.transaction('keys').objectStore('keys').get('identity')
    await new Promise((resolve) => { get.onsuccess = resolve })
    return crypto.subtle.exportKey('pkcs8', get.result.privateKey).then(() => 'read', (error) => error.name)
  })
  if (kept !== 'InvalidAccessError') fail(`the kept key can be read: ${kept}`)

  // A worker, and Node.js.
  const worker = page.evaluate((options) => new Promise((resolve) => {
    const worker = new Worker('/worker.js', { type: 'module' })
    worker.onmessage = ({ data }) => { if (data.joined) window.workerJoined = true; else resolve(data.vote) }
    worker.postMessage(options)
  }), options)
  await page.waitForFunction(() => window.workerJoined)
  const here = await Node.connect({ ...options, WebSocket: globalThis.WebSocket ?? WebSocket })
  const [hereVotes, hereProposals] = [here.on('AV'), here.on('PP')]
  await behind.send('AV', ['a vote for all'])
  if (await worker !== 'a vote for all') fail('a worker heard something else')
  if (`${Buffer.from((await hereVotes.next()).value.body)}` !== 'a vote for all') fail('Node.js heard something else')
  const another = randomBytes(PROPOSAL_BYTES)
  await behind.send('PP', [another])
  if (sha256((await hereProposals.next()).value.body) !== sha256(another)) fail('a proposal was changed on its way to Node.js')
  if (here.broadcast('TX', 'a transaction of Node.js') !== 'queued') fail('Node.js could not send')
  await until('the transaction of Node.js', async () => transactions.length === TRANSACTIONS + 1)
  if ((await (await here.fetch('/health', { peer: behind.peerId })).json()).mode !== 'p2p') fail('Node.js did not reach the node with libp2p alone')
  here.close()
  if (!(await hereVotes.next()).done) fail('a loop goes on after the end of its node')
  console.log('a worker and Node.js hear, send and call too')

  // What the manual shows: a page, and a program.
  const [html] = blocks('html')
  site.show(aimed(html, first))
  const shown = await browser.newPage()
  shown.on('pageerror', (error) => fail(`the manual's page failed: ${error}`))
  await shown.goto(`${site.origin}/manual`)
  await shown.waitForFunction((id) => document.querySelector('#relay').textContent === id, {}, first.peerId)
  // The checks of two browsers may go on at once.
  const folder = new URL(`./node_modules/.manual-${basename(executablePath)}/`, import.meta.url)
  mkdirSync(folder, { recursive: true })
  copyFileSync(new URL('../../web/client/tandem.js', import.meta.url), new URL('./tandem.mjs', folder))
  const [js] = blocks('js')
  writeFileSync(new URL('./program.mjs', folder), aimed(js, first).replace('./tandem.js', './tandem.mjs'))
  const programOfManual = spawn(process.execPath, [new URL('./program.mjs', folder).pathname], { stdio: ['ignore', 'pipe', 'inherit'] })
  let said = ''
  programOfManual.stdout.on('data', (text) => { said += text })
  await until('the state in the program of the manual', async () => said.includes('queued\nserving\n'))
  await behind.send('AV', ['a vote of the manual'])
  await until('the vote in the program of the manual', async () => /^AV 20 20/m.test(said))
  programOfManual.kill()
  await shown.waitForFunction(() => document.querySelector('#votes li')?.textContent === 'a vote of the manual')
  if (await shown.$eval('#count', ({ textContent }) => textContent) !== '1') fail('the page of the manual counts wrongly')
  await shown.close()
  const extra = TRANSACTIONS + 2
  await until('the transaction of the program of the manual', async () => transactions.length === extra)
  console.log('the page and the program of the manual do what it says')

  // Refused: a page of another site, a wrong network, a hello that is none. A page that reads too slowly loses the oldest.
  const stranger = await open(foreign, { expected: /WebSocket|CORS|ERR_FAILED|establish a connection/ })
  const refused = await stranger.evaluate(async (options, health) => {
    const joining = await client.Node.connect({ ...options, identity: null, limits: { startMs: 1000 } }).then(() => 'joined', ({ code }) => code)
    return [joining, await fetch(health).then(() => 'read', ({ name }) => name)]
  }, options, `${second.ws}/health`)
  if (refused.join() !== 'unreachable,TypeError') fail(`a page of another site: ${refused}`)
  if (await first.count('ws_upgrades_refused_total', 'reason="origin"') < 1) fail('a page of another site was not counted')
  await stranger.close()
  const attempts = await page.evaluate(async (options, base) => {
    const wrong = await client.Node.connect({ ...options, network: 'another', identity: null, limits: { startMs: 500 } }).then(() => 'joined', ({ code }) => code)
    const ends = (query) => new Promise((resolve) => { new WebSocket(`${base.replace('http', 'ws')}/v1/browser-check/gossip?${query}`).onclose = ({ code }) => resolve(code) })
    const garbage = await Promise.all(['%00%ff=%&&;', 'version=2.2&version=2.2', `version=2.2&noderandom=x&identitychallenge=${'A'.repeat(400)}`, `x=${'a'.repeat(5000)}`].map(ends))
    return [wrong, ...garbage]
  }, options, second.ws)
  if (attempts.join() !== 'unreachable,1006,1006,1006,1006') fail(`hellos that are none: ${attempts}`)
  const slow = await page.evaluate(async (options) => {
    const node = window.slow = await client.Node.connect({ ...options, identity: null, limits: { queueMessages: 10 } })
    window.slowVotes = node.on('AV')
    return node.relay.address
  }, options)
  if (slow !== first.ws) fail(`the first address is not the first: ${slow}`)
  await behind.send('AV', names('a vote for a slow page', 50))
  // The last one may be counted, and not yet be with the loop.
  await page.waitForFunction(() => slow.stats.received >= 50 && slow.stats.dropped >= 40, { timeout: 10_000 }).catch(() => {})
  const lost = await page.evaluate(async () => { const { value } = await slowVotes.next(); slow.close(); return [slow.stats.dropped, new TextDecoder().decode(value.body).length > 0] })
  if (lost[0] !== 40) fail(`of 50 votes with room for ten were dropped ${lost[0]}`)

  // A page is cut off, and comes back to the same relay.
  const line = await wire(second.ws)
  await page.evaluate((options) => join('cut', { ...options, identity: null }), { ...options, addresses: [line.ws] })
  line.cut()
  await page.waitForFunction(() => nodes.cut.relay === null)
  if (await page.evaluate(() => nodes.cut.broadcast('TX', 'while nobody is there')) !== 'full') fail('a page without a relay takes a transaction')
  await line.mend()
  await page.waitForFunction(() => nodes.cut.relay !== null)
  await behind.send('AV', ['a vote after the cut'])
  await page.waitForFunction(() => heard.cut.AV.includes('a vote after the cut'))
  await page.evaluate(() => nodes.cut.close())
  line.close()
  console.log('a page that was cut off comes back to its relay')

  // A start that was given up before it began.
  began = performance.now()
  const given = await Node.connect({ ...options, identity: null, WebSocket, signal: AbortSignal.abort() }).then(() => 'joined', ({ code }) => code)
  if (given !== 'closed' || performance.now() - began > 1000) fail(`a start that was given up: ${given} after ${performance.now() - began} ms`)

  // Many pages at once.
  began = performance.now()
  const crowd = await page.evaluate(async (options, count) => {
    const all = await Promise.all(Array.from({ length: count }, async () => client.Node.connect({ ...options, identity: await client.Identity.create() })))
    window.crowd = all.map((node) => { const votes = node.on('AV'); return { node, vote: votes.next() } })
    return new Set(all.map(({ peerId }) => peerId)).size
  }, options, PAGES)
  await behind.send('AV', ['a vote for the crowd'])
  const reached = await page.evaluate(async () => {
    const votes = await Promise.all(crowd.map(async ({ vote }) => new TextDecoder().decode((await vote).value.body)))
    crowd.forEach(({ node }) => node.close())
    return votes.filter((vote) => vote === 'a vote for the crowd').length
  })
  if (crowd !== PAGES || reached !== PAGES) fail(`of ${PAGES} pages ${crowd} joined, and ${reached} heard the vote`)
  console.log(`${PAGES} pages join and hear a vote: ${Math.round(performance.now() - began)} ms`)

  // The relay is killed while proposals are on their way, and the page goes on by the other one.
  const before = await heard(page, 'page', 'PP')
  const onTheWay = Promise.allSettled(Array.from({ length: 4 }, () => behind.send('PP', [randomBytes(PROPOSAL_BYTES)])))
  await until('a proposal on its way', async () => await heard(page, 'page', 'PP') > before)
  first.kill()
  const [gone, back] = await until('the other relay', () => page.evaluate((before) => {
    const events = heard.page.events
    const gone = events.find(({ event }) => event === 'disconnected')
    const back = events.find(({ event, at }) => event === 'connected' && at > gone?.at)
    return back && [gone, back]
  }))
  if (back.detail !== second.ws) fail(`it came back by ${back.detail}`)
  console.log(`${Math.round(back.at - gone.at)} ms from the death of the relay to the next one`)
  await onTheWay
  const pieces = await page.evaluate((bytes) => heard.page.PP.filter((body) => body.length !== bytes).length, PROPOSAL_BYTES)
  if (pieces > 0) fail(`${pieces} proposals came in part`)
  const had = await heard(page, 'page', 'AV')
  await behind.send('AV', names('a vote after', 100))
  await until('the votes after', async () => await heard(page, 'page', 'AV') === had + 100)
  if (await page.evaluate(() => nodes.page.broadcast('TX', 'back again')) !== 'queued') fail('it cannot send after its relay died')
  await until('a transaction by the other relay', async () => transactions.length === extra + 1)
  await page.reload()
  await page.waitForFunction(() => document.title === 'ready')
  const again = await page.evaluate((options) => join('again', options), options)
  if (again.peerId !== joined.peerId) fail('the key of the page did not stay')
}, () => browser.close(), site.close, foreign.close)
