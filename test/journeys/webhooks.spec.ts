import { newId } from '@banyan/kernel';
import { describe, expect, it } from 'vitest';
import { everythingAddsUp, everythingEnds } from '../shop/invariants.js';
import { openShop, placements } from '../shop/shop.js';

describe.each(placements)('A webhook, %s', (placement) => {
  const shop = openShop({ placement });
  const events = (orderId: string) =>
    shop.sql(
      `select type from shipping.outbox where data ->> 'orderId' = $1
       union all select type from payments.outbox where data ->> 'orderId' = $1
       union all select type from orders.outbox where data ->> 'orderId' = $1`,
      [orderId],
    );

  it('that is forged, stale or unsigned is refused, and changes nothing', async () => {
    const olaf = await shop.guest();
    const id = await olaf.buy(await shop.offer());
    const { shipment } = await olaf.until(id, (order) => order.shipment);
    const event = {
      eventId: newId(),
      trackingNumber: shipment.trackingNumber,
      status: 'dispatched',
      at: new Date().toISOString(),
    };
    const path = '/v1/webhooks/carrier';
    const secret = shop.config.shipping.carrierWebhookSecret!;
    const other = shop.config.payments.pspWebhookSecret!;
    const hourAgo = new Date(Date.now() - 3_600_000);
    const refused = [
      await shop.webhook(path, event, 'not the secret that was agreed'),
      await shop.webhook(path, event, other),
      await shop.webhook(path, event, secret, hourAgo),
      await shop.stranger().post(path, event),
      await shop.stranger().post(path, event, { 'banyan-signature': 't=1,v1=00' }),
      // A token is no signature.
      await (await shop.guest('admin')).post(path, event),
    ];
    for (const answer of refused) expect(answer.problem(401)).toBe('SIGNATURE_INVALID');
    expect((await olaf.see(id)).shipment.status).toBe('pending');
    (await shop.webhook(path, event, secret)).expect(204);
    await olaf.until(id, 'shipped');
  });

  it('that is told five times, some at once, counts once', async () => {
    const pia = await shop.guest();
    const id = await pia.buy(await shop.offer());
    const { shipment } = await pia.until(id, (order) => order.shipment);
    const event = { eventId: newId(), at: new Date().toISOString() };
    const tell = () => shop.carrierSays(shipment.trackingNumber, 'dispatched', event);
    for (const answer of await Promise.all([tell(), tell(), tell()])) answer.expect(204, 409);
    (await tell()).expect(204);
    (await shop.carrierSays(shipment.trackingNumber, 'dispatched')).expect(204);
    await pia.until(id, (order) => order.payment.status === 'captured');
    const told = (await events(id)).map(({ type }) => type);
    expect(told.filter((type) => type === 'shipping.ShipmentDispatched')).toHaveLength(1);
    expect(new Set(told.filter((type) => type === 'orders.OrderShipped')).size).toBe(1);
    await everythingAddsUp(shop);
  });

  it('that overtakes another one does no harm: delivered comes before dispatched', async () => {
    const quinn = await shop.guest();
    const id = await quinn.buy(await shop.offer());
    const { shipment } = await quinn.until(id, (order) => order.shipment);
    (await shop.carrierSays(shipment.trackingNumber, 'delivered')).expect(204);
    (await shop.carrierSays(shipment.trackingNumber, 'dispatched')).expect(204);
    await quinn.until(id, (order) => order.status === 'delivered' && order.payment.status === 'captured');
    await everythingAddsUp(shop);
  });

  it('of the provider that comes twice, or is about nothing we know, changes nothing more', async () => {
    const ruth = await shop.guest();
    const id = await ruth.buy(await shop.offer(), { pay: 'tok_3ds' });
    await ruth.until(id, (order) => order.payment?.status === 'requires_action');
    const [row] = await shop.sql('select provider_ref from payments.payment where order_id = $1', [id]);
    const event = { eventId: newId(), type: 'payment.declined', providerRef: row!.provider_ref, reason: 'lost card' };
    for (let i = 0; i < 3; i++) (await shop.providerSays(event)).expect(204);
    (await shop.providerSays({ ...event, eventId: newId(), providerRef: 'auth_unknown' })).expect(204);
    await ruth.until(id, 'rejected');
    // A later word that says the opposite does not wake the order up.
    (await shop.providerSays({ ...event, eventId: newId(), type: 'payment.authorised' })).expect(204);
    expect((await ruth.see(id)).status).toBe('rejected');
    const said = await shop.sql(
      `select type from payments.payment_event e join payments.payment p on p.id = e.payment_id where p.order_id = $1 order by e.version`,
      [id],
    );
    expect(said.filter(({ type }) => type === 'declined')).toHaveLength(1);
  });

  it('that is signed but makes no sense is a 400', async () => {
    const secret = shop.config.shipping.carrierWebhookSecret!;
    const answer = await shop.webhook('/v1/webhooks/carrier', { status: 'eaten' }, secret);
    expect(answer.problem(400)).toBe('INPUT_INVALID');
    const array = await shop.webhook('/v1/webhooks/psp', [], shop.config.payments.pspWebhookSecret!);
    expect(array.problem(400)).toBe('INPUT_INVALID');
  });

  it('leaves nothing open and nothing wrong', () => everythingEnds(shop));
});
