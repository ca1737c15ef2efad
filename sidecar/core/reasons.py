"""What each reason means to the person who meets it, and what they can do; docs/reasons.md says more to operators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sidecar.model import Reason


@dataclass(frozen=True, slots=True)
class Explanation:
    """Words for a page: a title, what happened, and what to do about it."""

    title: str
    happened: str
    advice: str


_ASK = "If you need access, ask the people who run this application and give them the reference below."
_AGAIN = "Please try again."
_LATER = "This is not your fault. Please try again in a moment."
_START = "Please start again from the application's start page."


def _strange(happened: str) -> Explanation:
    return Explanation("This request cannot be handled", happened, _START)


def _login(happened: str, advice: str = _AGAIN) -> Explanation:
    return Explanation("Signing in did not work", happened, advice)


def _token(happened: str) -> Explanation:
    return Explanation("The access token was not accepted", happened, "Fetch a new token and try again.")


def _account(happened: str) -> Explanation:
    return Explanation("Your account is not ready", happened, _ASK)


def _down(happened: str) -> Explanation:
    return Explanation("Temporarily unavailable", happened, _LATER)


EXPLANATIONS: Mapping[Reason, Explanation] = {
    Reason.PUBLIC: Explanation("Open to everyone", "This page is open to everyone.", ""),
    Reason.RULE: Explanation("Allowed", "A rule lets you in.", ""),
    Reason.NOT_SIGNED_IN: Explanation("Please sign in", "You need to sign in to see this page.", _AGAIN),
    Reason.NO_RULE: Explanation("No access", "Nothing in the configuration opens this page.", _ASK),
    Reason.ROLE_MISSING: Explanation("No access", "You are signed in, but this page is not open to you.", _ASK),
    Reason.RULE_DENIES: Explanation("No access", "This page is closed to everyone.", _ASK),
    Reason.REAUTHENTICATION: Explanation(
        "Please confirm that it is you", "This page asks for a recent or stronger sign-in.", _AGAIN
    ),
    Reason.PATH_AMBIGUOUS: _strange("The address can be read in more than one way."),
    Reason.TARGET_INVALID: _strange("The address has characters that do not belong in one."),
    Reason.METHOD_REFUSED: _strange("This kind of request is not accepted here."),
    Reason.HOST_UNKNOWN: Explanation(
        "Wrong address", "This application is not known under the name in your address bar.", _START
    ),
    Reason.ORIGIN_FOREIGN: _strange("The request came from another website."),
    Reason.HEADERS_INVALID: _strange("The request's headers are not valid."),
    Reason.HEADER_VALUE: _account("Something in your profile cannot be passed on to the application."),
    Reason.BODY_TOO_LARGE: Explanation("Too large", "What you sent is larger than this site accepts.", _START),
    Reason.RATE_LIMITED: Explanation("Too many attempts", "There were too many requests in a short time.", _LATER),
    Reason.NOT_FOUND: Explanation("Page not found", "There is no such page here.", _START),
    Reason.SESSION_EXPIRED: Explanation("Please sign in", "Your session has ended.", _AGAIN),
    Reason.TOKEN_INVALID: _token("The token could not be read or its signature is wrong."),
    Reason.TOKEN_EXPIRED: _token("The token has expired."),
    Reason.TOKEN_ISSUER: _token("The token comes from somebody who is not trusted here."),
    Reason.TOKEN_AUDIENCE: _token("The token was made for another application."),
    Reason.TOKEN_ALGORITHM: _token("The token is signed in a way that is not accepted."),
    Reason.TOKEN_KEY: _token("The key that signed the token is not known."),
    Reason.TOKEN_NONCE: _login("The answer belongs to another sign-in."),
    Reason.TOKEN_TIME: _login(
        "The times in the answer do not fit: a clock is wrong, or the answer is too old.",
        "Try again; if it happens again, tell the people who run this application.",
    ),
    Reason.TOKEN_CLAIM: _token("The token lacks something that it must have."),
    Reason.LOGIN_STATE_UNKNOWN: _login(
        "This sign-in was already used, or it took too long.", "Continue to the application; sign in again if asked."
    ),
    Reason.LOGIN_COOKIE_MISSING: _login(
        "Your browser did not send back the cookie with which the sign-in began.",
        "Allow cookies for this site, use one browser for the whole sign-in, and try again.",
    ),
    Reason.LOGIN_LOOP: _login(
        "You signed in several times in a row, but your browser never came back with a session.",
        "Allow cookies for this site. Operators: see whether public_url has the scheme and host in the address bar, "
        "and whether the clocks agree.",
    ),
    Reason.LOGIN_PROVIDER_UNKNOWN: _login("There is no such sign-in here.", _START),
    Reason.LOGIN_PROVIDER_ERROR: _login("The identity provider did not let you in."),
    Reason.LOGIN_ANSWER_INVALID: _login("The identity provider's answer is not valid."),
    Reason.LOGIN_ISSUER_MIXED: _login("The answer came from another identity provider than the one asked."),
    Reason.LOGIN_CODE_REFUSED: _login("The identity provider did not accept its own sign-in code again."),
    Reason.IDENTITY_INCOMPLETE: _account("The identity provider did not say enough about you."),
    Reason.REFRESH_REFUSED: Explanation("Please sign in", "The identity provider has ended your session.", _AGAIN),
    Reason.CSRF: _strange("The request came from another website."),
    Reason.ACCOUNT_EXISTS: _account(
        "The application already has an account of that name, and it is not certain that it is yours."
    ),
    Reason.ACCOUNT_AMBIGUOUS: _account("The application has more than one account that could be yours."),
    Reason.ACCOUNT_PROTECTED: _account("That account may not be used through this sign-in."),
    Reason.ACCOUNT_BOUND: _account("The account of that name belongs to somebody else."),
    Reason.ACCOUNT_ATTRIBUTE: _account("The identity provider did not give something that the application needs."),
    Reason.ACCOUNT_REFUSED: _account("The application did not accept your account."),
    Reason.ACCOUNT_GONE: _account("Your account in the application is gone."),
    Reason.PERSON_DISABLED: Explanation("Access ended", "Your access to this application was switched off.", _ASK),
    Reason.STORE_DOWN: _down("Sessions cannot be looked up right now."),
    Reason.DIRECTORY_DOWN: _down("Accounts cannot be looked up right now."),
    Reason.PROVIDER_DOWN: _down("The identity provider does not answer."),
    Reason.UPSTREAM_DOWN: _down("The application does not answer."),
    Reason.UPSTREAM_SLOW: _down("The application takes too long to answer."),
    Reason.UPSTREAM_ANSWER: _down("The application's answer could not be understood."),
    Reason.PROVISIONING_DOWN: _down("Your account could not be prepared."),
    Reason.STOPPING: _down("This service is being restarted."),
    Reason.INTERNAL: _down("Something went wrong inside."),
}
