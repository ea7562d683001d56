"""`Report`: what matched, what missed and why, what changed. Data, its JSON form and its text form."""

from __future__ import annotations

from dataclasses import dataclass

from rewrite.errors import Diagnostic

FORMAT_VERSION = 1
"""of the JSON form; it grows when a reader of the old form could go wrong"""


@dataclass(frozen=True)
class Totals:
    """Size of a model."""

    operations: int
    """calls in one forward pass, in the model's present mode"""
    layers: int
    parameters: int
    trainable: int


@dataclass(frozen=True)
class Site:
    """One match of one clause, and what happens there."""

    path: str
    """the call: a layer's path, or a scope's path and a function's name"""
    spelling: str
    """`nn.ReLU`, `F.relu`"""
    changes: tuple[str, ...]
    """one line each: `insert BatchNorm2d(num_features=64) as features.0_batchnorm2d`"""
    inferred: dict[str, object]
    """arguments that the site supplied"""
    mode: str = ""
    """`train` or `eval` for a call that is made in that mode only"""


@dataclass(frozen=True)
class ClauseReport:
    """One clause: its text, its sites, and why near misses were none."""

    text: str
    place: str
    """file:line:column"""
    sites: tuple[Site, ...]
    """the sites in the model's present mode, in order of execution"""
    other_mode: tuple[Site, ...] = ()
    """sites that exist only in the other of train and eval mode; edited just the same"""
    misses: tuple[str, ...] = ()
    """near misses with their reason, one line each"""
    skipped: bool = False
    """the model had this clause applied before"""


@dataclass(frozen=True)
class Report:
    """All of what one application (or one plan) does."""

    model: str
    rules: str
    clauses: tuple[ClauseReport, ...]
    before: Totals
    after: Totals
    new_parameters: int
    """numbers in parameters that the rules add"""
    frozen_parameters: int
    """numbers in parameters that the rules stop from learning"""
    removed_keys: tuple[str, ...] = ()
    """keys of the state_dict that are gone"""
    new_keys: tuple[str, ...] = ()
    output: str = ""
    """what is known of the output: unchanged, or the promised shape"""
    warnings: tuple[Diagnostic, ...] = ()
    scopes: tuple[tuple[str, str], ...] = ()
    """(path, why) of each module whose forward could not be captured"""

    @property
    def sites(self) -> int:
        """Number of sites over all clauses."""
        return sum(len(clause.sites) for clause in self.clauses)
