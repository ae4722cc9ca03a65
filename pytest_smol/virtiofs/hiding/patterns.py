"""Tables of what credentials look like in a file's content. Data only.

A regular expression is only run on data that holds all of its row's anchors: literals, which are searched
many times faster. An anchor is searched in one of three views of the data (:class:`View`). The first
anchor of a row is searched in every file, so it is one that rows share, or a long one.

Sources: what the services publish about the form of their tokens, and the rules of gitleaks 8 and
detect-secrets 1.5, which were read for what they cover. The data may be a hostile project's own, so every
repetition is bounded.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

__all__ = ["FILES", "RARE", "TOKENS", "Anchor", "Pattern", "View"]


class View(Enum):
    """What an anchor is searched for in: the data, or the data with each byte replaced by its class."""

    RAW = "the data"
    WORDS = "letters and digits as 'a'; '_', '-' and '.' as they are; all else as a space"
    CAPITALS = "capital letters and digits as 'a', all else as a space"


Anchor = tuple[View, bytes]


class Pattern(NamedTuple):
    """One row. If the expression has a group ``secret``, that is what is redacted, else all that it matches.

    A match of a ``word`` does not count right after or before a letter or digit.
    """

    what: str
    anchors: tuple[Anchor, ...]
    regex: re.Pattern[bytes]
    word: bool


def _row(what: str, first: Anchor | bytes, *more: bytes, regex: bytes, word: bool = False) -> Pattern:
    anchors = ((View.RAW, first) if isinstance(first, bytes) else first, *((View.RAW, text) for text in more))
    return Pattern(what, anchors, re.compile(regex), word)


def _token(what: str, first: Anchor | bytes, *more: bytes, regex: bytes) -> Pattern:
    return _row(what, first, *more, regex=regex, word=True)


# Words of many letters and digits, by what is before them: hardly any text has them but for tokens.
_AFTER_UNDERSCORE = (View.WORDS, b"_" + b"a" * 20)
_AFTER_DASH = (View.WORDS, b"-" + b"a" * 16)
_LONG = (View.WORDS, b"a" * 32)
_CAPITALS = (View.CAPITALS, b"a" * 20)

_BEGIN = rb"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:[\s\"'\\,+]|\\[nr]){1,60}"

#: Private keys and tokens of services, known by a prefix. They hide a file, and are redacted in source code.
TOKENS = (
    # Source: RFC 7468, RFC 9580: a key wherever it is in a line, its lines be they real ones or escaped in
    # a string.
    _row(
        "private key",
        b"-----BEGIN ",
        regex=_BEGIN + rb"(?P<secret>(?:[A-Za-z0-9+/=]{16}|[A-Z][A-Za-z-]{3,20}: )"
        rb"(?:[\w+/=:,.\\\s\"']|-(?!-)){0,20000})-----END",
    ),
    _row(
        "private key in lines of its own",
        b"-----BEGIN ",
        regex=rb"(?m)^[ \t]{0,20}-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----\s{1,20}"
        rb"(?P<secret>[A-Za-z0-9+/=](?:[\w+/=:,.\s]|-(?!-)){3,20000})-----END",
    ),
    # Base64 of "-----BEGIN ... PRIVATE KEY-", as settings and clusters keep it.
    _row(
        "private key in base64",
        b"LS0tLS1CRUdJTi",
        regex=rb"LS0tLS1CRUdJTi(?:BQUklWQVRFIEtFWS|BSU0EgUFJJVkFURSBLRVkt|BFQyBQUklWQVRFIEtFWS"
        rb"|BPUEVOU1NIIFBSSVZBVEUgS0VZ|BEU0EgUFJJVkFURSBLRVkt|BFTkNSWVBURUQgUFJJVkFURSBLRVkt)[\w+/=]{0,20000}",
    ),
    _token(
        "age", _CAPITALS, b"AGE-SECRET-", regex=rb"AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}"
    ),
    # Clouds
    _token("AWS", _CAPITALS, regex=rb"A(?:3T[A-Z0-9]|BIA|CCA|KIA|SIA)[A-Z0-9]{16}"),
    *(
        _row(
            "AWS secret",
            name,
            regex=name + rb"[\"'\]\s:=>,(]{1,20}(?P<secret>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
        )
        for name in (b"secret_access_key", b"SECRET_ACCESS_KEY", b"ecretAccessKey")
    ),
    _token(
        "AWS Bedrock", b"ABSKQmVkcm9ja0FQSUtleS", regex=rb"ABSKQmVkcm9ja0FQSUtleS[A-Za-z0-9+/]{80,260}={0,2}"
    ),
    _row("Azure storage", b"AccountKey=", regex=rb"AccountKey=(?P<secret>[A-Za-z0-9+/=]{88})"),
    _token("Google API", b"AIzaSy", regex=rb"AIzaSy[\w-]{33}"),
    _token("Google OAuth client", b"GOCSPX-", regex=rb"GOCSPX-[\w-]{28}"),
    _token("DigitalOcean", _AFTER_UNDERSCORE, b"_v1_", regex=rb"do[opr]_v1_[a-f0-9]{64}"),
    _token("Databricks", _LONG, b"dapi", regex=rb"dapi[a-f0-9]{32}"),
    _token("Pulumi", _AFTER_DASH, b"pul-", regex=rb"pul-[a-f0-9]{40}"),
    # Code and packages
    _token("GitHub", _AFTER_UNDERSCORE, b"gh", regex=rb"gh[pousr]_[A-Za-z0-9]{36,255}"),
    _token("GitHub fine-grained", _AFTER_UNDERSCORE, b"github_pat_", regex=rb"github_pat_\w{82}"),
    _token("GitLab", b"glpat-", regex=rb"glpat-[\w.-]{20,320}"),
    _token("npm", _AFTER_UNDERSCORE, b"npm_", regex=rb"npm_[A-Za-z0-9]{36}"),
    _token("PyPI", b"pypi-AgE", regex=rb"pypi-Ag(?:EIcHlwaS5vcmc|ENdGVzdC5weXBpLm9yZw)[\w-]{50,1000}"),
    _token("RubyGems", _AFTER_UNDERSCORE, b"rubygems_", regex=rb"rubygems_[a-f0-9]{48}"),
    _token("Clojars", _AFTER_UNDERSCORE, b"CLOJARS_", regex=rb"CLOJARS_[a-z0-9]{60}"),
    _token("Artifactory", _LONG, b"AKC", regex=rb"AKC[A-Za-z0-9]{29,100}"),
    # Messages and payments
    _token(
        "Slack",
        _AFTER_DASH,
        b"xox",
        regex=rb"xox[abposre](?:\.xox[bp])?-(?:\d{1,14}-){1,4}[A-Za-z0-9]{16,180}",
    ),
    _token("Slack app", _AFTER_DASH, b"xapp-", regex=rb"xapp-\d-[A-Z0-9]{5,20}-\d{5,20}-[a-z0-9]{20,80}"),
    _row(
        "Slack webhook",
        b"hooks.slack.com/",
        regex=rb"hooks\.slack\.com/(?:services|workflows|triggers)/(?P<secret>\w{8,20}/\w{8,20}/\w{18,30})",
    ),
    _token("Twilio", _LONG, regex=rb"(?:SK|AC)[a-f0-9]{32}"),
    _token("SendGrid", b"SG.", regex=rb"SG\.[\w-]{22}\.[\w-]{43}"),
    _token("Sendinblue", _AFTER_DASH, b"xkeysib-", regex=rb"xkeysib-[a-f0-9]{64}-[a-z0-9]{16}"),
    *(
        _token("Stripe", _AFTER_UNDERSCORE, kind, regex=rb"[sr]" + kind + rb"[A-Za-z0-9]{20,247}")
        for kind in (b"k_live_", b"k_prod_", b"k_test_")
    ),
    _token("Shopify", _AFTER_UNDERSCORE, b"shp", regex=rb"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}"),
    # Models and monitoring
    _token("Anthropic", b"sk-ant-", regex=rb"sk-ant-(?:api|admin|oat)\d\d-[\w-]{80,120}"),
    _token("OpenAI", b"T3BlbkFJ", regex=rb"sk-[\w-]{20,100}T3BlbkFJ[\w-]{20,100}"),
    _token("Hugging Face", _AFTER_UNDERSCORE, b"hf_", regex=rb"hf_[A-Za-z]{34}"),
    _token("Hugging Face", _AFTER_UNDERSCORE, b"api_org_", regex=rb"api_org_[A-Za-z]{34}"),
    _token("Groq", _AFTER_UNDERSCORE, b"gsk_", regex=rb"gsk_[A-Za-z0-9]{52}"),
    _token("Replicate", _AFTER_UNDERSCORE, b"r8_", regex=rb"r8_[A-Za-z0-9]{37}"),
    _token("Perplexity", _AFTER_DASH, b"pplx-", regex=rb"pplx-[A-Za-z0-9]{48}"),
    _token("Grafana", _AFTER_UNDERSCORE, b"gl", regex=rb"gl(?:c|sa)_[A-Za-z0-9+/]{32,400}"),
    _token("Sentry", _AFTER_UNDERSCORE, b"sntry", regex=rb"sntry[us]_[A-Za-z0-9+/=_]{60,600}"),
    _token("Postman", _AFTER_DASH, b"PMAK-", regex=rb"PMAK-[a-f0-9]{24}-[a-f0-9]{34}"),
    _token("Linear", _AFTER_UNDERSCORE, b"lin_api_", regex=rb"lin_api_[A-Za-z0-9]{40}"),
)

#: Tokens that are only searched in files that are no source code: their anchors are too short, or source
#: code and documentation have many of them that are samples.
RARE = (
    _token("Google OAuth", b"ya29.", regex=rb"ya29\.[\w-]{20,1000}"),
    _token("Google API", b"AIza", regex=rb"AIza[\w-]{35}"),
    _token("Heroku", b"HRKU-", regex=rb"HRKU-[\w-]{36,64}"),
    _token("HashiCorp Terraform", b".atlasv1.", regex=rb"[A-Za-z0-9]{14}\.atlasv1\.[\w=-]{60,70}"),
    _token("HashiCorp Vault", b"hvs.", regex=rb"hvs\.[\w-]{90,120}"),
    _token("HashiCorp Vault batch", b"hvb.", regex=rb"hvb\.[\w-]{138,300}"),
    *(
        _token("GitLab", prefix, regex=prefix + rb"[\w.-]{20,320}")
        for prefix in (b"gldt-", b"glft-", b"glrt-", b"glptt-", b"glsoat-", b"gloas-", b"glagent-", b"glcbt-")
    ),
    *(
        _token("GitLab", prefix, regex=prefix + rb"[\w-]{20,80}")
        for prefix in (b"glimt-", b"glffct-", b"GR1348941")
    ),
    _token("Doppler", b"dp.", regex=rb"dp\.(?:pt|st|ct|sa)\.[A-Za-z0-9.]{40,80}"),
    _token("Discord", b".", regex=rb"[MNO][\w-]{23,25}\.[\w-]{6}\.[\w-]{27,38}(?![\w.-])"),
    _token("Telegram", b":A", regex=rb"\d{8,10}:A[\w-]{34}(?![\w-])"),
    _token("Mailchimp", _LONG, b"-us", regex=rb"[0-9a-f]{32}-us[0-9]{1,2}"),
    _token("Square", b"sq0", regex=rb"sq0(?:csp|atp)-[\w\\-]{22,60}"),
    # Source: RFC 7519 and RFC 7515: header, claims and signature of a signed token.
    _token("JSON Web Token", b".eyJ", regex=rb"eyJ[\w-]{10,2000}\.eyJ[\w-]{10,8000}\.[\w-]{16,2000}"),
)

#: What tells by its content that all of a file is a credential, whatever its name is. Not searched in
#: source code.
FILES = (
    # Source: RFC 7468, RFC 4716 and PuTTY's key files.
    _row(
        "private key",
        b"BEGIN ",
        regex=rb"(?m)^[ \t\xef\xbb\xbf]{0,20}-{4,5} ?BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY",
    ),
    _row("private key in a line", b"-----BEGIN ", regex=_BEGIN + rb"[A-Za-z0-9+/=:,\-]{16}"),
    _row("PuTTY key", b"PuTTY-User-Key-File-", regex=rb"(?m)^PuTTY-User-Key-File-\d"),
    # Source: Google's application default credentials.
    _row(
        "service account",
        b"service_account",
        b'"private_key"',
        regex=rb"\"type\"\s{0,40}:\s{0,40}\"service_account\"",
    ),
    _row(
        "authorized user",
        b"authorized_user",
        b'"refresh_token"',
        regex=rb"\"type\"\s{0,40}:\s{0,40}\"(?:external_account_)?authorized_user\"",
    ),
    _row(
        "OAuth client",
        b'"client_secret"',
        b'"client_id"',
        regex=rb"\"client_secret\"\s{0,40}:\s{0,40}\"[^\"\s]{8}",
    ),
    # Source: RFC 7517 and RFC 7518: "d" is the private part of a key.
    _row("JSON Web Key", b'"kty"', b'"d"', regex=rb"\"d\"\s{0,40}:\s{0,40}\"[\w-]{20}"),
    # Source: Kubernetes' kubeconfig (v1): a client's key, token or password.
    _row("kubeconfig", b"client-key-data", regex=rb"client-key-data\"?'?:\s{0,40}[\"']?[A-Za-z0-9+/=]{8}"),
    _row(
        "kubeconfig",
        b"clusters",
        b"contexts",
        b"users",
        regex=rb"(?m)^[ \t\-{,\"']{0,40}(?:token|password)\"?'?:[ \t]{1,40}[\"']?[^\s\"']{4}",
    ),
    _row("Docker login", b'"auths"', regex=rb"\"(?:auth|identitytoken)\"\s{0,40}:\s{0,40}\"[\w+/=.-]{8}"),
    _row("Terraform state", b'"terraform_version"', b'"lineage"', regex=rb"\"lineage\"\s{0,40}:"),
    # Source: the GNU inetutils manual: .netrc.
    _row(
        "netrc",
        b"machine",
        b"login",
        b"password",
        regex=rb"(?m)^[ \t]{0,20}machine[ \t]{1,20}\S{1,255}\s{1,20}login\s{1,20}\S{1,255}\s{1,20}"
        rb"password\s{1,20}\S",
    ),
    # Source: git-credential-store(1).
    _row(
        "git credentials",
        b"https://",
        regex=rb"\A(?:https?://[^\s/:@]{1,255}:[^\s/:@]{1,1000}@[^\s:@]{1,300}\r?\n){1,1000}\Z",
    ),
    _row(
        "npm login",
        b"/:_",
        regex=rb"(?m)^[ \t]{0,20}//[^\s=]{1,200}/:_(?:authToken|auth|password)[ \t]{0,9}=[ \t]{0,9}[^\s$]{8}",
    ),
)
