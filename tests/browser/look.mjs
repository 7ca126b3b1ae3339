#!/usr/bin/env node
/**
 * Looks at the page of `tandem demo --browser` in Chromium.
 *
 *   look.mjs CHROMIUM ADDRESS PICTURES
 *
 * Votes and proposals of every node arrive, a transaction is sent, a node with libp2p alone is asked, and the relay is killed: the page goes
 * on by the other one. Exit status 0 if all of it held; each thing that did not is a line on stderr. Pictures are kept in the folder PICTURES.
 */

import puppeteer from 'puppeteer-core'

const [chromium, address, pictures] = process.argv.slice(2)
const PATIENCE = { timeout: 30_000, polling: 50 }

let status = 0
const fail = (text) => {
  console.error(`demo page: ${text}`)
  status = 1
}

const browser = await puppeteer.launch({ executablePath: chromium, args: ['--no-sandbox', '--disable-gpu'] })
try {
  const page = await browser.newPage()
  await page.setViewport({ width: 1280, height: 900 })
  const own = new URL(address).host
  const asked = new Set()
  page.on('request', (request) => asked.add(new URL(request.url()).host))
  page.on('pageerror', (error) => fail(`its script failed: ${error}`))
  page.on('console', (message) => { if (message.type() === 'error' && !/404|ERR_CONNECTION|WebSocket/.test(message.text())) fail(`its console: ${message.text()}`) })
  await page.goto(address)
  await page.waitForSelector('#state.joined', PATIENCE)
  // Every node's votes and transactions arrive, and proposals, with a latency.
  await page.waitForFunction(() => {
    const rows = [...document.querySelectorAll('#nodes tbody tr')].map((row) => [...row.cells].map((cell) => cell.textContent))
    return rows.length > 0 && rows.every((cells) => Number(cells[2].replace(/\D/g, '')) > 100 && Number(cells[3].replace(/\D/g, '')) > 100 && / ms$/.test(cells[6]))
  }, PATIENCE)
  await page.waitForFunction(() => document.querySelectorAll('#proposals li').length >= 3, PATIENCE)
  const latency = await page.$$eval('#nodes tbody tr', (rows) => rows.map((row) => `${row.cells[0].textContent} ${row.cells[6].textContent}`))
  console.log(`votes, transactions and proposals arrive; median latency: ${latency.join(', ')}`)
  if (latency.some((text) => / -/.test(text))) fail(`a message came before it was sent: ${latency}`)

  // With the keyboard alone: skip to the transaction, send it, and ask the node.
  await page.keyboard.press('Tab')
  if (await page.evaluate(() => document.activeElement.className) !== 'skip') fail('the first key does not skip to the transaction')
  await page.keyboard.press('Enter')
  await page.focus('#text')
  await page.keyboard.press('Enter')
  await page.waitForFunction(() => document.querySelector('#sent').textContent === 'Sent: 1 so far.', PATIENCE)
  await page.focus('#ask button')
  await page.keyboard.press('Enter')
  await page.waitForFunction(() => /^\/status: 200/.test(document.querySelector('#asked').textContent), PATIENCE)
  if (JSON.parse(await page.$eval('#answer', ({ textContent }) => textContent)).mode !== 'p2p') fail('another node answered')
  await page.evaluate(() => document.activeElement.blur())
  await page.screenshot({ path: `${pictures}/light.png`, fullPage: true })

  // The relay is killed, and the page goes to the other one.
  const used = await page.$eval('#relays .used code', ({ textContent }) => Number(textContent.split(' ').at(-1)))
  const had = await page.evaluate(() => node.stats.received)
  process.kill(used, 'SIGKILL')
  await page.waitForFunction((used) => {
    const now = document.querySelector('#relays .used code')
    return now && !now.textContent.endsWith(` ${used}`)
  }, PATIENCE, used)
  await page.waitForFunction((had) => node.stats.received > had + 200, PATIENCE, had)
  const events = await page.$$eval('#events li', (lines) => lines.map((line) => line.textContent))
  // The plain client joins by the other relay then; the node as WebAssembly has both from the start.
  const last = await page.evaluate(() => document.documentElement.dataset.client) === 'wasm' ? /cut off/ : /joined by/
  if (!events.some((text) => /cut off/.test(text)) || !last.test(events[0])) fail(`the page does not tell what happened: ${events}`)
  console.log('its relay is killed, and it goes on by the other one')

  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: 'dark' }])
  await page.screenshot({ path: `${pictures}/dark.png`, fullPage: true })
  await page.setViewport({ width: 390, height: 800 })
  if (await page.evaluate(() => document.documentElement.scrollWidth > innerWidth)) fail('a narrow window has to be scrolled sideways')
  await page.screenshot({ path: `${pictures}/narrow.png`, fullPage: true })
  // It asks its own host and relays, of which the policy names two, and nobody else.
  const relays = await page.$$eval('#relays li', (lines) => lines.map((line) => line.textContent.match(/http:\/\/(\S+?)[,:]? /)[1].replace(/[,:]$/, '')))
  for (const host of asked) if (host !== own && !relays.includes(host)) fail(`it asks ${host}`)
} catch (error) {
  fail(error.stack)
} finally {
  await browser.close()
}
process.exit(status)
