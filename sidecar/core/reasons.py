"""What each reason means to the person who meets it, and what they can do; docs/reasons.md says more to operators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from sidecar.reason import Reason


class Way(Enum):
    """The way on that a page offers; the value is what the link says, "" offers none."""

    NONE = ""
    AGAIN = "Try again"
    SIGN_IN = "Sign in again"
    CONTINUE = "Continue"
    START = "Go to the start page"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Words for a page: a title, what happened, what to do about it, and the way on.

    ``another`` says that the same page may open for somebody else, so that signing out is a way on too.
    """

    title: str
    happened: str
    advice: str
    way: Way = Way.NONE
    another: bool = False


_ASK = "If you need access, ask the people who run this application, and give them the reference below."
_TELL = "The people who run this application can put it right. Give them the reference below."
_TELL_IF = "Try again. If it happens once more, tell the people who run this application, with the reference below."
_LATER = "It is not your fault. Please try again in a moment."
_SENT = "It is not your fault. Please try again in a moment; if you sent something, look first whether it has arrived."
_START = "Go back to the start page. If a link brought you here, its owner may want to know."


def _strange(happened: str, advice: str = _START) -> Explanation:
    return Explanation("This request cannot be handled", happened, advice, Way.START)


def _closed(happened: str, *, another: bool = False) -> Explanation:
    return Explanation("You do not have access", happened, _ASK, another=another)


def _login(happened: str, advice: str = _TELL_IF, way: Way = Way.AGAIN) -> Explanation:
    return Explanation("Signing in did not work", happened, advice, way)


def _account(happened: str, advice: str = _TELL) -> Explanation:
    return Explanation("Your account is not ready", happened, advice, another=True)


def _down(happened: str, advice: str = _LATER) -> Explanation:
    return Explanation("Temporarily unavailable", happened, advice, Way.AGAIN)


def _ended(happened: str) -> Explanation:
    return Explanation("Please sign in again", happened, "Sign in again to go on.", Way.SIGN_IN)


EXPLANATIONS: Mapping[Reason, Explanation] = {
    # Decisions
    Reason.PUBLIC: Explanation("Open to everyone", "This page is open to everyone.", "There is nothing to do."),
    Reason.RULE: Explanation("You have access", "A rule lets you in.", "There is nothing to do."),
    Reason.NOT_SIGNED_IN: Explanation(
        "Please sign in", "This page is only for people who are signed in.", "Sign in to go on.", Way.SIGN_IN
    ),
    Reason.NO_RULE: _closed("Nobody has been given access to this page."),
    Reason.ROLE_MISSING: _closed("You are signed in, but this page is not open to you.", another=True),
    Reason.RULE_DENIES: _closed("This page is closed to everyone."),
    Reason.TOKEN_SCOPE: _closed("The API token that was sent was issued for other pages."),
    Reason.EXCLUDED: _closed("This page is open to others, but not to you.", another=True),
    Reason.NETWORK: _closed("This page cannot be opened from the network that you are in."),
    Reason.REAUTHENTICATION: Explanation(
        "Please confirm that it is you",
        "This page asks for a more recent or a stronger sign-in than yours.",
        "Sign in again to go on.",
        Way.SIGN_IN,
    ),
    Reason.ENGINE_DENIES: _closed("You are signed in, but this page is not open to you.", another=True),
    Reason.ENGINE_NOT_ASKED: _closed("It cannot be found out whether this page is open to you.", another=True),
    # The request itself
    Reason.PATH_AMBIGUOUS: _strange("The address can be read in more than one way, so it is not safe to open."),
    Reason.TARGET_INVALID: _strange("The address is too long, or has characters that do not belong in one."),
    Reason.METHOD_REFUSED: _strange("This page cannot be asked for in this way."),
    Reason.HOST_UNKNOWN: Explanation(
        "This address is not in use here",
        "The application is not known under the name in your address bar.",
        "Check the spelling of the address, or use the one that you were given.",
    ),
    Reason.ORIGIN_FOREIGN: _strange(
        "The request came from another website, which may not act for you here.",
        "Open the application itself and do it there.",
    ),
    Reason.FRONT_UNKNOWN: _strange("This address is for the proxy in front of the application."),
    Reason.HEADERS_INVALID: _strange(
        "Your browser, or something between it and this site, sent a request that is not valid.",
        "Try again from the start page. If it happens once more, try another browser or network.",
    ),
    Reason.HEADER_VALUE: _account("Something in your profile cannot be passed on to the application."),
    Reason.BODY_TOO_LARGE: Explanation(
        "That is too large",
        "What you sent is larger than this site accepts.",
        "Go back and send something smaller, or send it in parts.",
    ),
    Reason.RATE_LIMITED: Explanation(
        "Too many attempts",
        "There were too many requests in a short time.",
        "Wait a minute, then try again.",
        Way.AGAIN,
    ),
    Reason.CONFLICT: _strange("There is something of that name already."),
    # Programs that manage people read the code only; nobody meets these on a page.
    Reason.CHANGED_MEANWHILE: _strange("It was changed by somebody else meanwhile."),
    Reason.SCIM_INVALID: _strange("A message about people could not be understood."),
    Reason.SCIM_CLIENT: _strange("This address is for the program that manages people."),
    Reason.SIGNAL_INVALID: _strange("A security event could not be understood."),
    Reason.SIGNAL_SENDER: _strange("This address is for the program that reports security events."),
    Reason.SIGNAL_STATE: _strange("A verification came that nobody here asked for."),
    Reason.NOT_FOUND: Explanation("Page not found", "There is no page at this address.", _START, Way.START),
    # Credentials
    Reason.SESSION_EXPIRED: _ended("Your session has ended."),
    # Programs read the code only: people meet the next ones when a provider's answer to a sign-in carries a bad token.
    Reason.TOKEN_INVALID: _login("The identity provider's answer cannot be read, or its signature is wrong."),
    Reason.TOKEN_EXPIRED: _login(
        "The identity provider's answer has ended already: it came too late, or a clock is wrong."
    ),
    Reason.TOKEN_ISSUER: _login("The answer comes from an identity provider that is not trusted here.", _TELL),
    Reason.TOKEN_AUDIENCE: _login("The identity provider's answer was made for another application.", _TELL),
    Reason.TOKEN_ALGORITHM: _login(
        "The identity provider signed its answer in a way that is not accepted here.", _TELL
    ),
    Reason.TOKEN_KEY: _login("The key with which the identity provider signed its answer is not known."),
    Reason.TOKEN_NONCE: _login("The identity provider's answer belongs to another sign-in."),
    Reason.TOKEN_TIME: _login(
        "The times in the identity provider's answer do not fit: a clock is wrong, or the answer is too old."
    ),
    Reason.TOKEN_CLAIM: _login("The identity provider's answer lacks something, or is of the wrong kind.", _TELL),
    Reason.TOKEN_REVOKED: _login("The API token that was sent has been revoked.", _TELL),
    Reason.TOKEN_BINDING: _login("The token that was sent belongs to another client certificate.", _TELL),
    Reason.CERTIFICATE: _login("The client certificate that was sent is not accepted here.", _TELL),
    # Signing in
    Reason.LOGIN_STATE_UNKNOWN: _login(
        "This sign-in took too long, or has already been used.",
        "Go on to the application. It asks you to sign in if that is still needed.",
        Way.CONTINUE,
    ),
    Reason.LOGIN_COOKIE_MISSING: _login(
        "Your browser did not send the cookie with which this sign-in began.",
        "Allow cookies for this site, stay in one browser from beginning to end, and try again.",
    ),
    Reason.LOGIN_ADDRESS: _login(
        "This sign-in began at another address than the one at which it has to end, so its cookie was left behind.",
        "Open the application at the address that you were given, with https:// in front if it has one. If you did, "
        "tell the people who run this application: public_url differs from the address bar in scheme or host.",
    ),
    Reason.LOGIN_LOOP: _login(
        "You signed in several times in a row, and each time your session was not known here any more.",
        "The people who run this application can put it right: sessions get lost between its servers. Give them the "
        "reference below.",
    ),
    Reason.LOGIN_LOOP_COOKIE: _login(
        "You signed in several times in a row, but your browser did not send back the cookie that it was given.",
        "Allow cookies for this site and try again in a minute. If that does not help, tell the people who run this "
        "application: something on the way may take cookies out.",
    ),
    Reason.LOGIN_LOOP_CLOCK: _login(
        "You signed in several times in a row, and each time your session seemed to be over at once: the clocks of the "
        "servers here do not agree.",
        _TELL,
    ),
    Reason.LOGIN_LOOP_WEAK: _login(
        "You signed in several times in a row, but never as recently, or as strongly, as this page asks.",
        "Your identity provider may not offer that to you, or its clock may be wrong. The people who run this "
        "application can find out. Give them the reference below.",
    ),
    Reason.LOGIN_PROVIDER_UNKNOWN: _login(
        "There is no such way to sign in here.", "Go to the start page and sign in from there.", Way.START
    ),
    Reason.LOGIN_PROVIDER_ERROR: _login(
        "The identity provider did not let you in, or you cancelled.",
        "Try again. If it refuses you once more, ask the people who look after your company account.",
    ),
    Reason.LOGIN_ANSWER_INVALID: _login("The identity provider's answer is incomplete, or was changed on its way."),
    Reason.LOGIN_ISSUER_MIXED: _login("The answer came from another identity provider than the one that was asked."),
    Reason.LOGIN_CODE_REFUSED: _login("The identity provider does not accept this sign-in any more."),
    Reason.IDENTITY_INCOMPLETE: _account("The identity provider did not say enough about you."),
    Reason.REFRESH_REFUSED: _ended("The identity provider has ended your session."),
    Reason.STEP_UP_UNMET: Explanation(
        "A stronger sign-in is needed",
        "You are signed in, but the identity provider did not confirm your identity as this page asks for.",
        "Try again and use your second factor, if you are asked. If it happens once more, tell the people who run this"
        " application, with the reference below.",
        Way.AGAIN,
    ),
    Reason.CSRF: _strange(
        "The request came from another website, which may not act for you here.",
        "Open the application itself and do it there.",
    ),
    Reason.BREAK_GLASS_REFUSED: _login("Name, password or code is wrong."),
    Reason.BREAK_GLASS_CLOSED: _login(
        "The emergency sign-in is for when an identity provider that works otherwise cannot be reached.",
        "Sign in the usual way.",
        Way.START,
    ),
    Reason.INVITATION_INVALID: Explanation(
        "This link does not work",
        "It is no invitation of ours, or it was cut short on its way.",
        "Open the link as it was sent to you, or ask for a new one.",
        Way.START,
    ),
    Reason.INVITATION_USED: Explanation(
        "This link was used",
        "An invitation can be used once, and somebody has used this one.",
        "If that was you, go to the start page and sign in. If not, tell the people who run this application.",
        Way.START,
    ),
    Reason.INVITATION_EXPIRED: Explanation(
        "This link is too old",
        "The invitation has ended, or a newer one was sent.",
        "Ask the people who sent it for a new one.",
        Way.START,
    ),
    Reason.INVITATION_OTHER: Explanation(
        "This link is for somebody else",
        "You signed in with another e-mail address than the one that was invited, or it was not verified.",
        "Sign in with the address to which the invitation was sent.",
        another=True,
    ),
    # Accounts
    Reason.ACCOUNT_EXISTS: _account(
        "The application already has an account under your name, and it is not certain that it is yours."
    ),
    Reason.ACCOUNT_AMBIGUOUS: _account("The application has more than one account that could be yours."),
    Reason.ACCOUNT_PROTECTED: _account("The account under your name may not be used through this sign-in."),
    Reason.ACCOUNT_BOUND: _account("The account under your name belongs to somebody else."),
    Reason.ACCOUNT_ATTRIBUTE: _account(
        "The application needs something about you that the identity provider did not give."
    ),
    Reason.ACCOUNT_REFUSED: _account("The application did not accept your account, or has switched it off."),
    Reason.ACCOUNT_GONE: _account("You have no account in the application, or it is not there any more."),
    Reason.PERSON_DISABLED: Explanation(
        "Your access has ended", "Your access to this application was switched off.", _ASK, another=True
    ),
    # Something that we need is down
    Reason.STORE_DOWN: _down("Sessions cannot be looked up right now."),
    Reason.AUDIT_DOWN: _down("What is done here cannot be written down right now."),
    Reason.DIRECTORY_DOWN: _down("Accounts cannot be looked up right now."),
    Reason.PROVIDER_DOWN: _down("The identity provider does not answer right now."),
    Reason.UPSTREAM_DOWN: _down("The application does not answer right now.", _SENT),
    Reason.UPSTREAM_SLOW: _down("The application takes too long to answer.", _SENT),
    Reason.UPSTREAM_ANSWER: _down("The application's answer could not be understood.", _SENT),
    Reason.PROVISIONING_DOWN: _down("Your account in the application could not be prepared right now."),
    Reason.SOURCE_DOWN: _down("A source of people does not answer."),
    Reason.SYNC_BUSY: _down("A source of people is being read right now."),
    Reason.ENGINE_DOWN: _down("It cannot be found out right now whether this page is open to you."),
    Reason.BUSY: _down("Too many people are signing in at this moment."),
    Reason.STOPPING: _down("The service is being restarted."),
    Reason.INTERNAL: Explanation("Something went wrong", "There is a fault on our side.", _TELL_IF, Way.AGAIN),
}


def provider_down(title: str, *, is_silent: bool) -> Explanation:
    """Words for PROVIDER_DOWN that name the provider by its *title*; not *is_silent* when it answers, but wrongly."""
    if is_silent:
        happened = f"The identity provider for {title} does not answer right now."
        return replace(EXPLANATIONS[Reason.PROVIDER_DOWN], title=f"{title} cannot be reached", happened=happened)
    happened = f"The identity provider for {title} gave an answer that cannot be used: something is set up wrongly."
    return replace(EXPLANATIONS[Reason.PROVIDER_DOWN], title=f"{title} does not work", happened=happened, advice=_TELL)
