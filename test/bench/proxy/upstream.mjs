// What stands behind every contestant: answers at once, or after DELAY_MS, or never (DELAY_MS=-1), and costs next to nothing.
import net from 'node:net';

const delayMs = Number(process.env.DELAY_MS ?? 0);
const stock = { sku: 'SKU-0001', onHand: 100, reserved: 3, available: 97, version: 7, note: 'x'.repeat(400) };
const body = JSON.stringify(stock);
const answer =
  'HTTP/1.1 200 OK\r\ncontent-type: application/json; charset=utf-8\r\ncache-control: no-cache\r\netag: "7"\r\n' +
  `date: Thu, 01 Jan 2026 00:00:00 GMT\r\ncontent-length: ${body.length}\r\nconnection: keep-alive\r\n\r\n${body}`;

const server = net.createServer({ noDelay: true }, (socket) => {
  let rest = '';
  socket.on('error', () => {});
  socket.on('data', (chunk) => {
    rest += chunk.latin1Slice();
    let requests = 0;
    for (let end; (end = rest.indexOf('\r\n\r\n')) >= 0; rest = rest.slice(end + 4)) requests++;
    if (requests === 0 || delayMs < 0) return;
    if (delayMs > 0) setTimeout(() => socket.write(answer.repeat(requests), 'latin1'), delayMs);
    else socket.write(requests === 1 ? answer : answer.repeat(requests), 'latin1');
  });
});
server.listen(Number(process.env.PORT ?? 0), '127.0.0.1', () => process.send({ port: server.address().port }));
process.on('disconnect', () => process.exit());
