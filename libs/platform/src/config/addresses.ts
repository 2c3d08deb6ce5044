import { isIP } from 'node:net';
import { z } from 'zod';

/* How addresses are written, in the environment and in files alike. */

/** Without the slashes at its end: paths are put behind it. */
export const httpUrl = z
  .url({ protocol: /^https?$/, error: 'must be a URL such as http://127.0.0.1:8090' })
  .transform((url) => url.replace(/\/+$/, ''));

const isOrigin = ({ pathname, search }: URL): boolean => pathname === '/' && search === '';

/** Where an upstream answers. Plain HTTP: what is encrypted ends before the proxy. */
export const httpOrigin = z
  .string()
  .refine(
    (text) => URL.canParse(text) && new URL(text).protocol === 'http:',
    'must be an address such as http://127.0.0.1:3000',
  )
  .refine((text) => !URL.canParse(text) || isOrigin(new URL(text)), 'must not have a path: requests keep theirs');

/** An address, or a network. Not `/0`: whoever means nobody in particular has made a mistake. */
export const network = z.string().refine((text) => {
  const [, address = '', bits = '1'] = /^([^/]+)(?:\/([1-9]\d{0,2}))?$/.exec(text) ?? [];
  const family = isIP(address);
  return family > 0 && Number(bits) <= (family === 4 ? 32 : 128);
}, 'must be an address such as 10.0.0.1, or a network such as 10.0.0.0/8');
