"""Turn sections of the configuration into the compiled plans that requests are handled by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sidecar.config.access import AccessRule, Allow
from sidecar.config.loader import claims_read
from sidecar.config.login import IdentityTemplates
from sidecar.config.models import Config
from sidecar.core.claims import IdentityPlan
from sidecar.core.headers import HeaderPlan, collapsed
from sidecar.core.paths import read_target
from sidecar.core.policy import Rule, compile_pattern
from sidecar.core.rulebook import RuleBook, match
from sidecar.core.standing import HeaderTemplate
from sidecar.gate import GatePlan
from sidecar.logins.login import Ask
from sidecar.portal.site import Site


def rule_of(section: AccessRule, number: int, *, ignore_case: bool = False) -> Rule:
    """Compile one access rule; *number* counts from 1 and names a rule that has no name."""
    allow = section.allow if isinstance(section.allow, Allow) else Allow()
    max_age = section.require.max_age
    return Rule(
        name=section.name or f"{number}: {section.path}",
        pattern=compile_pattern(section.path, ignore_case=ignore_case),
        methods=frozenset(section.methods),
        hosts=frozenset(host.lower() for host in section.host),
        anyone=section.allow == "anyone",
        nobody=section.allow == "nobody",
        roles=frozenset(allow.role),
        groups=frozenset(allow.group),
        logins=frozenset(allow.login),
        bearer=frozenset(allow.bearer),
        max_age=None if max_age is None else max_age.total_seconds(),
        acr=frozenset(section.require.acr),
        text=section.path,
    )


def rules_of(sections: Sequence[AccessRule], *, ignore_case: bool = False) -> RuleBook:
    """Compile all access rules, in their order."""
    return RuleBook(rule_of(section, number, ignore_case=ignore_case) for number, section in enumerate(sections, 1))


def identity_plan(config: Config, login: str) -> IdentityPlan:
    """How identities of one login are read: its own lines first, then the general ones."""
    section = config.logins[login]
    own: IdentityTemplates = section.identity
    username = own.username or config.identity.username
    if username is None:
        message = f"identity.username is missing for the login {login}"
        raise ValueError(message)
    return IdentityPlan(
        username=username,
        email=own.email or config.identity.email,
        name=own.name or config.identity.name,
        groups=own.groups or config.identity.groups,
        claims=claims_read(config, login),
        trust_email=section.trust_email,
    )


def gate_plan(config: Config, site: Site, upstream_authority: str) -> GatePlan:
    """Everything the gate decides and injects by."""
    names = [*config.headers, *([config.assertion.header] if config.assertion else [])]
    return GatePlan(
        rules=rules_of(config.access, ignore_case=config.app.ignore_case),
        roles=config.roles,
        headers=tuple(
            HeaderTemplate(name, line.value, line.encoding, line.max) for name, line in config.headers.items()
        ),
        incoming=HeaderPlan(
            managed=frozenset(map(collapsed, names)),
            own_cookies=site.own_cookies,
            keeps_bearer=not any(login.bearer for login in config.logins.values()),
        ),
        websocket_origins=frozenset([site.origin, *(origin.lower() for origin in config.app.websocket_origins)]),
        public_host_header="" if config.app.host == "public" else upstream_authority,
    )


def asks_of(rules: RuleBook) -> Callable[[str, str], Ask]:
    """What a sign-in for a path at a host must achieve, by the rules for it: the strictest of GET and POST."""

    def asks(path: str, host: str) -> Ask:
        target = read_target(path)
        found = [match(rules, method, host, target.path) for method in ("GET", "POST")]
        ages = [rule.max_age for rule in found if rule is not None and rule.max_age is not None]
        classes = next((rule.acr for rule in found if rule is not None and rule.acr), frozenset())
        return Ask(max_age=min(ages, default=None), acr=tuple(sorted(classes)))

    return asks


def login_domains(config: Config) -> Mapping[str, tuple[str, ...]]:
    """E-mail domains that each login may speak for."""
    return {name: tuple(domain.lower() for domain in login.domains) for name, login in config.logins.items()}
