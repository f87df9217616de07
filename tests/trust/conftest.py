"""Profiles of hypothesis for tests/trust: `ci` (few examples, always the same) and `trust` (many, drawn anew): pytest --hypothesis-profile=trust."""
from hypothesis import HealthCheck, settings

calm = dict(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])   # the machine may be busy
settings.register_profile("ci", max_examples=20, derandomize=True, database=None, **calm)
settings.register_profile("trust", max_examples=500, print_blob=True, **calm)
settings.load_profile("ci")
