import type { Transport } from './tandem.js'

/** TCP, in Node.js: dials `/ip4`, `/ip6`, `/dns`, `/dns4` and `/dns6` with `/tcp/PORT`, and listens on the first two. */
export function tcp (): Required<Transport>
