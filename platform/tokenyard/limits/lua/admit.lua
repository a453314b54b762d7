-- Let one request in, or take nothing.
--
-- ARGV: now ('' = the server's clock), lease ms, request, its hold but for the moment of admission, the caller's
--   revision ('' = no check of the caller), what may be spent of each budget in all, packed, the five limits of each
--   scope (the four windows', and slots), packed (infinite = none); then the names of what is looked at: whether the
--   bucket is ready, the request, the organization's revision, the scopes, the budgets.
-- Reply: {'ok', admitted at, requests..., tokens...}, {'rate', scope's place, limit's number, used, retry after ms or
--   -1, requests..., tokens...}, {'budget', its place, its value}, {'missing', places of budgets...}, or
--   {'not_ready' | 'settled' | 'outdated'}.
--   requests... and tokens... are limit (-1 = none), remaining and reset ms of the tightest window of that kind.
local REVISION_MS = 86400000 -- a day: longer than any process works by what it looked up once
local BEFORE_NAMES = 7
local FIRST_SCOPE = 4 -- among the names
local SLOTS = 5
local LIMITS = '>ddddd'
local LIMITS_BYTES = 40
local HELD_AT = 40 -- bytes before what is held, in a budget

local now, lease, request, record, revision = now_ms(ARGV[1]), ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local first_budget = FIRST_SCOPE + #ARGV[7] / LIMITS_BYTES
local found = redis.call('MGET', unpack(ARGV, BEFORE_NAMES + 1))
local amount, amount_rest, tokens = struct.unpack('>ddd', record)

if not found[1] then return { 'not_ready' } end
if found[2] == SETTLED then return { 'settled' } end
if revision ~= '' and found[3] ~= revision then
  if found[3] and tonumber(found[3]) > tonumber(revision) then return { 'outdated' } end
  -- Absent after Redis was lost, or older: the caller's comes from SQL, which is the truth.
  redis.call('SET', ARGV[BEFORE_NAMES + 3], revision, 'PX', REVISION_MS)
end
local admitted_at = found[2] and struct.unpack('>d', found[2])

-- From here on `found` keeps what is to be written, where all agrees: a budget's held amount, and a scope.

-- Whether each budget covers the amount.
local missing, overdrawn = nil, nil
for at = first_budget, #found do
  local place, value = at - first_budget, found[at]
  local ledger, ledger_rest, version, pending, pending_rest, held, held_rest
  if value then ledger, ledger_rest, version, pending, pending_rest, held, held_rest = struct.unpack(BUDGET, value) end
  if not value or version < 0 then
    missing = missing or { 'missing' }
    missing[#missing + 1] = place
  else
    local limit, limit_rest = struct.unpack(AMOUNT, ARGV[6], AMOUNT_BYTES * place + 1)
    held, held_rest = held + amount, held_rest + amount_rest
    local left = limit + ledger - pending - held
    local left_rest = limit_rest + ledger_rest - pending_rest - held_rest
    if left + math.floor(left_rest / BILLION) < 0 then overdrawn = overdrawn or { 'budget', place, value } end
    if held_rest >= BILLION then held, held_rest = held + 1, held_rest - BILLION end
    found[at] = struct.pack(AMOUNT, held, held_rest)
  end
end
if not admitted_at and (missing or overdrawn) then return missing or overdrawn end

local minute, day = math.floor(now / MINUTE_PART), math.floor(now / DAY_PART)
-- Of the tightest window of requests, and of that of tokens: its limit, what is left, and when all of it is free again.
local NONE = math.huge
local requests_limit, requests_left, requests_free = NONE, NONE, now
local tokens_limit, tokens_left, tokens_free = NONE, NONE, now
local over = nil -- limits that leave no room: scope's place, limit's number, used, needed, limit, scope
for at = FIRST_SCOPE, first_budget - 1 do
  local place, value = at - FIRST_SCOPE, found[at]
  local rpm, tpm, rpd, tpd, most = struct.unpack(LIMITS, ARGV[7], LIMITS_BYTES * place + 1)
  local slots, part1, sum1, new1, part2, sum2, new2, part3, sum3, new3, part4, sum4, new4
  if value then
    slots, part1, sum1, new1, part2, sum2, new2, part3, sum3, new3, part4, sum4, new4 = struct.unpack(FRONT, value)
  end
  if part1 == minute and part2 == minute and part3 == day and part4 == day and not admitted_at and slots < most
    and sum1 < rpm and sum2 + tokens <= tpm and sum3 < rpd and sum4 + tokens <= tpd
  then
    -- Nearly always there is room, and the newest sub-buckets are the current ones.
    sum1, sum2, sum3, sum4 = sum1 + 1, sum2 + tokens, sum3 + 1, sum4 + tokens
    found[at] = struct.pack(FRONT, slots + 1, part1, sum1, new1 + 1, part2, sum2, new2 + tokens,
      part3, sum3, new3 + 1, part4, sum4, new4 + tokens)
  else
    local limits, scope, one = { rpm, tpm, rpd, tpd }, read_scope(value), admitted_at and 0 or 1
    for window = 1, 4 do
      local part, needed = window > 2 and day or minute, window % 2 == 0 and one * tokens or one
      turn_to(scope, window, part)
      local used = scope[3 * window]
      if used + needed > limits[window] then
        over = over or {}
        over[#over + 1] = { place, window, used, needed, limits[window], scope }
      else
        count_in(scope, window, part, needed)
      end
    end
    if scope[1] + one > most then
      over = over or {}
      over[#over + 1] = { place, SLOTS, scope[1] }
    end
    scope[1] = scope[1] + one
    part1, sum1, part2, sum2 = scope[2], scope[3], scope[5], scope[6]
    part3, sum3, part4, sum4 = scope[8], scope[9], scope[11], scope[12]
    found[at] = scope
  end
  if rpm - sum1 < requests_left then
    requests_limit, requests_left = rpm, rpm - sum1
    requests_free = sum1 > 0 and (part1 + PARTS + 1) * MINUTE_PART or now
  end
  if rpd - sum3 < requests_left then
    requests_limit, requests_left = rpd, rpd - sum3
    requests_free = sum3 > 0 and (part3 + PARTS + 1) * DAY_PART or now
  end
  if tpm - sum2 < tokens_left then
    tokens_limit, tokens_left = tpm, tpm - sum2
    tokens_free = sum2 > 0 and (part2 + PARTS + 1) * MINUTE_PART or now
  end
  if tpd - sum4 < tokens_left then
    tokens_limit, tokens_left = tpd, tpd - sum4
    tokens_free = sum4 > 0 and (part4 + PARTS + 1) * DAY_PART or now
  end
end
if requests_limit == NONE then requests_limit, requests_left = -1, 0 end
if tokens_limit == NONE then tokens_limit, tokens_left = -1, 0 end
requests_left, tokens_left = math.max(0, requests_left), math.max(0, tokens_left)
local requests_reset, tokens_reset = requests_free - now, tokens_free - now

if over and not admitted_at then
  -- Who is refused is told what takes longest: -1, it never fits, or milliseconds until as much is free.
  local longest = nil
  for _, each in ipairs(over) do
    local place, window, used, needed, limit, scope = unpack(each, 1, 6)
    local wait = 1000 -- a slot
    if window ~= SLOTS then
      local age, left = PARTS, used
      while age > 0 do
        left = left - older_count(scope, window, age)
        if left + needed <= limit then break end
        age = age - 1
      end
      local free = (scope[3 * window - 1] - age + PARTS + 1) * (window > 2 and DAY_PART or MINUTE_PART)
      wait = needed > limit and -1 or free - now
    end
    if not longest or wait == -1 or (longest[5] ~= -1 and wait > longest[5]) then
      longest = { 'rate', place, window, used, wait }
    end
  end
  local rate, place, window, used, wait = unpack(longest)
  return { rate, place, window, used, wait,
    requests_limit, requests_left, requests_reset, tokens_limit, tokens_left, tokens_reset }
end

redis.call('ZADD', KEYS[1] .. ':holds.2', now + lease, request)
if not admitted_at then
  admitted_at = now
  redis.call('SET', ARGV[BEFORE_NAMES + 2], struct.pack('>d', now) .. record)
  for at = first_budget, #found do redis.call('SETRANGE', ARGV[BEFORE_NAMES + at], HELD_AT, found[at]) end
  for at = FIRST_SCOPE, first_budget - 1 do
    if type(found[at]) == 'string' then
      redis.call('SETRANGE', ARGV[BEFORE_NAMES + at], 0, found[at])
    else
      write_scope(ARGV[BEFORE_NAMES + at], found[at])
    end
  end
end -- else it is a second attempt of a request that is in: it holds what it needs
return { 'ok', admitted_at,
  requests_limit, requests_left, requests_reset, tokens_limit, tokens_left, tokens_reset }
