"""The MLflow server: its address without a password in it, and what to do where it does not take a request."""

import os

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import read_mlflow_creds

from clha_core.addresses import public_address, without_login, without_secrets

URI, USERNAME, PASSWORD = "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
UNKNOWN, FORBIDDEN = 401, 403  # HTTP's


def server_uri() -> str | None:
    """What MLFLOW_TRACKING_URI names; None without it.

    A user and a password in the address of a server move to MLflow's variables for them, unless those are set, and
    the variable is the bare address from then on, for processes that are started from here too: MLflow prints it.
    """
    uri = os.environ.get(URI) or None
    if uri is None or not uri.startswith("http"):  # a database has no other place for its password
        return uri
    bare, user, password = without_login(uri)
    for name, value in ((USERNAME, user), (PASSWORD, password)):
        if value:
            os.environ.setdefault(name, value)
    os.environ[URI] = bare
    return bare


def refuses_account(error: MlflowException) -> bool:
    """Whether the server does not know who asks, or does not allow it."""
    return error.get_http_status_code() in (UNKNOWN, FORBIDDEN)


def unusable(error: Exception) -> str:
    """What a user can do about an error of MLflow."""
    uri = mlflow.get_tracking_uri()
    where, said = f"MLflow at {public_address(uri)}", without_secrets(str(error), uri)
    if isinstance(error, MlflowException) and refuses_account(error):
        user = read_mlflow_creds().username
        who = f"the account {user!r}" if user else "anybody without an account"
        if error.get_http_status_code() == UNKNOWN:
            return f"{where} does not let in {who}: set {USERNAME} and {PASSWORD} to those of an account there."
        return (
            f"{where} does not allow {who} to do this: {said}\n"
            "An administrator of it can grant what is missing (MANAGE on the registered model, EDIT on the "
            f"experiment), or {USERNAME} and {PASSWORD} can name an account that has it."
        )
    return f"{where} cannot be used: {said}\nStart it (make mlflow), or correct {URI}."
