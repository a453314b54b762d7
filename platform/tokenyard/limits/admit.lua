-- Let one request in, or take nothing.
--
-- ARGV: now ('' = the server's clock), request, key ('' = no check), its version, lease ms ('' = for ever), amount,
--   tokens, claims, budgets, slots, token windows (each list separated by spaces), then for each limit: scope, what
--   (rpm, tpm, rpd, tpd, slots) and how much.
-- Reply: {'ok', admitted at, requests..., tokens...}, {'rate', limit's number, used, retry after ms or -1, requests...,
--   tokens...}, {'budget', name, ledger, pending, held}, {'missing', names...}, or {'not_ready' | 'settled' | 'revoked'}.
--   requests... and tokens... are limit (-1 = none), remaining and reset ms of the tightest window of that kind.
local now = now_ms(ARGV[1])
local request, api_key, version, lease = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local amount, tokens, budgets = ARGV[6], tonumber(ARGV[7]), ARGV[9]
local FIRST_LIMIT = 12

if redis.call('EXISTS', READY) == 0 then return { 'not_ready' } end
if redis.call('EXISTS', key('settled', request)) == 1 then return { 'settled' } end
if api_key ~= '' then
  local known = redis.call('GET', key('keyversion', api_key))
  if known and tonumber(known) > tonumber(version) then return { 'revoked' } end
  -- Absent after Redis was lost, or older: the caller's comes from SQL, which is the truth.
  if known ~= version then redis.call('SET', key('keyversion', api_key), version) end
end
local admitted_at = redis.call('HGET', key('hold', request), 'admitted_at_ms')

local function check_budgets()
  local missing, refused = { 'missing' }, nil
  for budget in string.gmatch(budgets, '%S+') do
    local state = redis.call('HMGET', key('budget', budget), 'ledger', 'pending', 'held')
    local pending, held = state[2] or '0', state[3] or '0'
    if not state[1] then
      missing[#missing + 1] = budget
    elseif not refused and not covers(state[1], pending, held, amount) then
      refused = { 'budget', budget, state[1], pending, held }
    end
  end
  return #missing > 1 and missing or refused
end

-- What a window counts, its sub-buckets from old to new, and when all of it will have passed.
local function read_window(scope, what)
  local width = WINDOWS[what].width
  local current, used, counted = math.floor(now / width), 0, {}
  local flat = redis.call('HGETALL', rate_key(scope, what))
  for i = 1, #flat, 2 do
    local at, count = tonumber(flat[i]), tonumber(flat[i + 1])
    if at >= current - PARTS and at <= current + PARTS and count ~= 0 then
      used = used + count
      counted[#counted + 1] = { at = at, count = count }
    end
  end
  table.sort(counted, function(a, b) return a.at < b.at end)
  return used, counted
end

local function passes_ms(index, width) return (index + PARTS + 1) * width - now end

-- Milliseconds until `needed` more fits under `limit`; -1 when it never will.
local function retry_ms(counted, used, needed, limit, width)
  if needed > limit then return -1 end
  for _, part in ipairs(counted) do
    used = used - part.count
    if used + needed <= limit then return passes_ms(part.at, width) end
  end
  return 0
end

local tightest = {}
local refusal = nil

local function refuse(number, used, wait)
  local longer = not refusal or wait == -1 or (refusal[4] ~= -1 and wait > refusal[4])
  if longer then refusal = { 'rate', number, used, wait } end
end

local function check_window(number, scope, what, limit)
  local window = WINDOWS[what]
  local used, counted = read_window(scope, what)
  local needed = window.kind == 'requests' and 1 or tokens
  if admitted_at then needed = 0 end
  local fits = used + needed <= limit
  if not fits then refuse(number, used, retry_ms(counted, used, needed, limit, window.width)) end
  if fits then used = used + needed end
  local newest = counted[#counted] and counted[#counted].at or nil
  if fits and needed > 0 then newest = math.max(newest or 0, math.floor(now / window.width)) end
  local remaining = math.max(0, limit - used)
  local seen = tightest[window.kind]
  if not seen or remaining < seen[2] then
    tightest[window.kind] = { limit, remaining, newest and passes_ms(newest, window.width) or 0 }
  end
end

local function check_limits()
  for i = FIRST_LIMIT, #ARGV, 3 do
    local number, scope, what, limit = (i - FIRST_LIMIT) / 3, ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
    if what ~= 'slots' then
      check_window(number, scope, what, limit)
    elseif not admitted_at then
      local used = tonumber(redis.call('GET', rate_key(scope, what)) or '0')
      if used >= limit then refuse(number, used, 1000) end
    end
  end
end

local function with_windows(reply)
  for _, kind in ipairs({ 'requests', 'tokens' }) do
    for _, number in ipairs(tightest[kind] or { -1, 0, 0 }) do reply[#reply + 1] = number end
  end
  return reply
end

if not admitted_at then
  local refused = check_budgets()
  if refused then return refused end
end
check_limits()
if admitted_at then
  -- A second attempt of a request that is in: it holds what it needs.
  if lease ~= '' then redis.call('ZADD', HOLDS, now + lease, request) end
  return with_windows({ 'ok', tonumber(admitted_at) })
end
if refusal then return with_windows(refusal) end

put_hold(now, lease, request, now, amount, ARGV[7], ARGV[8], budgets, ARGV[10], ARGV[11])
for i = FIRST_LIMIT, #ARGV, 3 do
  local window = WINDOWS[ARGV[i + 1]]
  local count = window and (window.kind == 'requests' and 1 or tokens) or 0
  if count > 0 then
    local current = math.floor(now / window.width)
    add_to_window(rate_key(ARGV[i], ARGV[i + 1]), window.width, current, current, count)
  end
end
return with_windows({ 'ok', now })
