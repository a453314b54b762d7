-- Let one request in, or take nothing.
--
-- ARGV: now ('' = the server's clock), request, organization ('' = no check of the caller), its revision, lease ms,
--   amount, tokens, claims, budgets, what may be spent of each in all, slots, token windows (each list separated by
--   spaces), then for each limit: scope, what (rpm, tpm, rpd, tpd, slots) and how much.
-- Reply: {'ok', admitted at, requests..., tokens...}, {'rate', limit's number, used, retry after ms or -1, requests...,
--   tokens...}, {'budget', name, limit, ledger, pending, held}, {'missing', names...}, or
--   {'not_ready' | 'settled' | 'outdated'}.
--   requests... and tokens... are limit (-1 = none), remaining and reset ms of the tightest window of that kind.
local now = now_ms(ARGV[1])
local request, organization, revision, lease = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local amount, tokens, budgets = ARGV[6], tonumber(ARGV[7]), ARGV[9]
local FIRST_LIMIT = 13

if call('EXISTS', READY) == 0 then return { 'not_ready' } end
if call('EXISTS', key('settled', request)) == 1 then return { 'settled' } end
if organization ~= '' then
  local known = call('GET', key('revision', organization))
  if known and tonumber(known) > tonumber(revision) then return { 'outdated' } end
  -- Absent after Redis was lost, or older: the caller's comes from SQL, which is the truth.
  if known ~= revision then call('SET', key('revision', organization), revision) end
end
local admitted_at = call('HGET', key('hold', request), 'admitted_at_ms')

local function check_budgets()
  local missing, refused = { 'missing' }, nil
  local next_limit = string.gmatch(ARGV[10], '%S+')
  for budget in string.gmatch(budgets, '%S+') do
    local limit = next_limit()
    local state = call('HMGET', key('budget', budget), 'ledger', 'pending', 'held')
    local ledger, pending, held = state[1], state[2] or '0', state[3] or '0'
    if not ledger then
      missing[#missing + 1] = budget
    elseif not refused and not covers(limit, ledger, pending, held, amount) then
      refused = { 'budget', budget, limit, ledger, pending, held }
    end
  end
  return #missing > 1 and missing or refused
end

-- What a window counts now, the last sub-bucket that counts, and all its fields.
local function read_window(scope, what, current)
  local used, newest = 0, 0
  local fields = call('HGETALL', rate_key(scope, what))
  for i = 1, #fields, 2 do
    local at = tonumber(fields[i])
    if at >= current - PARTS and at <= current + PARTS then
      used = used + tonumber(fields[i + 1])
      if at > newest then newest = at end
    end
  end
  return used, newest, fields
end

local function passes_ms(index, width) return (index + PARTS + 1) * width - now end

-- Milliseconds until `needed` more fits under `limit`; -1 when it never will.
local function retry_ms(fields, used, needed, limit, width)
  if needed > limit then return -1 end
  local counts, order = {}, {}
  for i = 1, #fields, 2 do
    local at = tonumber(fields[i])
    if math.abs(at - math.floor(now / width)) <= PARTS then
      counts[at], order[#order + 1] = tonumber(fields[i + 1]), at
    end
  end
  table.sort(order)
  for _, at in ipairs(order) do
    used = used - counts[at]
    if used + needed <= limit then return passes_ms(at, width) end
  end
  return 0
end

local REQUESTS, TOKENS = 1, 2
local tightest = {} -- by kind: limit, remaining, reset ms
local refusal = nil

local function refuse(number, used, wait)
  local longer = not refusal or wait == -1 or (refusal[4] ~= -1 and wait > refusal[4])
  if longer then refusal = { 'rate', number, used, wait } end
end

local function check_window(number, scope, what, limit)
  local window = WINDOWS[what]
  local current = math.floor(now / window.width)
  local used, newest, fields = read_window(scope, what, current)
  local needed = window.of_tokens and tokens or 1
  if admitted_at then needed = 0 end
  if used + needed > limit then
    refuse(number, used, retry_ms(fields, used, needed, limit, window.width))
  elseif needed > 0 then
    used, newest = used + needed, math.max(newest, current)
  end
  local kind, remaining = window.of_tokens and TOKENS or REQUESTS, math.max(0, limit - used)
  local seen = tightest[kind]
  if not seen or remaining < seen[2] then
    tightest[kind] = { limit, remaining, used > 0 and passes_ms(newest, window.width) or 0 }
  end
end

local function check_limits()
  for i = FIRST_LIMIT, #ARGV, 3 do
    local number, scope, what, limit = (i - FIRST_LIMIT) / 3, ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
    if what ~= 'slots' then
      check_window(number, scope, what, limit)
    elseif not admitted_at then
      local used = tonumber(call('GET', rate_key(scope, what)) or '0')
      if used >= limit then refuse(number, used, 1000) end
    end
  end
end

local function with_windows(reply)
  for kind = REQUESTS, TOKENS do
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
  call('ZADD', HOLDS, now + lease, request)
  return with_windows({ 'ok', tonumber(admitted_at) })
end
if refusal then return with_windows(refusal) end

put_hold(now, lease, request, now, amount, ARGV[7], ARGV[8], budgets, ARGV[11], ARGV[12])
for i = FIRST_LIMIT, #ARGV, 3 do
  local window = WINDOWS[ARGV[i + 1]]
  local count = window and (window.of_tokens and tokens or 1) or 0
  if count > 0 then
    local current = math.floor(now / window.width)
    add_to_window(rate_key(ARGV[i], ARGV[i + 1]), window.width, current, current, count)
  end
end
return with_windows({ 'ok', now })
