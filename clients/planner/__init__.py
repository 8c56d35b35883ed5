"""Language to metric request, never to SQL: the planners, and what they plan from."""

from clients.planner.keyless import KeylessPlanner
from clients.planner.plan import Action, Mode, Plan
from clients.planner.snapshot import Snapshot, take_snapshot

__all__ = ["Action", "KeylessPlanner", "Mode", "Plan", "Snapshot", "take_snapshot"]
