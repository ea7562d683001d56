"""A language for changing neural networks: rules in a file, applied to a model that stays what it was.

Importing this package imports no framework and no parser; each comes with the first call that needs it.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers know the name; importing `typing` for it would cost the command line its start

if TYPE_CHECKING:
    from rewrite.backends.backend import Probe
    from rewrite.engine import (
        Plan,
        Rules,
        apply_rules,
        check_rules,
        explain_rules,
        get_report,
        get_taps,
        plan_rules,
        probe,
    )
    from rewrite.errors import Diagnostic, PlanError, RewriteError, RuleError, SafetyError, SiteError
    from rewrite.migration import migrate
    from rewrite.optimizers import migrate_optimizer
    from rewrite.report import Report
    from rewrite.tester import RuleTestResult, run_rule_tests

__version__ = "0.1.0"

__all__ = [
    "Diagnostic",
    "Plan",
    "PlanError",
    "Probe",
    "Report",
    "RewriteError",
    "RuleError",
    "RuleTestResult",
    "Rules",
    "SafetyError",
    "SiteError",
    "apply_rules",
    "check_rules",
    "explain_rules",
    "get_report",
    "get_taps",
    "migrate",
    "migrate_optimizer",
    "plan_rules",
    "probe",
    "run_rule_tests",
]

_HOMES = {
    **dict.fromkeys(
        ("Diagnostic", "PlanError", "RewriteError", "RuleError", "SafetyError", "SiteError"), "rewrite.errors"
    ),
    "Probe": "rewrite.backends.backend",
    "Report": "rewrite.report",
    "migrate": "rewrite.migration",
    "migrate_optimizer": "rewrite.optimizers",
    **dict.fromkeys(("RuleTestResult", "run_rule_tests"), "rewrite.tester"),
}
"""name -> the module that has it, where that is not `rewrite.engine`"""


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES.get(name, "rewrite.engine")), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
