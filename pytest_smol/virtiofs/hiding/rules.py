"""Which files of a view no guest ever sees. Data only: the rules, and what is in them by default.

All are globs as :class:`~pytest_smol.virtiofs.hiding.globs.Globs` takes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

__all__ = ["Hiding"]

#: Credentials and the directories that tools keep them in.
CREDENTIALS = (
    *(".netrc", "_netrc", ".pypirc", ".npmrc", ".git-credentials", ".config/git/credentials", ".pgpass"),
    *(".aws", ".azure", ".config/gcloud", ".boto", ".s3cfg", ".oci", ".config/doctl", ".databrickscfg"),
    *("application_default_credentials.json", ".kaggle/kaggle.json", ".vault-token", ".terraformrc"),
    *(".terraform.d", ".kube", ".docker/config.json", ".dockercfg", ".dockerconfigjson"),
    *(".config/containers/auth.json", ".config/gh", ".config/glab-cli", ".config/hub", ".my.cnf"),
    *(".mylogin.cnf", ".cargo/credentials", ".cargo/credentials.toml", ".gem/credentials"),
    *(".m2/settings.xml", ".m2/settings-security.xml", ".config/pypoetry/auth.toml"),
    *(".local/share/uv/credentials", "huggingface/token", ".huggingface/token"),
    *(".ssh", ".gnupg", ".password-store", ".bash_history", ".python_history", ".psql_history"),
    *("id_rsa", "id_dsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk"),
)

#: The same for files only: a virtual environment may be called ``.env``.
ENVIRONMENTS = (".env*",)

#: Containers of private keys, by name.
KEYS = ("*.p12", "*.pfx", "*.ppk", "*.jks", "*.keystore", "*.kdbx", "secring.gpg")

#: Files that are looked into: hidden if they hold a private key or the credentials of an account.
SUSPECTS = (
    *("*.pem", "*.key", "*.crt", "*.cer", "*.p8", "*.pk8", "*.priv", "*.private", "*.asc", "*.openssh"),
    *("*_key", "*-key", "*_rsa", "*_dsa", "*_ecdsa", "*_ed25519", "*.rsa", "*.ed25519", "key", "identity"),
    *("*credentials*.json", "*service*account*.json", "client_secret*.json", "*key.json"),
)

#: Directories whose keys are no secrets: those that tests bring along and those of installed packages.
PUBLIC = ("test", "tests", "testing", "testdata", "fixtures", "site-packages", "dist-packages")

#: Files that are shown with the credentials in them redacted, as tools need the rest.
REDACTED = (
    *(".git/config", ".git/config.worktree", "*.git/config", ".git/modules/**/config", ".gitmodules"),
    *(".git/worktrees/*/config.worktree", "pip.conf", "pip.ini", "uv.toml", ".condarc", ".pydistutils.cfg"),
    *(".yarnrc", ".yarnrc.yml"),
)

#: Exceptions: what is written to be read by everyone.
SHOWN = (".env*.example", ".env*.sample", ".env*.template", ".env*.dist")


@dataclass(frozen=True)
class Hiding:
    """The rules. A base snapshot's key holds all of them, for its guest remembers what it saw.

    ``own`` is what the runs of this user keep: other machines' memory, for one.
    ``roots`` are the directories in which hidden files are searched to know
    their hard links, ``home`` is one in which only those of the rules are.
    """

    own: tuple[str, ...] = ()
    credentials: tuple[str, ...] = CREDENTIALS
    environments: tuple[str, ...] = ENVIRONMENTS
    keys: tuple[str, ...] = KEYS
    suspects: tuple[str, ...] = SUSPECTS
    public: tuple[str, ...] = PUBLIC
    redacted: tuple[str, ...] = REDACTED
    shown: tuple[str, ...] = SHOWN
    roots: tuple[str, ...] = ()
    home: str = ""

    @classmethod
    def of(cls, hide: tuple[str, ...], show: tuple[str, ...]) -> Hiding:
        """The defaults with the user's own: ``hide`` more, but ``show`` of it all."""
        return cls(credentials=(*CREDENTIALS, *hide), shown=(*SHOWN, *show))

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return asdict(self)

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> Hiding:
        """The inverse of :meth:`to_json`. Raises KeyError or TypeError for anything else."""
        if set(table) != {field.name for field in fields(cls)}:
            raise TypeError("no rules of what is hidden")
        rows: dict[str, Any] = {name: row if name == "home" else tuple(row) for name, row in table.items()}
        return cls(**rows)
