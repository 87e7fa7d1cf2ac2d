"""Ends flow runs whose process is gone: a machine that loses power tells nobody, and the run stays Running for ever."""

from datetime import timedelta

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from flows import HEARTBEAT_SECONDS

NAME = "clha: end runs whose process is gone"
SILENCE = timedelta(seconds=4 * HEARTBEAT_SECONDS)
LIVING = "prefect.flow-run.heartbeat"
ENDED = ("Completed", "Failed", "Cancelled", "Crashed")


def require_heartbeats() -> None:
    """Have Prefect's server mark a run Crashed when it has been silent for long. Does nothing if it is set up."""
    automation = AutomationCore(
        name=NAME,
        description="Runs send a heartbeat; one that has stopped without an end has lost its process.",
        trigger=EventTrigger(
            after={LIVING},
            expect={LIVING, *(f"prefect.flow-run.{name}" for name in ENDED)},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=SILENCE,
        ),
        actions=[
            ChangeFlowRunState(
                name=None,
                state=StateType.CRASHED,
                force=False,
                message="The process of this run is gone. Retry goes on from its workspace.",
            )
        ],
    )
    with get_client(sync_client=True) as client:
        if not client.read_automations_by_name(NAME):
            client.create_automation(automation)
