"""The connection to Redis or Valkey. A replica, which has no storage, has it by the same functions."""

from tokenyard.metering.connection import RedisRun, connect_redis, current_run, redis_time_ms

__all__ = ["RedisRun", "connect_redis", "current_run", "redis_time_ms"]
