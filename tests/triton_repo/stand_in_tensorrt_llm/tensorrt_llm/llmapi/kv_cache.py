from datetime import timedelta


def _priority(value):
    if type(value) is not int or not 0 <= value <= 100:
        raise ValueError("priority must be between 0 and 100")


def _duration(value):
    if value is not None and not isinstance(value, timedelta):
        raise TypeError("incompatible function arguments")


class KvCacheRetentionConfig:
    class TokenRangeRetentionConfig:
        def __init__(self, token_start, token_end=None, priority=35, duration_ms=None):
            _priority(priority)
            _duration(duration_ms)
            if token_end is not None and token_end <= token_start:
                raise ValueError("token range must have a positive length")
            self.range = (token_start, token_end, priority, duration_ms)

    def __init__(
        self,
        token_range_retention_configs,
        decode_retention_priority=35,
        decode_duration_ms=None,
    ):
        _priority(decode_retention_priority)
        _duration(decode_duration_ms)
        self.ranges = [each.range for each in token_range_retention_configs]
        self.decode = (decode_retention_priority, decode_duration_ms)
