-- The end of a hold, and what is left of one as long as nobody knows what its request used.

-- Take a hold away with its money; its scopes stay as they are. Return what it was, or nil.
local function drop_hold(request)
  local name = key('hold', request)
  local hold = call('HMGET', name, 'admitted_at_ms', 'amount', 'tokens', 'budgets', 'scopes')
  call('ZREM', HOLDS, request)
  if not hold[1] then return nil end
  call('DEL', name)
  local freed = negated(hold[2])
  for budget in gmatch(hold[4], '%S+') do call('HINCRBY', key('budget', budget), 'held', freed) end
  return { admitted_at = tonumber(hold[1]), amount = hold[2], tokens = tonumber(hold[3]), budgets = hold[4],
    scopes = hold[5] or '' } -- absent: of a version that counted elsewhere
end

-- Free a hold's slots, and remember what its windows count.
local function leave_undecided(now, request, hold)
  if hold.scopes == '' then return end
  change_scopes(now, hold.scopes, hold.admitted_at, -1, 0, 0)
  local name = key('undecided', request)
  call('HSET', name, 'admitted_at_ms', hold.admitted_at, 'tokens', hold.tokens, 'scopes', hold.scopes)
  call('PEXPIRE', name, SCOPE_MS)
end

-- Let the windows count what an undecided request really used.
local function decide(now, request, tokens)
  local name = key('undecided', request)
  local left = call('HMGET', name, 'admitted_at_ms', 'tokens', 'scopes')
  if not left[1] then return end
  call('DEL', name)
  change_scopes(now, left[3] or '', tonumber(left[1]), 0, 0, tokens - tonumber(left[2]))
end
