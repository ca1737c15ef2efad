// Builds an oidc-provider from settings; built anew when settings or keys change, over the same memory.

import { Provider } from 'oidc-provider';

import { errorPage, signedOutPage, signOutPage } from './pages.js';

const EMAIL = ['email', 'email_verified'];
const NOT_PROFILE = new Set(['sub', 'sid', 'auth_time', 'acr', 'amr', 'iss', ...EMAIL, '_claim_names', '_claim_sources']);
const ALWAYS_PROFILE = ['name', 'preferred_username', 'groups'];

const subjectOf = (login, claims) => claims.sub || login;

export function accountBySubject(accounts, subject) {
  const found = Object.entries(accounts).find(([login, claims]) => subjectOf(login, claims) === subject);
  return found && { ...found[1], sub: subject };
}

export const subjectByLogin = (accounts, login) =>
  (Object.hasOwn(accounts, login) ? subjectOf(login, accounts[login]) : undefined);

function profileClaims(accounts) {
  const named = Object.values(accounts).flatMap(Object.keys).filter((name) => !NOT_PROFILE.has(name));
  return [...new Set([...ALWAYS_PROFILE, ...named])];
}

function resourceServer(settings, resource) {
  const known = settings.resources[resource];
  return {
    scope: known?.scope ?? 'read write',
    audience: known?.audience ?? resource,
    accessTokenTTL: settings.access_token_ttl,
    accessTokenFormat: known?.format ?? 'jwt',
    jwt: { sign: { alg: known?.alg ?? 'RS256' } },
  };
}

// Consent is given for everything that is asked for; only the sign-in is interactive.
async function consentToAll(ctx, settings) {
  const { provider, client, session, params } = ctx.oidc;
  const known = session.grantIdFor(client.clientId);
  const grant = (known && (await provider.Grant.find(known)))
    || new provider.Grant({ clientId: client.clientId, accountId: session.accountId });
  grant.addOIDCScope(params.scope);
  for (const resource of [params.resource ?? []].flat()) {
    grant.addResourceScope(resource, resourceServer(settings, resource).scope);
  }
  if (settings.default_resource) {
    grant.addResourceScope(settings.default_resource, resourceServer(settings, settings.default_resource).scope);
  }
  await grant.save();
  return grant;
}

function features(settings) {
  return {
    devInteractions: { enabled: false },
    backchannelLogout: { enabled: true },
    claimsParameter: { enabled: true },
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    revocation: { enabled: true },
    jwtUserinfo: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: (ctx, client, oneOf) => oneOf ?? settings.default_resource ?? undefined,
      getResourceServerInfo: (ctx, resource) => resourceServer(settings, resource),
      useGrantedResource: () => true,
    },
    rpInitiatedLogout: {
      enabled: true,
      logoutSource: (ctx, form) => { ctx.body = signOutPage(form); },
      postLogoutSuccessSource: (ctx) => { ctx.body = signedOutPage(); },
    },
  };
}

export function buildProvider(issuer, settings, keys, memory) {
  const { accounts } = settings;
  const port = new URL(issuer).port;
  const provider = new Provider(issuer, {
    adapter: memory.adapter(),
    jwks: { keys },
    features: features(settings),
    acrValues: ['urn:test:password', 'urn:test:mfa'],
    claims: {
      openid: ['sub', 'acr', 'amr', 'auth_time', 'sid'],
      profile: profileClaims(accounts),
      email: EMAIL,
      groups: ['groups'],
    },
    scopes: ['openid', 'profile', 'email', 'groups', 'offline_access'],
    clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'client_secret_jwt', 'private_key_jwt', 'none'],
    // Several providers of one test share the cookies of one host name.
    cookies: {
      keys: ['cookies of the test provider'],
      names: { session: `_op_${port}`, interaction: `_op_${port}_interaction`, resume: `_op_${port}_resume` },
    },
    clockTolerance: 5,
    conformIdTokenClaims: !settings.claims_in_id_token,
    pkce: { required: () => settings.pkce_required },
    rotateRefreshToken: settings.rotate_refresh_tokens,
    issueRefreshToken: (ctx, client) => client.grantTypeAllowed('refresh_token'),
    expiresWithSession: () => false,
    extraTokenClaims: (ctx, token) => {
      const { sub, ...claims } = accountBySubject(accounts, token.accountId) ?? {};
      return claims;
    },
    findAccount: (ctx, subject) => {
      const claims = accountBySubject(accounts, subject);
      return claims && { accountId: subject, claims: () => claims };
    },
    interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
    loadExistingGrant: (ctx) => consentToAll(ctx, settings),
    renderError: (ctx, out) => { ctx.type = 'html'; ctx.body = errorPage(out); },
    ttl: {
      AccessToken: settings.access_token_ttl,
      ClientCredentials: settings.access_token_ttl,
      AuthorizationCode: 60,
      Grant: 86400,
      IdToken: settings.id_token_ttl,
      Interaction: 600,
      RefreshToken: settings.refresh_token_ttl,
      Session: 86400,
    },
  });
  provider.on('server_error', (ctx, error) => console.error(error));
  return provider;
}
