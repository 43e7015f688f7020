"""Rounding of channel counts to multiples that hardware computes efficiently."""


def round_channels(channels: float, divisor: int = 8, *, lower_limit: float = 0.9) -> int:
    """The multiple of ``divisor`` nearest to ``channels``, at least ``divisor``.

    Args:
        channels: Number of channels before rounding.
        divisor: The result is a multiple of this number.
        lower_limit: Smallest allowed result, as a fraction of ``channels``; if the result is smaller, the next multiple
            is returned. 0 for no limit.

    Raises:
        ValueError: If ``channels`` or ``divisor`` is not positive.

    Source:
        The rule of the MobileNet papers' code: Howard et al. 2019, https://arxiv.org/abs/1905.02244.

    Example:
        >>> from lazytorch.layers import round_channels
        >>> round_channels(32 * 0.35), round_channels(10), round_channels(4, lower_limit=0)
        (16, 16, 8)
    """
    if not (channels > 0 and divisor > 0):
        raise ValueError(f"round_channels: channels and divisor must be positive, got {channels} and {divisor}.")
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < lower_limit * channels else rounded
