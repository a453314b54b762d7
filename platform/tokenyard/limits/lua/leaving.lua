-- The end of a hold, and what is left of one as long as nobody knows what its request used.

-- Take a hold away with its money; its scopes stay as they are. Return it, or nil.
local function drop_hold(request, value)
  local hold = hold_in(value)
  redis.call('ZREM', KEYS[1] .. ':holds.2', request)
  if not hold then return nil end
  redis.call('DEL', key('request', request))
  change_budgets(hold.budgets, 0, 0, -hold.amount, -hold.rest)
  return hold
end

-- Free a hold's slots, and remember what its windows count.
local function leave_undecided(request, hold)
  if hold.scopes == '' then return end
  change_scopes(hold.scopes, hold.admitted_at, -1, 0, 0)
  local name = key('undecided', request)
  redis.call('HSET', name, 'admitted_at_ms', hold.admitted_at, 'tokens', hold.tokens, 'scopes', hold.scopes)
  redis.call('PEXPIRE', name, SCOPE_MS)
end

-- Let the windows count what an undecided request really used.
local function decide(request, tokens)
  local name = key('undecided', request)
  local left = redis.call('HMGET', name, 'admitted_at_ms', 'tokens', 'scopes')
  if not left[1] then return end
  redis.call('DEL', name)
  change_scopes(left[3], tonumber(left[1]), 0, 0, tokens - tonumber(left[2]))
end
