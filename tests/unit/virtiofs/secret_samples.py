"""Credentials that are none, made when they are asked for: no scanner of this repository finds them in it."""

from __future__ import annotations

import base64
import random
import string

__all__ = ["DATA_FILES", "DATA_TOKENS", "TOKENS", "private_key", "token"]

_HEX = "0123456789abcdef"
_CAPITALS = string.ascii_uppercase + "234567"
_WORD = string.ascii_letters + string.digits


def _some(alphabet: str, length: int) -> str:
    return "".join(random.Random(f"{alphabet}{length}").choices(alphabet, k=length))


#: What comes before a token, and its rest: an alphabet and a length for each further part, or text.
_Recipe = tuple[str, ...] | tuple[str | tuple[str, int], ...]

#: Tokens that are found wherever they are, in source code too.
TOKENS: dict[str, _Recipe] = {
    "AWS": ("AK", "IA", (_CAPITALS, 16)),
    "AWS, temporary": ("AS", "IA", (_CAPITALS, 16)),
    "AWS secret": ("aws_secret_", "access_key = '", (_WORD, 40), "'"),
    "AWS Bedrock": ("ABSKQmVkcm9ja0", "FQSUtleS", (_WORD, 110)),
    "Azure storage": ("Account", "Key=", (_WORD, 86), "=="),
    "Google API": ("AIza", "Sy", (_WORD, 33)),
    "Google OAuth client": ("GOC", "SPX-", (_WORD, 28)),
    "DigitalOcean": ("dop", "_v1_", (_HEX, 64)),
    "Databricks": ("da", "pi", (_HEX, 32)),
    "Pulumi": ("pu", "l-", (_HEX, 40)),
    "age": ("AGE-SECRET", "-KEY-1", ("QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", 58)),
    **{f"GitHub {kind}": ("gh", f"{kind}_", (_WORD, 36)) for kind in "pousr"},
    "GitHub fine-grained": ("github", "_pat_", (_WORD, 22), "_", (_WORD, 59)),
    "GitLab": ("gl", "pat-", (_WORD + "-_", 20)),
    "npm": ("np", "m_", (_WORD, 36)),
    "PyPI": ("pypi-", "AgEIcHlwaS5vcmc", (_WORD, 90)),
    "Test PyPI": ("pypi-", "AgENdGVzdC5weXBpLm9yZw", (_WORD, 90)),
    "RubyGems": ("ruby", "gems_", (_HEX, 48)),
    "Clojars": ("CLO", "JARS_", (_HEX, 60)),
    "Artifactory": ("AK", "Cp", (_WORD, 69)),
    "Slack bot": ("xo", "xb-", ("123456789", 12), "-", ("123456789", 12), "-", (_HEX, 24)),
    "Slack app": ("xa", "pp-1-", (_CAPITALS, 11), "-", ("123456789", 13), "-", (_HEX, 64)),
    "Slack webhook": ("https://hooks.", "slack.com/services/T12345678/B12345678/", (_WORD, 24)),
    "Twilio account": ("A", "C", (_HEX, 32)),
    "Twilio": ("S", "K", (_HEX, 32)),
    "SendGrid": ("S", "G.", (_WORD, 22), ".", (_WORD, 43)),
    "Sendinblue": ("xkeys", "ib-", (_HEX, 64), "-", (_HEX, 16)),
    **{f"Stripe {kind}": ("sk", f"_{kind}_", (_WORD, 24)) for kind in ("live", "test", "prod")},
    "Shopify": ("sh", "pat_", (_HEX, 32)),
    "Anthropic": ("sk-", "ant-api03-", (_WORD, 93), "AA"),
    "OpenAI": ("s", "k-", (_WORD, 20), "T3Blbk", "FJ", (_WORD, 20)),
    "OpenAI project": ("s", "k-proj-", (_WORD, 74), "T3Blbk", "FJ", (_WORD, 74)),
    "Hugging Face": ("h", "f_", (string.ascii_letters, 34)),
    "Groq": ("gs", "k_", (_WORD, 52)),
    "Replicate": ("r", "8_", (_WORD, 37)),
    "Perplexity": ("ppl", "x-", (_WORD, 48)),
    "Grafana": ("gl", "sa_", (_WORD, 32), "_", (_HEX, 8)),
    "Sentry": ("sntry", "u_", (_HEX, 64)),
    "Postman": ("PM", "AK-", (_HEX, 24), "-", (_HEX, 34)),
    "Linear": ("lin", "_api_", (_WORD, 40)),
}

#: Tokens that are found where they are not in source code.
DATA_TOKENS: dict[str, _Recipe] = {
    "Google OAuth": ("ya", "29.", (_WORD, 60)),
    "Heroku": ("HRK", "U-", (_HEX, 40)),
    "HashiCorp Terraform": ((_WORD, 14), ".atlas", "v1.", (_WORD, 64)),
    "HashiCorp Vault": ("hv", "s.", (_WORD, 95)),
    "HashiCorp Vault batch": ("hv", "b.", (_WORD, 150)),
    **{
        f"GitLab {kind}": ("gl", f"{kind}-", (_WORD, 40))
        for kind in ("dt", "ft", "rt", "soat", "cbt", "imt", "ffct")
    },
    "GitLab runner registration": ("GR13", "48941", (_WORD, 20)),
    "Doppler": ("dp", ".pt.", (_WORD, 43)),
    "Discord": ("M", (_WORD, 23), ".", (_WORD, 6), ".", (_WORD, 27)),
    "Telegram": ("110201543", ":A", (_WORD, 34)),
    "Mailchimp": ((_HEX, 32), "-u", "s12"),
    "Square": ("sq", "0csp-", (_WORD, 43)),
    "npm registry": ("//registry.example/:_auth", "Token=", (_HEX, 36)),
}


def token(recipe: _Recipe) -> str:
    """The sample."""
    return "".join(part if isinstance(part, str) else _some(*part) for part in recipe)


def private_key(kind: str = "RSA ", line: str = "\n") -> str:
    """A block that looks like a private key."""
    first, last = (f"-----{word} {kind}PRIVATE " + "KEY-----" for word in ("BEGIN", "END"))
    return line.join([first, _some(_WORD, 64), _some(_WORD, 60) + "==", last, ""])


def _kubeconfig() -> str:
    return f"apiVersion: v1\nkind: Config\nusers:\n- user:\n    client-key-data: {_some(_WORD, 40)}\n"


#: Whole files that are credentials, by what they are.
DATA_FILES: dict[str, str] = {
    **{f"private key {kind}": private_key(kind) for kind in ("", "RSA ", "EC ", "DSA ", "OPENSSH ")},
    "encrypted private key": private_key("ENCRYPTED "),
    "PGP key": private_key().replace("RSA PRIVATE KEY", "PGP PRIVATE KEY BLOCK"),
    "PuTTY key": "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n",
    "key after a certificate": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    + private_key(""),
    "key in YAML": "server:\n  tls: |\n    " + private_key("", "\n    "),
    "key in a string": 'key: "' + private_key("", "\\n") + '"\n',
    "key in base64": "data: " + base64.b64encode(private_key().encode()).decode(),
    "service account": '{"type": "service_account", "private' + '_key": "x"}',
    "authorized user": '{"client_id": "x", "refresh' + '_token": "y", "type": "authorized_user"}',
    "OAuth client": '{"installed": {"client_id": "x", "client' + '_secret": "12345678"}}',
    "JSON Web Key": '{"kty": "OKP", "crv": "Ed25519", "d": "' + _some(_WORD, 43) + '"}',
    "kubeconfig with a key": _kubeconfig(),
    "kubeconfig with a token": "clusters: []\ncontexts: []\nusers:\n- user:\n    token: abcdef\n",
    "Docker login": '{"auths": {"registry.example": {"auth": "' + _some(_WORD, 20) + '"}}}',
    "Terraform state": '{"version": 4, "terraform_version": "1.5", "serial": 1, "lineage": "x"}',
    "netrc": "machine example.com login me password " + _some(_WORD, 12),
    "git credentials": "https://me:" + _some(_WORD, 12) + "@example.com\n",
    "npm login": "//registry.example/:_pass" + "word=" + _some(_WORD, 12),
    "JSON Web Token": "ey" + "JhbGciOiJIUzI1NiJ9.ey" + "JzdWIiOiIxMjM0NTY3ODkwIn0." + _some(_WORD, 43),
}
