"""What is known as a credential by its content, measured by what a scanner of repositories finds."""

from __future__ import annotations

import marshal

import pytest
from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.settings import default_settings
from hypothesis import given
from hypothesis import strategies as st

from pytest_smol.virtiofs.hiding import patterns
from pytest_smol.virtiofs.hiding.contents import compiled_holds_tokens, find_tokens, holds_credentials
from pytest_smol.virtiofs.hiding.redaction import redacted_source
from tests.unit.virtiofs.secret_samples import DATA_FILES, DATA_TOKENS, TOKENS, private_key, token

#: What detect-secrets finds and is shown: each of these is in many files that are no secret.
NOT_HIDDEN = {
    "Base64HighEntropyString": "hashes and test vectors",
    "HexHighEntropyString": "hashes and test vectors",
    "KeywordDetector": "any setting that is called a password, in documentation too",
    "BasicAuthDetector": "URLs with a user and a password, in each HTTP client's documentation",
    "IPPublicDetector": "an address is no secret",
    "CloudantDetector": "32 or 64 hexadecimal digits after a word",
    "IbmCloudIamDetector": "44 letters after a word",
    "IbmCosHmacDetector": "48 hexadecimal digits after a word",
    "SoftlayerDetector": "64 letters after a word",
}
#: The samples by the class of detect-secrets that finds them.
MEASURED = {
    "ArtifactoryDetector": " " + token(TOKENS["Artifactory"]),
    "AWSKeyDetector": token(TOKENS["AWS"]),
    "AzureStorageKeyDetector": token(TOKENS["Azure storage"]),
    "DiscordBotTokenDetector": token(DATA_TOKENS["Discord"]),
    "GitHubTokenDetector": token(TOKENS["GitHub p"]),
    "GitLabTokenDetector": token(TOKENS["GitLab"]),
    "JwtTokenDetector": DATA_FILES["JSON Web Token"],
    "MailchimpDetector": token(DATA_TOKENS["Mailchimp"]),
    "NpmDetector": token(DATA_TOKENS["npm registry"]),
    "OpenAIDetector": token(TOKENS["OpenAI"]),
    "PrivateKeyDetector": private_key(),
    "PypiTokenDetector": token(TOKENS["PyPI"]),
    "SendGridDetector": token(TOKENS["SendGrid"]),
    "SlackDetector": token(TOKENS["Slack bot"]),
    "SquareOAuthDetector": token(DATA_TOKENS["Square"]),
    "StripeDetector": token(TOKENS["Stripe live"]),
    "TelegramBotTokenDetector": token(DATA_TOKENS["Telegram"]),
    "TwilioKeyDetector": token(TOKENS["Twilio"]),
}
FRAMES = ("{}", "key = '{}'\n", 'a: "{}"\n', "# {} #", "url?token={}&more", "[{}]", "é {} é")


def plugins() -> dict[str, type]:
    with default_settings():
        return {kind.__name__: kind for kind in get_mapping_from_secret_type_to_class().values()}


def test_each_rule_of_the_scanner_is_measured_or_left_out_with_a_reason() -> None:
    assert {*MEASURED, *NOT_HIDDEN} >= plugins().keys()


@pytest.mark.parametrize("name", MEASURED)
def test_what_the_scanner_finds_is_hidden(name: str) -> None:
    text = MEASURED[name]
    assert [*plugins()[name]().analyze_string(text)], "no sample"
    assert holds_credentials(text.encode())


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("name", [*TOKENS, *DATA_TOKENS])
def test_a_file_with_a_token_is_hidden(name: str, frame: str) -> None:
    text = token({**TOKENS, **DATA_TOKENS}[name])
    if name == "npm registry" and frame != "{}":
        text = "\n" + text + "\n"
    assert holds_credentials(f"first\n{frame.format(text)}\nlast\n".encode())


@pytest.mark.parametrize("name", DATA_FILES)
def test_a_file_that_is_a_credential_is_hidden(name: str) -> None:
    data = DATA_FILES[name].encode()
    assert holds_credentials(data)
    assert holds_credentials(b"\xff\xfe" + DATA_FILES[name].encode("utf-16-le"))
    assert holds_credentials(b"\xfe\xff" + DATA_FILES[name].encode("utf-16-be"))


@pytest.mark.parametrize("name", TOKENS)
def test_a_token_in_source_code_is_redacted(name: str) -> None:
    secret = token(TOKENS[name])
    source = f"# one\nKEY = {secret!r}\n\ndef f():\n    return KEY\n".encode()
    shown = redacted_source(source)
    assert len(shown) == len(source)
    assert shown.count(b"\n") == source.count(b"\n")
    assert secret[-12:].strip("'").encode() not in shown
    assert shown.startswith(b"# one\nKEY = ")
    assert shown.endswith(b"\n\ndef f():\n    return KEY\n")


@pytest.mark.parametrize(
    "source",
    [
        f'KEY = """\n{private_key()}"""\n',
        f"KEY = {private_key()!r}\n",
        "KEY = (\n" + "".join(f"    {line!r}\n" for line in private_key("").splitlines(True)) + ")\n",
        "-----BEGIN PRIVATE" + " KEY-----\nMC4CAQ\n-----END PRIVATE KEY-----\n",
    ],
)
def test_a_private_key_in_source_code_is_redacted(source: str) -> None:
    shown = redacted_source(source.encode()).decode()
    assert len(shown) == len(source)
    assert private_key("").splitlines()[1] not in shown
    assert "MC4CAQ" not in shown
    assert "BEGIN" in shown
    assert "END" in shown


@pytest.mark.parametrize(
    "source",
    [
        b'PEM = "-----BEGIN PRIVATE KEY-----\\n" + body + "\\n-----END PRIVATE KEY-----\\n"',
        b'PEM = """-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----"""',
        b"-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----\n",
        b'HEAD = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")',
        b"TOKEN = re.compile(r'ghp_[A-Za-z0-9]{36}|AKIA[A-Z0-9]{16}|sk_live_[a-z]+')",
        b"aws_access_key_id = AKIA" + b"IOSFODNN7EXAMPLE\n",
        b"class AbstractAsynchronousIteratorFactory(BaseAsynchronousIteratorFactoryImplementation): ...",
        b"sha256 = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'",
        b"uuid = '123e4567-e89b-12d3-a456-426614174000'",
        b"def test_something_that_has_a_very_long_name_indeed_and_is_no_secret(): ...",
        b"password = os.environ['PASSWORD']\ntoken = get_token()\n",
        b"https://user:password@example.com/",
    ],
)
def test_ordinary_source_code_is_shown_as_it_is(source: bytes) -> None:
    assert redacted_source(source) == source


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 100,
        b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        b"-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----\n",
        b'{"type": "object", "properties": {"client_secret": {"type": "string"}, "client_id": {}}}',
        b'{"kty": "RSA", "n": "abcdefghijklmnopqrstuvwxyz", "e": "AQAB"}',
        b"kind: Config\nclusters: []\n",
        b"the machine has a login and a password\n",
        b"//registry.example/:_authToken=${NPM_TOKEN}\n",
        b'[tool.x]\nname = "y"\nurl = "https://example.com/a/b"\n',
        b"PK\x03\x04 AKIA" + b"ABCDEFGHIJKLMNOP" + b"\0",
    ],
)
def test_what_is_no_credential_is_shown(data: bytes) -> None:
    assert not holds_credentials(data)


@pytest.mark.parametrize(
    "head",
    [
        b"\x30\x82\x04\xbd\x02\x01\x00\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x04",
        b"\x30\x82\x04\xa4\x02\x01\x00\x02\x82\x01\x01\x00",
        b"\x30\x77\x02\x01\x01\x04\x20",
        b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20",
    ],
)
def test_a_private_key_in_der_is_known(head: bytes) -> None:
    assert holds_credentials(head + bytes(range(64)))


@pytest.mark.parametrize("length", range(20, 256, 5))
def test_a_token_among_the_constants_of_compiled_code_is_found(length: int) -> None:
    """The byte before it is the length of the string, which may be a letter."""
    secret = (token(TOKENS["GitHub p"]) + " " * 220)[:length] if length > 40 else token(TOKENS["AWS"])
    code = compile(f"x = {secret!r}\n", "x.py", "exec")
    assert compiled_holds_tokens(bytes(16) + marshal.dumps(code))
    assert not compiled_holds_tokens(bytes(16) + marshal.dumps(compile("x = 'y' * 40", "x.py", "exec")))


@given(st.binary(max_size=300))
def test_the_length_of_source_code_stays(data: bytes) -> None:
    assert len(redacted_source(data)) == len(data)


def test_many_anchors_are_no_burden() -> None:
    """Each table's literals, over and over: no rule goes over the same bytes again and again."""
    rows = (*patterns.TOKENS, *patterns.RARE, *patterns.FILES)
    literals = {anchor for row in rows for view, anchor in row.anchors if view is patterns.View.RAW}
    parts = [
        *literals,
        b"-----BEGIN PRIVATE KEY-----\n" + b"A" * 16,
        b"a" * 20 + b"_",
        b"eyJ.",
        b"A" * 40 + b" ",
    ]
    for part in parts:
        data = (part * 50_000)[: 64 << 10]
        find_tokens(data)
        holds_credentials(data)
