import type { Authorisation } from './bank.js';

const page = (title: string, content: string): string => `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${title}</title>
<style>body{font:16px/1.5 system-ui;max-width:26rem;margin:4rem auto;padding:0 1rem}button{font:inherit;padding:.5rem 1rem}</style>
<h1>${title}</h1>
${content}
</html>
`;

const price = ({ amount, currency }: Authorisation): string =>
  new Intl.NumberFormat('en', { style: 'currency', currency }).format(
    amount /
      10 ** (new Intl.NumberFormat('en', { style: 'currency', currency }).resolvedOptions().maximumFractionDigits ?? 2),
  );

/** Where a customer answers the 3-D Secure challenge. */
export const challengePage = (at: Authorisation): string =>
  at.status !== 'requires_action'
    ? donePage(at)
    : page(
        'Is it you?',
        `<p>A shop asks for <strong>${price(at)}</strong>.</p>
<form method="post">
<button name="outcome" value="success">Yes, pay</button>
<button name="outcome" value="failure">No</button>
</form>`,
      );

export const donePage = (at: Authorisation): string =>
  page(at.status === 'declined' ? 'Declined' : 'Thank you', '<p>You can close this page.</p>');
