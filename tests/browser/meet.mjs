#!/usr/bin/env node
/**
 * Has two pages with the node as WebAssembly meet over WebRTC, through a native node as their relay.
 *
 *   meet.mjs BROWSER PROGRAM PACKAGE SCRATCH
 *
 * The relay is killed once they have met. Votes, a proposal and HTTP go from page to page all the same. Exit status 0 if all of it held; each thing
 * that did not is a line on stderr.
 */

import { readFileSync } from 'node:fs'
import puppeteer from 'puppeteer-core'
import { inPage, names, serve } from './gossiping.mjs'
import { checking, start, until } from './nodes.mjs'

const [executablePath, program, folder, scratch] = process.argv.slice(2)
const isFirefox = executablePath.includes('firefox')
const VOTES = 500
const PROPOSAL_BYTES = 5 * 1024 * 1024
const BODY_BYTES = 1_000_000
const { fail, run } = checking(`pages that meet in ${isFirefox ? 'Firefox' : 'Chromium'}`)

const site = await serve(folder)
const browser = await puppeteer.launch(isFirefox
  ? { browser: 'firefox', executablePath, headless: true }
  : { executablePath, args: ['--no-sandbox', '--disable-gpu'] })

async function openPage (name) {
  const page = await browser.newPage()
  // The relay is killed, and dialled again in vain.
  const expected = /WebSocket connection to|establish a connection to the server at ws:/
  page.on('pageerror', (error) => expected.test(error) || fail(`${name}: a script failed: ${error}`))
  page.on('console', (message) => { if (message.type() === 'error' && !expected.test(message.text())) fail(`${name}: the console: ${message.text()}`) })
  await page.goto(`${site.origin}/`)
  await page.waitForFunction(() => document.title === 'ready')
  return page
}

/** Sends votes and a proposal from one page, which the other one has to hear whole. */
async function gossips (way, from, to) {
  const before = await to.count('AV')
  const began = performance.now()
  const votes = names(`${way}, vote`, VOTES)
  const sent = await from.send('AV', votes)
  if (sent.some((admission) => admission !== 'queued')) fail(`${way}: a vote was not taken`)
  await until(`${way}: every vote`, async () => await to.count('AV') >= before + VOTES)
  const heard = new Set(await to.heard('AV'))
  if (!votes.every((vote) => heard.has(vote))) fail(`${way}: a vote is another one`)
  const took = Math.round(performance.now() - began)
  const proposals = await to.count('PP')
  const hash = await from.page.evaluate(async (bytes) => {
    const body = new Uint8Array(bytes)
    for (let at = 0; at < bytes; at += 65_536) crypto.getRandomValues(body.subarray(at, Math.min(at + 65_536, bytes)))
    window.admitted = node.broadcast('PP', body)
    return window.sha256(body)
  }, PROPOSAL_BYTES)
  await until(`${way}: the proposal`, async () => await to.count('PP') === proposals + 1, 60_000)
  const came = await to.page.evaluate((at) => window.sha256(heard.PP[at]), proposals)
  if (came !== hash) fail(`${way}: the proposal was changed on its way`)
  console.log(`${way}: ${VOTES} votes in ${took} ms, votes and a proposal of ${PROPOSAL_BYTES} bytes in ${Math.round(performance.now() - began)} ms`)
}

/** Calls a service of the other page, with a body that comes back. */
async function calls (way, from, peer) {
  const back = await from.page.evaluate(async (peer, bytes) => {
    const body = new Uint8Array(bytes).fill(7)
    const answer = new Uint8Array(await (await node.fetch(peer, '/echo', { method: 'POST', body })).arrayBuffer())
    return answer.length === bytes && answer.every((byte) => byte === 7)
  }, peer, BODY_BYTES)
  if (!back) fail(`${way}: a body was changed on its way`)
}

/** The program of the manual's section, with the relay and the network of this check: others can meet it. */
async function manual (relay) {
  const text = readFileSync(new URL('../../docs/browser.md', import.meta.url), 'utf8')
  const block = [...text.matchAll(/^```js\n(.*?)^```/gms)].map(([, text]) => text).find((text) => text.includes('tandem-web/webrtc') && text.includes('p2p-circuit'))
  const aimed = block.replace("'tandem'", `'${relay.network}'`).replace(/'\/dns4\/[^']*'/, `'${relay.p2p}/p2p-circuit'`)
    .replace(/'tandem-web(?:\/(\w+))?'/g, (_, name) => `'./${name ?? 'tandem'}.js'`)
  site.show('/manual.js', `${aimed}window.manual = node\n`)
  const page = await openPage('the manual')
  await page.evaluate(() => import('/manual.js').then(() => {}))
  await until('the program of the manual can be met', () => page.evaluate(() => window.manual.addresses.some((address) => address.includes('/p2p-circuit/webrtc/p2p/'))))
  await page.close()
}

await run(async () => {
  const relay = await start(program, scratch, 'relay', '--mode', 'p2p', '--reachability', 'relay', '--listen-p2p', '/ip4/127.0.0.1/tcp/0/ws', '--page-origin', site.origin)
  await manual(relay)
  const [here, there] = [await openPage('the first page'), await openPage('the second page')]
  const listening = { page: here, ...await inPage(here)({ meets: true, listen: [`${relay.p2p}/p2p-circuit`] }) }
  const address = await until('an address to meet at', () => here.evaluate(() => node.addresses.find((address) => address.includes('/p2p-circuit/webrtc/p2p/'))))
  await here.evaluate(() => { node.serve('/echo', (request) => new Response(request.body)) })

  const began = performance.now()
  const dialling = { page: there, ...await inPage(there)({ meets: true, peers: [address] }) }
  await there.evaluate(() => { node.serve('/echo', (request) => new Response(request.body)) })
  const own = { listening: await listening.peerId(), dialling: await dialling.peerId() }
  for (const [end, peer] of [[dialling, own.listening], [listening, own.dialling]]) {
    await until('the pages are linked directly', async () => (await end.peers()).some(({ peerId, address }) => peerId === peer && address.includes('/webrtc')), 30_000)
  }
  console.log(`two pages met in ${Math.round(performance.now() - began)} ms`)
  const links = async () => JSON.stringify(await Promise.all([listening, dialling].map(async (end) => (await end.peers()).filter(({ address }) => address.includes('/webrtc')).map(({ id }) => id))))
  const before = await links()

  relay.kill()
  await until('the place at the relay is gone', () => here.evaluate(() => node.addresses.length === 0), 60_000)
  await gossips('from the page that dialled', dialling, listening)
  await gossips('from the page that was dialled', listening, dialling)
  await calls('from the page that dialled', dialling, own.listening)
  await calls('from the page that was dialled', listening, own.dialling)
  if (await links() !== before) fail('the link is another one than before the relay was killed')
  console.log(`their relay killed, HTTP with ${BODY_BYTES} bytes there and back goes both ways over the same link`)

  // The end of one page is heard by the other.
  await dialling.close()
  await until('the other page hears of the end', async () => (await listening.peers()).length === 0, 60_000)
  await listening.close()
}, () => browser.close(), () => site.close())
