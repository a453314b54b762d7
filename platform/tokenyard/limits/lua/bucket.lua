-- What one bucket holds: budgets, holds and rate windows. Each script is loaded as the parts it needs and its own text.
-- KEYS[1] is the bucket's tag (core.redis_keys.bucket_tag): all names begin with it, so they share one hash slot.
-- Lua's numbers are doubles, exact only below 2^53 (9 million dollars). Money therefore stays text here: it is added
-- by HINCRBY (64-bit integers) and compared in two exact parts. Only times and counts become Lua numbers.
local call, floor, sub, gmatch = redis.call, math.floor, string.sub, string.gmatch
local TAG = KEYS[1]
local HOLDS, USAGE, READY = TAG .. ':holds', TAG .. ':usage', TAG .. ':ready'
local REVISION_MS = 86400000 -- longer than any process works by what it looked up once

local function now_ms(override)
  if override ~= '' then return tonumber(override) end
  local time = call('TIME')
  return time[1] * 1000 + floor(time[2] / 1000)
end

local function key(kind, id) return TAG .. ':' .. kind .. ':' .. id end
