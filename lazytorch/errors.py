"""The errors of lazytorch, one class per misuse."""

__all__ = ["ShapeInferenceError", "UninitializedAttributeError", "UninitializedModuleError"]


class UninitializedModuleError(RuntimeError):
    """Something was asked of a lazy module that it has only after its first input.

    Example:
        >>> import lazytorch
        >>> lazytorch.layers.LazyPointwiseConv(8).state_dict()
        Traceback (most recent call last):
        ...
        lazytorch.errors.UninitializedModuleError: LazyPointwiseConv has no state yet: it is built from its first \
input. Call lazytorch.materialize(model, (1, 3, 224, 224)) before state_dict().
    """


class UninitializedAttributeError(UninitializedModuleError, AttributeError):
    """The same of an attribute; ``hasattr(lazy, "conv")`` answers ``False``.

    Example:
        >>> import lazytorch
        >>> lazytorch.layers.LazyPointwiseConv(8).conv
        Traceback (most recent call last):
        ...
        lazytorch.errors.UninitializedAttributeError: LazyPointwiseConv has no attribute 'conv' yet: \
it is built from its first input. Call lazytorch.materialize(model, (1, 3, 224, 224)) before asking for it.
    """


class ShapeInferenceError(ValueError, RuntimeError):
    """The first input of a lazy module does not let it infer what it needs.

    A ``ValueError`` as constructors raise, and a ``RuntimeError`` as PyTorch's operators raise for a wrong shape.

    Example:
        >>> import lazytorch, torch
        >>> lazytorch.layers.LazyReductionConv2d(4, kernel_size=1)(torch.zeros(2, 6, 8, 8))
        Traceback (most recent call last):
        ...
        lazytorch.errors.ShapeInferenceError: LazyReductionConv2d: the input channels must be a multiple of \
reduction_ratio=4, got 6 (input (2, 6, 8, 8)).
    """
