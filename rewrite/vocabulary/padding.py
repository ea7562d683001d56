"""Padding of the axes behind the channels. `F.pad`, which may pad any axis, is `pad`."""

from __future__ import annotations

from rewrite.vocabulary.operation import Operation, Shape

_PADDING = "padding"
_CONSTANT = "padding, value"

PADDING = (
    Operation("ZeroPad1d", signature=_PADDING, shape=Shape.CHANNELS, rank=3, module="torch.nn.ZeroPad1d"),
    Operation("ZeroPad2d", signature=_PADDING, shape=Shape.CHANNELS, rank=4, module="torch.nn.ZeroPad2d"),
    Operation("ZeroPad3d", signature=_PADDING, shape=Shape.CHANNELS, rank=5, module="torch.nn.ZeroPad3d"),
    Operation("ConstantPad1d", signature=_CONSTANT, shape=Shape.CHANNELS, rank=3, module="torch.nn.ConstantPad1d"),
    Operation("ConstantPad2d", signature=_CONSTANT, shape=Shape.CHANNELS, rank=4, module="torch.nn.ConstantPad2d"),
    Operation("ConstantPad3d", signature=_CONSTANT, shape=Shape.CHANNELS, rank=5, module="torch.nn.ConstantPad3d"),
    Operation("ReflectionPad1d", signature=_PADDING, shape=Shape.CHANNELS, rank=3, module="torch.nn.ReflectionPad1d"),
    Operation("ReflectionPad2d", signature=_PADDING, shape=Shape.CHANNELS, rank=4, module="torch.nn.ReflectionPad2d"),
    Operation("ReflectionPad3d", signature=_PADDING, shape=Shape.CHANNELS, rank=5, module="torch.nn.ReflectionPad3d"),
    Operation("ReplicationPad1d", signature=_PADDING, shape=Shape.CHANNELS, rank=3, module="torch.nn.ReplicationPad1d"),
    Operation("ReplicationPad2d", signature=_PADDING, shape=Shape.CHANNELS, rank=4, module="torch.nn.ReplicationPad2d"),
    Operation("ReplicationPad3d", signature=_PADDING, shape=Shape.CHANNELS, rank=5, module="torch.nn.ReplicationPad3d"),
    Operation("CircularPad1d", signature=_PADDING, shape=Shape.CHANNELS, rank=3, module="torch.nn.CircularPad1d"),
    Operation("CircularPad2d", signature=_PADDING, shape=Shape.CHANNELS, rank=4, module="torch.nn.CircularPad2d"),
    Operation("CircularPad3d", signature=_PADDING, shape=Shape.CHANNELS, rank=5, module="torch.nn.CircularPad3d"),
    Operation("pad", functions={"torch.nn.functional.pad": "input, pad, mode='constant', value=None"}),
)
