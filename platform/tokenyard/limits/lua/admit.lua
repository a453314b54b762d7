-- Let one request in, or take nothing.
--
-- ARGV: now ('' = the server's clock), request, organization ('' = no check of the caller), its revision, lease ms,
--   amount, tokens, claims, budgets, what may be spent of each in all, scopes as the hold's record has them (lists are
--   separated by spaces), then for each scope: its id and its five limits by number ('' = none).
-- Reply: {'ok', admitted at, requests..., tokens...}, {'rate', scope's place, limit's number, used, retry after ms or
--   -1, requests..., tokens...}, {'budget', name, limit, ledger, pending, held}, {'missing', names...}, or
--   {'not_ready' | 'settled' | 'outdated'}.
--   requests... and tokens... are limit (-1 = none), remaining and reset ms of the tightest window of that kind.
local now = now_ms(ARGV[1])
local request, organization, revision, lease = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local amount, tokens, budgets, scopes = ARGV[6], tonumber(ARGV[7]), ARGV[9], ARGV[11]
local FIRST_SCOPE, FIELDS, FIRST_VALUE = 12, 6, 4

local names = { READY, key('settled', request), key('revision', organization) }
for i = FIRST_SCOPE, #ARGV, FIELDS do names[#names + 1] = key('windows', ARGV[i]) end
local found = call('MGET', unpack(names))

if not found[1] then return { 'not_ready' } end
if found[2] then return { 'settled' } end
if organization ~= '' then
  local known = found[3]
  if known and tonumber(known) > tonumber(revision) then return { 'outdated' } end
  -- Absent after Redis was lost, or older: the caller's comes from SQL, which is the truth.
  if known ~= revision then call('SET', names[3], revision, 'PX', REVISION_MS) end
end
local admitted_at = call('HGET', key('hold', request), 'admitted_at_ms')

-- Integer text as billions and the rest, each exact as a double over the whole 64-bit range.
local function split(text)
  local sign = 1
  if string.byte(text) == 45 then sign, text = -1, sub(text, 2) end
  return sign * (tonumber(sub(text, 1, -10)) or 0), sign * tonumber(sub(text, -9))
end

-- Whether limit + ledger - pending - held >= amount.
local function covers(limit, ledger, pending, held)
  if #limit < 16 and #ledger < 16 and #pending < 16 and #held < 16 and #amount < 16 then
    return limit + ledger - pending - held >= tonumber(amount) -- exact: no sum of these comes to 2^53
  end
  local high, low = split(limit)
  local billions, rest = split(ledger)
  high, low = high + billions, low + rest
  for _, text in ipairs({ pending, held, amount }) do
    billions, rest = split(text)
    high, low = high - billions, low - rest
  end
  return high + floor(low / 1000000000) >= 0
end

local function check_budgets()
  local missing, refused = { 'missing' }, nil
  local next_limit = gmatch(ARGV[10], '%S+')
  for budget in gmatch(budgets, '%S+') do
    local limit = next_limit()
    local state = call('HMGET', key('budget', budget), 'ledger', 'pending', 'held')
    local ledger, pending, held = state[1], state[2] or '0', state[3] or '0'
    if not ledger then
      missing[#missing + 1] = budget
    elseif not refused and not covers(limit, ledger, pending, held) then
      refused = { 'budget', budget, limit, ledger, pending, held }
    end
  end
  return #missing > 1 and missing or refused
end

local function passes_ms(index, width) return (index + PARTS + 1) * width - now end

-- Milliseconds until `needed` more fits under `limit`; -1 when it never will.
local function retry_ms(scope, window, needed, limit)
  if needed > limit then return -1 end
  local newest, used = scope[3 * window - 1], scope[3 * window]
  for age = PARTS, 1, -1 do
    used = used - older_count(scope, window, age)
    if used + needed <= limit then return passes_ms(newest - age, WIDTHS[window]) end
  end
  return passes_ms(newest, WIDTHS[window])
end

local refusal = nil

local function refuse(place, limit, used, wait)
  local longer = not refusal or wait == -1 or (refusal[5] ~= -1 and wait > refusal[5])
  if longer then refusal = { 'rate', place, limit, used, wait } end
end

-- Of the tightest window of requests and of that of tokens: limit, remaining, reset ms.
local tightest = { -1, 0, 0, -1, 0, 0 }
local current_parts = { floor(now / WIDTHS[1]), 0, floor(now / WIDTHS[3]), 0 }
current_parts[2], current_parts[4] = current_parts[1], current_parts[3]

local function take_from_window(place, scope, window, limit)
  local of_tokens, first, current = window % 2 == 0, 3 * window - 1, current_parts[window]
  local needed = admitted_at and 0 or of_tokens and tokens or 1
  local newest = scope[first]
  if newest ~= current then turn_to(scope, window, current) end
  local used = scope[first + 1]
  if used + needed > limit then
    refuse(place, window, used, retry_ms(scope, window, needed, limit))
  elseif needed > 0 then
    used = used + needed
    if scope[first] == current then
      newest, scope[first + 1], scope[first + 2] = current, used, scope[first + 2] + needed
    else
      count_in(scope, window, current, needed)
    end
  end
  local kind, remaining = of_tokens and 4 or 1, limit > used and limit - used or 0
  if tightest[kind] == -1 or remaining < tightest[kind + 1] then
    tightest[kind], tightest[kind + 1] = limit, remaining
    tightest[kind + 2] = used > 0 and passes_ms(newest, WIDTHS[window]) or 0
  end
end

local function take_slot(place, scope, limit)
  if admitted_at then return end
  if scope[1] >= limit then refuse(place, SLOTS, scope[1], 1000) end
  scope[1] = scope[1] + 1
end

-- Take from each scope, in Lua's memory alone; return them.
local function take_from_scopes()
  local taken = {}
  for at = FIRST_VALUE, #names do
    local place = at - FIRST_VALUE
    local first, scope = FIRST_SCOPE + place * FIELDS, read_scope(found[at])
    for window = 1, 4 do
      local limit = ARGV[first + window]
      if limit ~= '' then take_from_window(place, scope, window, tonumber(limit)) end
    end
    if ARGV[first + SLOTS] ~= '' then take_slot(place, scope, tonumber(ARGV[first + SLOTS])) end
    taken[at] = scope
  end
  return taken
end

local function with_windows(reply)
  for _, number in ipairs(tightest) do reply[#reply + 1] = number end
  return reply
end

if not admitted_at then
  local refused = check_budgets()
  if refused then return refused end
end
local taken = take_from_scopes()
if admitted_at then
  -- A second attempt of a request that is in: it holds what it needs.
  call('ZADD', HOLDS, now + lease, request)
  return with_windows({ 'ok', tonumber(admitted_at) })
end
if refusal then return with_windows(refusal) end

put_hold(now, lease, request, now, amount, ARGV[7], ARGV[8], budgets, scopes)
for at = FIRST_VALUE, #names do write_scope(names[at], taken[at]) end
return with_windows({ 'ok', now })
