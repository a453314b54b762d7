-- What one bucket holds: budgets, holds and rate windows. Each script is loaded as this text followed by its own.
-- KEYS[1] is the bucket's tag (core.redis_keys.bucket_tag): all names begin with it, so they share one hash slot.
-- Lua's numbers are doubles, exact only below 2^53 (9 million dollars). Money therefore stays text here: it is added
-- by HINCRBY (64-bit integers) and compared in two exact parts. Only times and counts become Lua numbers.
local call = redis.call
local TAG = KEYS[1]
local PARTS = 12 -- sub-buckets of a window; the current and the previous 12 count, so no real window is ever over
local WINDOWS = {
  rpm = { width = 5000, of_tokens = false },
  tpm = { width = 5000, of_tokens = true },
  rpd = { width = 7200000, of_tokens = false },
  tpd = { width = 7200000, of_tokens = true },
}
local SETTLED_MS = 3600000

local function now_ms(override)
  if override ~= '' then return tonumber(override) end
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function key(kind, id) return TAG .. ':' .. kind .. ':' .. id end
local function rate_key(scope, what) return TAG .. ':rate:' .. scope .. ':' .. what end
local HOLDS, USAGE, READY = TAG .. ':holds', TAG .. ':usage', TAG .. ':ready'

-- Integer text, negated.
local function negated(text)
  if text == '0' then return text end
  if string.byte(text) == 45 then return string.sub(text, 2) end
  return '-' .. text
end

-- Integer text as billions and the rest, each exact as a double over the whole 64-bit range.
local function split(text)
  local sign = 1
  if string.byte(text) == 45 then sign, text = -1, string.sub(text, 2) end
  return sign * (tonumber(string.sub(text, 1, -10)) or 0), sign * tonumber(string.sub(text, -9))
end

-- Whether limit + ledger - pending - held >= amount.
local function covers(limit, ledger, pending, held, amount)
  local high, low = split(limit)
  local billions, rest = split(ledger)
  high, low = high + billions, low + rest
  for _, text in ipairs({ pending, held, amount }) do
    billions, rest = split(text)
    high, low = high - billions, low - rest
  end
  return high + math.floor(low / 1000000000) >= 0
end

-- Add to one sub-bucket of a window. `index` is the sub-bucket, `current` the one of now.
local function add_to_window(name, width, index, current, count)
  local total = call('HINCRBY', name, index, count)
  if total < 0 then call('HDEL', name, index) end -- a correction of what Redis lost meanwhile
  if total ~= count then return end
  -- A new sub-bucket: drop those that no longer count, so that the hash stays small.
  for _, field in ipairs(call('HKEYS', name)) do
    local at = tonumber(field)
    if at < current - PARTS or at > current + PARTS then call('HDEL', name, field) end
  end
  call('PEXPIRE', name, width * (PARTS + 2))
end

local function set_pending(budget, charge, amount)
  local name, total = key('pending', budget), key('budget', budget)
  local before = call('HGET', name, charge)
  if before then call('HINCRBY', total, 'pending', negated(before)) end
  if amount == '0' then
    if before then call('HDEL', name, charge) end
    return
  end
  call('HSET', name, charge, amount)
  call('HINCRBY', total, 'pending', amount)
end

-- Record a hold and take its money and slots. `lease` is milliseconds.
local function put_hold(now, lease, request, admitted_at, amount, tokens, claims, budgets, slots, windows)
  call('HSET', key('hold', request), 'claims', claims, 'admitted_at_ms', admitted_at, 'amount', amount,
    'tokens', tokens, 'budgets', budgets, 'slots', slots, 'windows', windows)
  call('ZADD', HOLDS, now + lease, request)
  for budget in string.gmatch(budgets, '%S+') do call('HINCRBY', key('budget', budget), 'held', amount) end
  for scope in string.gmatch(slots, '%S+') do call('INCR', rate_key(scope, 'slots')) end
end

-- Change what a hold's token windows count from `before` to `after` tokens, where they still count it.
local function correct_tokens(now, windows, admitted_at, before, after)
  local change = after - before
  if change == 0 then return end
  for scope, what in string.gmatch(windows, '(%S+)/(%a+)') do
    local width = WINDOWS[what].width
    local index, current = math.floor(admitted_at / width), math.floor(now / width)
    if index >= current - PARTS then
      add_to_window(rate_key(scope, what), width, index, current, change)
    end
  end
end

-- Take a hold away with its money and slots; its windows go on counting. Return what it was, or nil.
local function drop_hold(request)
  local name = key('hold', request)
  local hold = call('HMGET', name, 'admitted_at_ms', 'amount', 'tokens', 'budgets', 'slots', 'windows')
  call('ZREM', HOLDS, request)
  if not hold[1] then return nil end
  call('DEL', name)
  for budget in string.gmatch(hold[4], '%S+') do
    call('HINCRBY', key('budget', budget), 'held', negated(hold[2]))
  end
  for scope in string.gmatch(hold[5], '%S+') do
    if call('DECR', rate_key(scope, 'slots')) <= 0 then call('DEL', rate_key(scope, 'slots')) end
  end
  return { admitted_at = tonumber(hold[1]), amount = hold[2], tokens = tonumber(hold[3]), budgets = hold[4],
    windows = hold[6] }
end

-- Give back all that a hold took; its windows keep `tokens`. Return whether there was one.
local function release(now, request, tokens)
  local hold = drop_hold(request)
  if hold then correct_tokens(now, hold.windows, hold.admitted_at, hold.tokens, tokens) end
  return hold ~= nil
end

-- Remember what the token windows count for a request whose usage nobody knows yet.
local function leave_undecided(request, hold)
  if hold.windows == '' then return end
  local name = key('undecided', request)
  call('HSET', name, 'admitted_at_ms', hold.admitted_at, 'tokens', hold.tokens, 'windows', hold.windows)
  call('PEXPIRE', name, WINDOWS.tpd.width * (PARTS + 1)) -- then no window counts it any more
end

-- Let the token windows count what an undecided request really used.
local function decide(now, request, tokens)
  local name = key('undecided', request)
  local left = call('HMGET', name, 'admitted_at_ms', 'tokens', 'windows')
  if not left[1] then return end
  call('DEL', name)
  correct_tokens(now, left[3], tonumber(left[1]), tonumber(left[2]), tokens)
end
