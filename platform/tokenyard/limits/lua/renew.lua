-- Prolong holds of one bucket; one that Redis lost, or that expired, is taken again, without asking whether it still
-- fits. What its expiry left behind is then no more: it would count twice.
--
-- ARGV: now ('' = the server's clock), lease ms, then for each hold: request, its value.
-- Reply: for each hold 1 (renewed), 2 (was lost, taken again) or 0 (already settled: left alone).
local now, lease = now_ms(ARGV[1]), ARGV[2]

local function take_again(request, value)
  local hold, name = hold_in(value), key('undecided', request)
  redis.call('SET', key('request', request), value)
  set_pending(request, struct.pack(AMOUNT, 0, 0), '')
  change_budgets(hold.budgets, 0, 0, hold.amount, hold.rest)
  local counted = redis.call('DEL', name) == 1
  change_scopes(hold.scopes, hold.admitted_at, 1, counted and 0 or 1, counted and 0 or hold.tokens)
end

local states = {}
for i = 3, #ARGV, 2 do
  local request, state = ARGV[i], 1
  local value = redis.call('GET', key('request', request))
  if value == SETTLED then
    state = 0
  elseif not value then
    take_again(request, ARGV[i + 1])
    state = 2
  end
  if state > 0 then redis.call('ZADD', KEYS[1] .. ':holds.2', now + lease, request) end
  states[#states + 1] = state
end
return states
