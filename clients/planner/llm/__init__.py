"""The planner that asks a language model, and checks whatever it says."""

from clients.planner.llm.planner import LlmPlanner

__all__ = ["LlmPlanner"]
