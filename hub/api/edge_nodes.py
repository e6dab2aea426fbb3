"""Edge nodes: asking for a rebirth, and plain Sparkplug writes to strangers."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from contract.metrics import DataType
from contract.payload import Payload, WireMetric, encode
from contract.topics import MessageType, Topic, valid_id
from hub.api.problems import RESPONSES, ProblemRaised
from hub.audit import Act
from hub.devices import NodeKey
from hub.doors import Asked, may, of_edge_node
from hub.given import Given
from hub.rights.commands import sounds
from hub.rights.permissions import Noun, Verb

router = APIRouter(prefix="/api/edge-nodes", tags=["edge nodes"], responses=RESPONSES)


class WriteIn(BaseModel):
    """One metric to write; `device` absent for the edge node itself."""

    device: str | None = None
    metric: Annotated[str, Field(min_length=1, max_length=200)]
    datatype: Literal["INT32", "INT64", "DOUBLE", "FLOAT", "BOOLEAN", "STRING"]
    value: bool | int | float | str


class SentOut(BaseModel):
    """The command left; Sparkplug commands are not acknowledged."""

    sent: bool


@router.post("/{group}/{node}/rebirth", status_code=202)
async def rebirth(
    group: str, node: str, hub: Given, asked: Annotated[Asked, Depends(may(Noun.EDGE_NODE, Verb.REBIRTH, of_edge_node))]
) -> SentOut:
    """Have an edge node asked for all its births: at once, or when its last request is a minute old."""
    hub.audit.record(Act(at=asked.caller.now, by=asked.caller.by, what="edge_node.rebirth", subject=f"{group}/{node}"))
    if not hub.broker.ready:
        raise ProblemRaised(503, "the broker is not connected; try again when /readyz says so")
    if not hub.ingest.want_birth(_key(group, node)):
        raise ProblemRaised(404, f"edge node {node!r} was not heard since the hub started")
    return SentOut(sent=True)


@router.post("/{group}/{node}/write", status_code=202)
async def write(
    group: str,
    node: str,
    body: WriteIn,
    hub: Given,
    asked: Annotated[Asked, Depends(may(Noun.EDGE_NODE, Verb.WRITE, of_edge_node))],
) -> SentOut:
    """Write a metric of a foreign edge node or device; our own obey signed orders only."""
    key = _key(group, node)
    configured = hub.places.of(key) is not None
    if configured or hub.ingest.our_node(key):
        raise ProblemRaised(403, f"edge node {node!r} is ours: nothing on it can be written plainly")
    if sounds(body.metric):
        raise ProblemRaised(
            403, f"{body.metric[:60]!r} has to do with sound: only signed orders make loudspeakers sound"
        )
    if not hub.ingest.born(key):
        raise ProblemRaised(409, f"edge node {node!r} is not online")
    now = hub.clock.now_ms()
    datatype = DataType[body.datatype]
    try:
        metric = WireMetric(name=body.metric, at=now, datatype=datatype, value=body.value)
        payload = encode(Payload(at=now, metrics=(metric,)))
    except ValueError as exc:
        raise ProblemRaised(422, str(exc)) from exc
    if body.device is not None and not valid_id(body.device):
        raise ProblemRaised(422, f"device {body.device[:40]!r} cannot stand in a topic")
    kind = MessageType.NCMD if body.device is None else MessageType.DCMD
    told = {"device": body.device, "metric": body.metric, "value": body.value}
    hub.audit.record(Act(at=now, by=asked.caller.by, what="edge_node.write", subject=f"{group}/{node}", after=told))
    if not hub.broker.publish(str(Topic(group, kind, node, body.device)), payload):
        raise ProblemRaised(503, "the broker is not connected; try again when /readyz says so")
    return SentOut(sent=True)


def _key(group: str, node: str) -> NodeKey:
    if not (valid_id(group) and valid_id(node)):
        raise ProblemRaised(422, "group and edge node must not contain blanks, '/', '+' or '#'")
    return NodeKey(group, node)
