"""`make secrets`: writes .env, the secrets of docker-compose.yml. Needs Python alone: it runs before all else."""

import os
import secrets
import sys
from pathlib import Path

PASSWORDS = (
    "POSTGRES_PASSWORD",
    "PREFECT_DB_PASSWORD",
    "MLFLOW_DB_PASSWORD",
    "PREFECT_PASSWORD",
    "MLFLOW_PASSWORD",
    "MLFLOW_FLASK_SECRET",
    "S3_MLFLOW_ACCESS_KEY",
    "S3_MLFLOW_SECRET_KEY",
    "S3_DVC_ACCESS_KEY",
    "S3_DVC_SECRET_KEY",
)
PASSWORD_BYTES = 24
NOT_ROOT = 10001  # the user of the image


def settings(checkout: Path) -> dict[str, str]:
    """New random passwords, and who owns the checkout: the worker writes to it as that user, never as root."""
    owner = checkout.stat()
    ids = {"CLHA_UID": str(owner.st_uid or NOT_ROOT), "CLHA_GID": str(owner.st_gid or NOT_ROOT)}
    return {name: secrets.token_hex(PASSWORD_BYTES) for name in PASSWORDS} | ids


def main() -> str | None:
    """Write .env into the working directory, readable by its owner only.

    Returns:
        None, or what is wrong.
    """
    file = Path(".env")
    values = settings(Path())
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return "error: .env exists, and databases may have its passwords: it stays. Move it away for new ones."
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.writelines(f"{name}={value}\n" for name, value in values.items())
    print("Wrote .env. Next: docker compose up --detach --build")
    if Path().stat().st_uid == 0:
        print(f"This folder is root's and the worker is not: chown --recursive {NOT_ROOT}:{NOT_ROOT} .")
    return None


if __name__ == "__main__":
    sys.exit(main())
