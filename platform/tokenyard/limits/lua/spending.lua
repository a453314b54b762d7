-- What is held of budgets, and what is pending on them: settled and not yet in their ledger figures.
local PENDING_AT = 24 -- bytes before it
local MONTH_MS = 3456000000 -- 40 days: a month that nothing was charged to for so long is over; SQL has it

-- Write a budget whole; return its value.
local function write_budget(name, ...)
  local value = struct.pack(BUDGET, ...)
  if string.find(name, ':month:', 1, true) then
    redis.call('SET', name, value, 'PX', MONTH_MS)
  else
    redis.call('SET', name, value)
  end
  return value
end

-- Change what is pending on one budget, and held of it.
local function change_budget(name, value, pending, pending_rest, held, held_rest)
  if value then
    local p, p_rest, h, h_rest = struct.unpack('>dddd', value, PENDING_AT + 1)
    pending, pending_rest, held, held_rest = p + pending, p_rest + pending_rest, h + held, h_rest + held_rest
  end
  local carry, held_carry = math.floor(pending_rest / BILLION), math.floor(held_rest / BILLION)
  pending, pending_rest = pending + carry, pending_rest - carry * BILLION
  held, held_rest = held + held_carry, held_rest - held_carry * BILLION
  if value then -- its expiry stays
    redis.call('SETRANGE', name, PENDING_AT, struct.pack('>dddd', pending, pending_rest, held, held_rest))
  else
    write_budget(name, 0, 0, -1, pending, pending_rest, held, held_rest)
  end
end

-- Do so for `budgets`, separated by spaces.
local function change_budgets(budgets, pending, pending_rest, held, held_rest)
  for budget in string.gmatch(budgets, '%S+') do
    local name = key('budget.2', budget)
    change_budget(name, redis.call('GET', name), pending, pending_rest, held, held_rest)
  end
end

-- Let `amount` (packed) be all that is pending of one request, also after its hold expired. Its record is the amount
-- and the names of those budgets that do not have it in their ledger figure yet, separated by spaces.
local function set_pending(request, amount, budgets)
  local name = KEYS[1] .. ':pending.2'
  local before = redis.call('HGET', name, request)
  if before then
    local old, old_rest = struct.unpack(AMOUNT, before)
    change_budgets(string.sub(before, AMOUNT_BYTES + 1), -old, -old_rest, 0, 0)
    redis.call('HDEL', name, request)
  end
  local billions, rest = struct.unpack(AMOUNT, amount)
  if billions == 0 and rest == 0 then return end
  redis.call('HSET', name, request, amount .. budgets)
  change_budgets(budgets, billions, rest, 0, 0)
end
