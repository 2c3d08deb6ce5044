// `node open-loop.mjs PORT PATH RATE MS`: that many requests a second whatever comes back, timed from when each was due.
import { Agent, get } from 'node:http';
import { quantile } from '../../support/report.mjs';

const [port, path, rate, ms] = process.argv.slice(2).map((each, at) => (at === 1 ? each : Number(each)));
const agent = new Agent({ keepAlive: true, maxSockets: 256 });
const waits = [];
let [failed, running] = [0, 0];
const from = performance.now();
let made = 0;

const one = (due) => {
  running++;
  const over = (ok) => {
    running--;
    if (!ok) failed++;
    waits.push(performance.now() - due);
  };
  get({ port, path, agent, headers: { 'banyan-session': `s${made % 100}` } }, (response) => {
    response.resume();
    response.once('end', () => over(response.statusCode === 200)).once('error', () => over(false));
  }).once('error', () => over(false));
};

const timer = setInterval(() => {
  const now = performance.now() - from;
  for (; made < (Math.min(now, ms) * rate) / 1_000; made++) one(from + (made * 1_000) / rate);
  if (now < ms || running > 0) return;
  clearInterval(timer);
  agent.destroy();
  console.log(JSON.stringify({ p50: quantile(waits, 0.5), p99: quantile(waits, 0.99), failed, made }));
}, 1);
