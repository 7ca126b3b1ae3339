#!/usr/bin/env node
/**
 * Looks at the dashboard of a node in Chromium.
 *
 *   look.mjs CHROMIUM ADDRESS PEERS PICTURES   ADDRESS is what `tandem dashboard --no-open` prints
 *
 * Waits until the node has PEERS peers on the page, prints `shown`, waits for a line, which says that one of them was killed,
 * and prints the milliseconds until the page shows one less. Then it shows the page a thousand peers with hostile names.
 * Exit status 0 if all of it held; each thing that did not is a line on stderr. Pictures are kept in the folder PICTURES.
 */

import { createInterface } from 'node:readline'
import puppeteer from 'puppeteer-core'

const [chromium, address, peers, pictures] = process.argv.slice(2)
const PATIENCE_MS = 30_000
const KILLED_MS = 2_000
const HOSTILE = '<img src=x onerror="document.title=1">\u001b[31m\u202eevil'

let status = 0
const fail = (text) => {
  console.error(`dashboard: ${text}`)
  status = 1
}

const browser = await puppeteer.launch({ executablePath: chromium, args: ['--no-sandbox', '--disable-gpu'] })
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
try {
  const page = await browser.newPage()
  await page.setViewport({ width: 1280, height: 900 })
  const host = new URL(address).host
  page.on('request', (request) => { if (new URL(request.url()).host !== host) fail(`it asks ${request.url()}`) })
  page.on('pageerror', (error) => fail(`its script failed: ${error}`))
  page.on('console', (message) => { if (message.type() === 'error' && !/40[14]/.test(message.text())) fail(`its console: ${message.text()}`) })

  // Without the token it asks for it, and shows nothing.
  const [plain, token] = address.split('#token=')
  await page.goto(plain)
  await page.waitForSelector('#ask:not([hidden])', { timeout: PATIENCE_MS })
  if (await page.$eval('#main', (main) => !main.hidden)) fail('the page of a node is shown without its token')
  await page.type('#token', 'x'.repeat(40))
  await page.keyboard.press('Enter')
  await page.waitForFunction(() => document.querySelector('#trouble').textContent.includes('does not know this token'), { timeout: PATIENCE_MS })
  await page.type('#token', token)
  await page.keyboard.press('Enter')
  await page.waitForSelector('#main:not([hidden])', { timeout: PATIENCE_MS })

  await page.goto(`${plain}?again#token=${token}`)
  const shown = (number) => page.waitForFunction(
    (number) => document.querySelectorAll('#graph line').length === number && document.querySelectorAll('#table tbody tr').length === number,
    { timeout: PATIENCE_MS, polling: 20 }, number)
  await shown(Number(peers))
  if (page.url().includes(token)) fail('the token stays in the address')
  await page.waitForFunction(() => document.querySelector('#rates-words').textContent.startsWith('Now'), { timeout: PATIENCE_MS })
  if (await page.$eval('#lanes', ({ parentElement: card }) => card.scrollWidth > card.clientWidth)) fail('the table of the lanes is cut off')
  await page.screenshot({ path: `${pictures}/light.png`, fullPage: true })
  console.log('shown')

  await lines.next()
  const began = performance.now()
  await shown(Number(peers) - 1)
  const took = performance.now() - began
  console.log(`${Math.round(took)} ms until the page shows a peer that was killed`)
  if (took > KILLED_MS) fail('a killed peer is shown for too long')
  await page.waitForFunction(() => /peer disconnected/.test(document.querySelector('#events').textContent), { timeout: PATIENCE_MS })

  // With the keyboard alone: skip to the peers, and sort them by their round-trip time.
  await page.keyboard.press('Home')
  await page.evaluate(() => document.activeElement?.blur())
  await page.keyboard.press('Tab')
  if (await page.evaluate(() => document.activeElement.className) !== 'skip') fail('the first key does not skip to the peers')
  await page.focus('#table th:nth-child(6) button')
  await page.keyboard.press('Enter')
  if (await page.$eval('#table th:nth-child(6)', (cell) => cell.getAttribute('aria-sort')) !== 'ascending') fail('a heading does not sort by the keyboard')
  // Messages flow: their latency is told for each lane, and the way of one is shown.
  await page.waitForFunction(() => [1, 2, 3, 4].every((row) => [1, 2].every((at) => /\d/.test(document.querySelector('#latency').rows[row]?.cells[at].textContent))), { timeout: PATIENCE_MS })
  await page.waitForSelector('#traces tbody button', { timeout: PATIENCE_MS })
  await page.focus('#traces tbody button')
  await page.keyboard.press('Enter')
  await page.waitForFunction(() => /came from|heard on/.test(document.querySelector('#way').textContent), { timeout: PATIENCE_MS })
  await page.evaluate(() => { document.querySelector('#digest').value = 'ab'.repeat(32); document.querySelector('#digest').dispatchEvent(new Event('input')) })
  await page.waitForFunction(() => /is not kept/.test(document.querySelector('#way-words').textContent), { timeout: PATIENCE_MS })
  await page.focus('#traces tbody button')
  await page.keyboard.press('Enter')
  await page.waitForSelector('#way li', { timeout: PATIENCE_MS })
  // Other nodes are asked by this one: itself once more, which is shown once, and one that is not there.
  await page.type('#nodes', `${address}\n/no/where`)
  await page.keyboard.press('Tab')
  await page.waitForFunction(() => /this node[^]*no node runs/.test(document.querySelector('#tree:not([hidden])')?.textContent), { timeout: PATIENCE_MS })
  if ((await page.$eval('#tree', (tree) => tree.textContent)).includes(token)) fail('a token is shown')
  await page.evaluate(() => document.activeElement.blur())
  await page.click('#theme')
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: 'dark' }])
  await page.evaluate(() => { delete document.documentElement.dataset.theme })
  await page.screenshot({ path: `${pictures}/dark.png`, fullPage: true })

  // A thousand peers, with names that are no names.
  await page.setRequestInterception(true)
  const lane = {
    queued_messages: 3, queued_bytes: 4_000, received_messages: 1, received_bytes: 1, sent_messages: 1, sent_bytes: 1,
    received_messages_per_s: 2.5, received_bytes_per_s: 1, sent_messages_per_s: 7, sent_bytes_per_s: 1
  }
  const many = Array.from({ length: 1_000 }, (_, number) => ({
    peer: number, transport: number % 3 ? 'ws' : 'p2p', direction: number % 2 ? 'in' : 'out', address: HOSTILE, peer_id: number % 5 ? `12D3KooWabcdefgh${number}` : null,
    connected_ms: number * 60_000, queued_bytes: 8_000, roles: number % 50 ? [] : ['relay'], rtt_us: number % 7 ? number * 200 : null, weight: 0, http: null, dial: null,
    topic_score: null, topic_muted: false, agent: HOSTILE, protocols: [HOSTILE], lanes: { priority: lane, bulk: lane }, dropped: number, drops: {}
  }))
  page.on('request', (request) => {
    if (new URL(request.url()).pathname === '/v1/peers') {
      request.respond({ contentType: 'application/json', body: JSON.stringify({ total: 1_000, offset: 0, limit: 1_000, peers: many }) })
    } else {
      request.continue()
    }
  })
  await page.waitForFunction(() => document.querySelectorAll('#graph line').length === 1_000, { timeout: PATIENCE_MS })
  const found = await page.evaluate(() => ({
    images: document.images.length, rows: document.querySelectorAll('#table tbody tr').length, title: document.title,
    address: document.querySelector('#table td:nth-child(5)').textContent, words: document.querySelector('#graph-words').textContent
  }))
  if (found.images > 0 || found.title === '1') fail('a name of a peer became markup')
  // eslint-disable-next-line no-control-regex
  if (/[\u0000-\u001f\u202e]/.test(found.address) || !found.address.includes('<img')) fail(`a name is not shown as it is: ${found.address}`)
  if (found.rows !== 100) fail(`${found.rows} rows on a page`)
  await page.screenshot({ path: `${pictures}/thousand.png`, fullPage: true })
  await page.setViewport({ width: 390, height: 800 })
  if (await page.evaluate(() => document.documentElement.scrollWidth > innerWidth)) fail('a narrow window has to be scrolled sideways')
  await page.screenshot({ path: `${pictures}/narrow.png` })
} catch (error) {
  fail(String(error))
} finally {
  await browser.close()
}
process.exit(status)
