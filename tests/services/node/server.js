// A real OpenID provider for tests. `node server.js '{"port": 4000, "host": "localhost"}'`; what it may be told at run time is below.

import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';

import { Memory } from './memory.js';
import { signInPage } from './pages.js';
import { buildProvider, subjectByLogin } from './provider.js';

const start = JSON.parse(process.argv[2]);
const issuer = `http://${start.host}:${start.port}`;
const memory = new Memory();

let settings;
let keys;
let faults;
let requests;
let provider;
let answer;

function newKeys() {
  const pairs = [['RS256', generateKeyPairSync('rsa', { modulusLength: 2048 })], ['ES256', generateKeyPairSync('ec', { namedCurve: 'P-256' })]];
  return pairs.map(([alg, { privateKey }]) => ({ ...privateKey.export({ format: 'jwk' }), alg, use: 'sig', kid: randomUUID() }));
}

function rebuild() {
  provider = buildProvider(issuer, settings, keys, memory);
  answer = provider.callback();
}

function reset() {
  settings = structuredClone(start.settings);
  keys ??= newKeys();
  faults = {};
  requests = [];
  memory.clear();
  rebuild();
}

async function bodyOf(request) {
  let text = '';
  for await (const chunk of request) text += chunk;
  return text;
}

function send(response, status, type, body) {
  response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' });
  response.end(body);
}

// Ends a person's sessions as an administrator would: every client of theirs is told over the back channel.
async function endSessions(login) {
  const subject = subjectByLogin(settings.accounts, login);
  const told = [];
  const sessions = memory.of('Session');
  for (const [id, { payload }] of sessions) {
    if (payload.accountId !== subject) continue;
    for (const [clientId, { sid }] of Object.entries(payload.authorizations ?? {})) {
      const client = await provider.Client.find(clientId);
      if (client?.backchannelLogoutUri) {
        try {
          await client.backchannelLogout(subject, sid);
          told.push({ client_id: clientId, status: 'ok' });
        } catch (error) {
          told.push({ client_id: clientId, status: error.message });
        }
      }
    }
    sessions.delete(id);
  }
  return { told };
}

const controls = {
  '/control/reset': () => reset(),
  '/control/settings': (changes) => { Object.assign(settings, changes); rebuild(); },
  '/control/account': ({ login, claims }) => {
    if (claims === null) delete settings.accounts[login];
    else settings.accounts[login] = { ...settings.accounts[login], ...claims };
    for (const [name, value] of Object.entries(claims ?? {})) if (value === null) delete settings.accounts[login][name];
    rebuild();
  },
  '/control/client': async (metadata) => {
    // Through the library's own schema, so that a wrong registration is said here and not at the first sign-in.
    new provider.Client(metadata);
    await new (memory.adapter())('Client').upsert(metadata.client_id, metadata);
  },
  '/control/keys': ({ keep_old: keepOld }) => {
    const fresh = newKeys();
    keys = keepOld ? [...fresh, ...keys] : fresh;
    rebuild();
    return { kids: keys.map((key) => key.kid) };
  },
  '/control/fault': ({ path, ...fault }) => { faults[path] = fault; },
  '/control/repair': () => { faults = {}; },
  '/control/requests': () => ({ requests }),
  '/control/end_sessions': ({ login }) => endSessions(login),
};

async function control(path, request, response) {
  try {
    const result = await controls[path](JSON.parse((await bodyOf(request)) || '{}'));
    send(response, 200, 'application/json', JSON.stringify(result ?? {}));
  } catch (error) {
    send(response, 400, 'text/plain', error.error_description ?? error.stack);
  }
}

async function interaction(request, response) {
  const { uid, params, prompt } = await provider.interactionDetails(request, response);
  const show = (status, problem) => send(response, status, 'text/html; charset=utf-8', signInPage(uid, params.client_id, params.login_hint, problem));
  if (request.method !== 'POST') return show(200);
  const form = new URLSearchParams(await bodyOf(request));
  if (form.get('do') === 'cancel') {
    const refusal = { error: 'access_denied', error_description: 'The person cancelled the sign-in.' };
    return provider.interactionFinished(request, response, refusal, { mergeWithLastSubmission: false });
  }
  const subject = subjectByLogin(settings.accounts, form.get('login'));
  if (subject === undefined) return show(403, 'Nobody has that login.');
  const asked = prompt.details.acr?.value ?? prompt.details.acr?.values?.[0] ?? params.acr_values?.split(' ')[0];
  const acr = asked ?? 'urn:test:password';
  const amr = acr === 'urn:test:mfa' ? ['pwd', 'otp', 'mfa'] : ['pwd'];
  return provider.interactionFinished(request, response, { login: { accountId: subject, acr, amr } }, { mergeWithLastSubmission: false });
}

async function serve(request, response) {
  const { pathname } = new URL(request.url, issuer);
  if (Object.hasOwn(controls, pathname) && request.method === 'POST') return control(pathname, request, response);
  requests.push({ method: request.method, path: pathname });
  const fault = faults[pathname];
  if (fault?.delay) await new Promise((resolve) => { setTimeout(resolve, fault.delay * 1000); });
  if (fault?.status) return send(response, fault.status, fault.type ?? 'application/json', fault.body ?? '{"error":"server_error"}');
  if (pathname.startsWith('/interaction/')) return interaction(request, response);
  return answer(request, response);
}

reset();
createServer((request, response) => {
  serve(request, response).catch((error) => {
    console.error(error);
    if (!response.headersSent) send(response, error.statusCode ?? 500, 'text/plain', `${error.name}: ${error.message}`);
  });
}).listen(start.port, '127.0.0.1');
