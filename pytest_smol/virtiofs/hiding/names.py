"""Tables of file names: what is a credential, what is looked into, what is test data. Data only.

Each entry is a glob as :class:`~pytest_smol.virtiofs.hiding.globs.Globs` takes it, unless the comment
says something else. Sources: the manuals of the tools that write the files, and the name rules of
gitleaks 8, shhgit and the leaky-repo benchmark, which were read for what they cover.
"""

from __future__ import annotations

__all__ = [
    "BACKUPS",
    "BINARY",
    "CREDENTIALS",
    "ENVIRONMENTS",
    "INSTALLED",
    "KEYS",
    "PUBLIC",
    "REDACTED",
    "SHOWN",
    "SOURCES",
    "SUSPECTS",
    "TEST_MODULES",
]

#: Credentials and the directories that tools keep them in.
CREDENTIALS = (
    # Network logins
    *(".netrc", "_netrc", ".authinfo", ".pgpass", "pgpass.conf", ".my.cnf", ".mylogin.cnf", ".esmtprc"),
    *(".msmtprc", ".fetchmailrc", ".ftpconfig", "sftp-config.json", ".vscode/sftp.json", ".remote-sync.json"),
    *("filezilla.xml", "recentservers.xml", "sitemanager.xml", ".purple/accounts.xml", "proftpdpasswd"),
    *(".htpasswd", "htpasswd", ".htdigest", "etc/shadow", "etc/gshadow", "rclone.conf", ".smbcredentials"),
    # Package registries and version control
    *(".pypirc", ".npmrc", ".git-credentials", ".config/git/credentials", ".hg/hgrc", ".hgrc"),
    *(".cargo/credentials", ".cargo/credentials.toml", ".gem/credentials", ".bundle/config"),
    *(".m2/settings.xml", ".m2/settings-security.xml", ".ivy2/.credentials", ".sbt/.credentials"),
    *(".config/pypoetry/auth.toml", ".local/share/uv/credentials", ".composer/auth.json"),
    *(".config/gh", ".config/glab-cli", ".config/hub", "huggingface/token", ".huggingface/token"),
    # Clouds and clusters
    *(".aws", ".azure", ".config/gcloud", ".boto", ".s3cfg", ".oci", ".config/doctl", ".databrickscfg"),
    *("application_default_credentials.json", ".kaggle/kaggle.json", ".tugboat", "heroku.json"),
    *(".kube", "kubeconfig", "*.kubeconfig", "kubeconfig.yaml", "kubeconfig.yml", "kubeconfig.json"),
    *(".docker/config.json", ".dockercfg", ".dockerconfigjson", ".config/containers/auth.json"),
    # Deployment and applications
    *("*.tfstate", "*.tfstate.backup", "*.tfstate.[0-9]*", "*.tfvars", "*.tfvars.json", ".terraformrc"),
    *(".terraform.d", ".vault-token", ".vault_pass", ".vault_pass.txt", ".vault-pass", ".vault_password"),
    *("vault_pass.txt", "vault_password.txt", ".streamlit/secrets.toml", "config/master.key"),
    *("config/credentials/*.key", "config/secrets.yml", ".envs", "local.settings.json", "wp-config.php"),
    *("jenkins.plugins.publish_over_ssh.BapSshPublisherPlugin.xml", "dbeaver-data-sources.xml"),
    *(".snowsql/config", ".dbt/profiles.yml", ".credentials"),
    # The user's own
    *(".ssh", ".gnupg", ".password-store", ".mozilla/firefox", "logins.json", "key4.db", "otr.private_key"),
    *(".bash_history", ".zsh_history", ".sh_history", ".python_history", ".psql_history", ".mysql_history"),
    *(".sqlite_history", ".rediscli_history", ".node_repl_history", ".irb_history"),
    *("id_rsa", "id_dsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk"),
)

#: The same for files only: a virtual environment may be called ``.env``.
ENVIRONMENTS = (".env*", "*.env")

#: Containers of private keys, by name.
KEYS = (
    *("*.p12", "*.pfx", "*.pkcs12", "*.ppk", "*.jks", "*.jceks", "*.bcfks", "*.keystore", "*.kdb", "*.kdbx"),
    *("secring.gpg", "*.psafe3", "*.agilekeychain", "*.keychain", "*.kwallet", "*.bek", "*.fve"),
)

#: Files that are looked into wherever they are: hidden if they hold a private key or an account's
#: credentials.
SUSPECTS = (
    *("*.pem", "*.key", "*.crt", "*.cer", "*.p8", "*.pk8", "*.priv", "*.private", "*.asc", "*.openssh"),
    *("*_key", "*-key", "*_rsa", "*_dsa", "*_ecdsa", "*_ed25519", "*.rsa", "*.ed25519", "key", "identity"),
    *("*credentials*.json", "*service*account*.json", "client_secret*.json", "*key.json"),
)

#: Names of directories, in lower case, whose files are test data: see ``data_of_tests.py`` for the rule.
PUBLIC = (
    *("test", "tests", "testing", "testdata", "test_data", "test-data"),
    *("fixtures", "__tests__", "__fixtures__"),
)

#: Modules of tests that lie next to the code. Their tokens are test data, as those in the directories are.
TEST_MODULES = ("test_*.py", "*_test.py", "conftest.py")

#: Directories of installed packages. Their keys are no secrets, and their files are not looked into.
INSTALLED = ("site-packages", "dist-packages")

#: Files that are shown with the credentials in them redacted, as tools need the rest.
REDACTED = (
    *(".git/config", ".git/config.worktree", "*.git/config", ".git/modules/**/config", ".gitmodules"),
    *(".git/worktrees/*/config.worktree", "pip.conf", "pip.ini", "uv.toml", ".condarc", ".pydistutils.cfg"),
    *(".yarnrc", ".yarnrc.yml"),
)

#: Exceptions: what is written to be read by everyone.
SHOWN = (
    *(".env*.example", ".env*.sample", ".env*.template", ".env*.dist"),
    *("example.env", "sample.env", "template.env"),
)

#: What editors and package managers put after a file's name when they keep its former content. Suffixes,
#: each after ``.``, ``_`` or ``-`` and with a number after it, or not. Sources: the manuals of Emacs, Vim,
#: dpkg, rpm and patch.
BACKUPS = (
    *("bak", "backup", "old", "orig", "original", "save", "saved", "copy", "prev", "previous", "tmp", "temp"),
    *("new", "disabled", "rej", "txt", "sw[a-z]", "un~", "dpkg-old", "dpkg-new", "dpkg-dist", "rpmsave"),
    *("rpmnew", "rpmorig", "ucf-old"),
)

#: Suffixes of source code and documentation, without the dot. A program cannot do without its modules, so
#: their tokens are redacted where other files are hidden.
SOURCES = (
    *("py", "pyi", "pyx", "pxd", "pxi", "c", "h", "cc", "cpp", "cxx", "hpp", "rs", "go", "java", "kt", "js"),
    *("mjs", "cjs", "jsx", "ts", "tsx", "rb", "pl", "lua", "r", "jl", "css", "md", "rst"),
)

#: Suffixes of files that hold no text, without the dot: they are only looked into when they are opened.
BINARY = (
    *("png", "jpg", "jpeg", "gif", "bmp", "ico", "tif", "tiff", "webp", "pdf", "ttf", "otf", "woff"),
    *("woff2", "eot", "so", "a", "o", "dll", "exe", "dylib", "pyd", "whl", "egg", "jar", "zip", "gz", "bz2"),
    *("xz", "zst", "7z", "tar", "tgz", "npy", "npz", "parquet", "h5", "pkl", "mo", "mp3", "mp4", "wav"),
)
