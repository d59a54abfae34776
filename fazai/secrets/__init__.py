"""Secrets by reference: !env, !file, !cmd, !vault, and the files of the secrets folder (docs/secrets.md).

`SecretReader` is built by a shell with everything it may use. What it returns is wrapped in `Secret`; what it
raises says where and why, and never what.
"""

from fazai.secrets.reader import PROMPTS, SecretReader

__all__ = ["PROMPTS", "SecretReader"]
