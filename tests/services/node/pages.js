// The provider's own pages: one sign-in form, and a sign-out that asks once.

const escaped = (text) => String(text).replace(/[&<>"']/g, (letter) => `&#${letter.charCodeAt(0)};`);

const page = (title, body) => `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>${escaped(title)}</title></head>
<body><main><h1>${escaped(title)}</h1>${body}</main></body></html>`;

export const signInPage = (uid, client, hint, problem) => page('Sign in to the test provider', `
${problem ? `<p role="alert">${escaped(problem)}</p>` : ''}
<p>${escaped(client)} asks who you are.</p>
<form method="post" action="/interaction/${escaped(uid)}">
<label>Login <input name="login" autocomplete="username" value="${escaped(hint || '')}"></label>
<label>Password <input name="password" type="password" autocomplete="current-password"></label>
<button name="do" value="sign-in">Sign in</button>
<button name="do" value="cancel">Cancel</button>
</form>`);

export const signOutPage = (form) => page('Sign out of the test provider', `
${form}
<button form="op.logoutForm" name="logout" value="yes">Sign out</button>`);

export const signedOutPage = () => page('Signed out of the test provider', '');

export const errorPage = (out) => page('The test provider refused', `<p>${escaped(out.error)}: ${escaped(out.error_description || '')}</p>`);
