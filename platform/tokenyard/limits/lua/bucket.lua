-- What one bucket holds: budgets, holds and rate windows. Each script is loaded as the parts it needs and its own text.
-- KEYS[1] is the bucket's tag (core.redis_keys.bucket_tag): all names begin with it, so they share one hash slot.
--
-- Redis makes every function anew for each call of a script, and what a function uses of the lines around it, too. So
-- functions are few and take what they need, and constants in capitals are written into their places by scripts.py.
--
-- A budget is packed into one value: ledger, version (-1 = it has no ledger figure yet), pending, held. Lua's numbers
-- are doubles, exact only below 2^53 (9 million dollars). So an amount is two of them, billions and rest: exact over
-- more than 64 bits.
local BILLION = 1000000000
local BUDGET = '>ddddddd'
local AMOUNT = '>dd'
local AMOUNT_BYTES = 16

local function now_ms(override)
  if override ~= '' then return tonumber(override) end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function key(kind, id) return KEYS[1] .. ':' .. kind .. ':' .. id end
