"""Turn sections of the configuration into the compiled plans that requests are handled by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from sidecar.asks import ask_of
from sidecar.config.access import AccessRule, Allow, Deny, Require
from sidecar.config.callers import CERTIFICATES, Certificates
from sidecar.config.engines import EngineSection
from sidecar.config.loader import claims_read
from sidecar.config.login import HeaderLine, IdentityTemplates
from sidecar.config.models import Config
from sidecar.config.secret import Secret
from sidecar.core.claims import IdentityPlan
from sidecar.core.headers import Line
from sidecar.core.paths import read_target
from sidecar.core.patterns import compile_pattern
from sidecar.core.policy import Rule, Who, came_in_line, group_line, origin_line, role_line, when_line
from sidecar.core.roles import Role
from sidecar.core.rulebook import Rulebook
from sidecar.core.standing import HeaderTemplate
from sidecar.core.template import Compiler
from sidecar.logins.login import Ask
from sidecar.model import NOTHING_NEEDED, Requirement

_NO_ENGINES: Mapping[str, EngineSection] = MappingProxyType({})


def rule_of(
    section: AccessRule, number: int, *, ignore_case: bool = False, engines: Mapping[str, EngineSection] = _NO_ENGINES
) -> Rule:
    """Compile one access rule; *number* counts from 1 and names a rule that has no name."""
    return Rule(
        name=section.name or f"{number}: {section.path}",
        pattern=compile_pattern(section.path, ignore_case=ignore_case),
        text=section.path,
        methods=frozenset(section.methods),
        hosts=frozenset(host.lower() for host in section.host),
        nobody=section.allow == "nobody",
        allow=tuple(_who_passes(one) for one in section.alternatives),
        deny=tuple(_who_is_refused(one) for one in section.deny),
        require=_required(section.require),
        ask=ask_of(section, engines, ignore_case=ignore_case),
    )


def _required(require: Require) -> Requirement:
    if require == Require():
        return NOTHING_NEEDED
    age = None if require.max_age is None else require.max_age.total_seconds()
    return Requirement(age, require.acr, require.amr)


def _who_passes(allow: Allow) -> Who:
    if allow.who == "anyone":
        return Who(networks=allow.network, anyone=True)
    about_person = bool(allow.role or allow.group or allow.when)
    # A set of lines whose only one about people is bearer is for tokens alone.
    alone = bool(allow.bearer) and not about_person and not allow.login
    lines = [came_in_line(frozenset(allow.login), frozenset(allow.bearer), tokens_alone=alone)]
    lines += [role_line(frozenset(allow.role))] if allow.role else []
    lines += [group_line(frozenset(allow.group))] if allow.group else []
    lines += [when_line(allow.when)] if allow.when is not None else []
    return Who(tuple(lines), allow.network)


def _who_is_refused(deny: Deny) -> Who:
    lines = [role_line(frozenset(deny.role))] if deny.role else []
    lines += [group_line(frozenset(deny.group), denies=True)] if deny.group else []
    lines += [origin_line("login", frozenset(deny.login))] if deny.login else []
    lines += [origin_line("bearer", frozenset(deny.bearer))] if deny.bearer else []
    lines += [when_line(deny.when, denies=True)] if deny.when is not None else []
    return Who(tuple(lines), deny.network)


def rules_of(
    sections: Sequence[AccessRule], *, ignore_case: bool = False, engines: Mapping[str, EngineSection] = _NO_ENGINES
) -> tuple[Rule, ...]:
    """Compile all access rules, in their order."""
    return tuple(
        rule_of(section, number, ignore_case=ignore_case, engines=engines) for number, section in enumerate(sections, 1)
    )


def rulebook_of(config: Config) -> Rulebook:
    """The access rules of *config*, compiled and indexed."""
    ignore_case = config.app.ignore_case
    rules = rules_of(config.access, ignore_case=ignore_case, engines=config.engines)
    return Rulebook(rules, ignore_case=ignore_case)


def roles_plan(config: Config) -> tuple[Role, ...]:
    """The roles of *config*, in their order."""
    return tuple(
        Role(name, frozenset(line.group), frozenset(line.login), line.when, line.includes)
        for name, line in config.roles.items()
    )


def header_plan(config: Config) -> tuple[HeaderTemplate, ...]:
    """The headers that tell the application about a person."""
    return tuple(
        _header(name, line) for name, line in config.headers.items() if line.value is not None or line.basic is not None
    )


def _header(name: str, line: HeaderLine) -> HeaderTemplate:
    if line.basic is None:
        assert line.value is not None  # noqa: S101 - the section has one of the three
        return HeaderTemplate(name, line.value, line.encoding, line.max)
    password = line.basic.password
    shown = password.reveal() if isinstance(password, Secret) else password
    return HeaderTemplate(name, line.basic.username, limit=line.max, password=shown)


def secret_lines(config: Config) -> tuple[Line, ...]:
    """Headers that prove to the application that a request came through here: sent with every one."""
    return tuple((name, line.secret.reveal()) for name, line in config.headers.items() if line.secret is not None)


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
        # SAML has no word for "verified".
        email_domains=frozenset(map(str.lower, section.domains)) if section.type == "saml" else frozenset(),
    )


def header_names(config: Config) -> tuple[str, ...]:
    """Every header that the application is told something by, or that a front proxy tells us something by."""
    told = (*config.headers, *([config.assertion.header] if config.assertion else []))
    return (*told, config.certificates.header) if config.certificates else told


def certificate_plan(config: Config, section: Certificates) -> IdentityPlan:
    """How identities of callers with certificates are read."""
    own = section.identity
    return IdentityPlan(
        username=own.username or Compiler().compile("{{ claims.sub }}"),
        email=own.email,
        name=own.name,
        groups=own.groups,
        claims=claims_read(config, CERTIFICATES),
        # Whoever issues certificates says what stands in them.
        trust_email=True,
    )


def asks_of(rules: Rulebook) -> Callable[[str, str], Ask]:
    """What a sign-in for a path at a host must achieve, by the rules for it: the strictest of GET and POST."""

    def asks(path: str, host: str) -> Ask:
        target = read_target(path)
        found = [rule.require for method in ("GET", "POST") for rule in rules.fitting(method, host, target.path)[-1:]]
        ages = [needed.max_age for needed in found if needed.max_age is not None]
        classes = [needed.acr for needed in found if needed.acr]
        common = tuple(one for one in classes[0] if all(one in other for other in classes)) if classes else ()
        methods = dict.fromkeys(method for needed in found for method in needed.amr)
        return Ask(max_age=min(ages, default=None), acr=common or (classes[0] if classes else ()), amr=tuple(methods))

    return asks


def login_domains(config: Config) -> Mapping[str, tuple[str, ...]]:
    """E-mail domains that each login, and each source of people, may speak for."""
    speakers = {name: login.domains for name, login in config.logins.items()}
    if config.scim is not None:
        speakers |= {f"scim:{name}": client.domains for name, client in config.scim.clients.items()}
    speakers |= {f"sync:{name}": section.domains for name, section in config.sync.items()}
    return {name: tuple(domain.lower() for domain in domains) for name, domains in speakers.items()}
