-- Prolong holds of one bucket; one that Redis lost, or that expired, is taken again, without asking whether it still
-- fits. What its expiry left behind is then no more: it would count twice.
--
-- ARGV: now ('' = the server's clock), lease ms, then for each hold: request, admitted at, amount,
--   tokens, claims, budgets, scopes.
-- Reply: for each hold 1 (renewed), 2 (was lost, taken again) or 0 (already settled: left alone).
local now, lease = now_ms(ARGV[1]), ARGV[2]
local states = {}
for i = 3, #ARGV, 7 do
  local request, admitted_at, amount, tokens = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3])
  local budgets, scopes = ARGV[i + 5], ARGV[i + 6]
  local state
  if call('EXISTS', key('settled', request)) == 1 then
    state = 0
  elseif call('EXISTS', key('hold', request)) == 1 then
    call('ZADD', HOLDS, now + lease, request)
    state = 1
  else
    put_hold(now, lease, request, admitted_at, amount, tokens, ARGV[i + 4], budgets, scopes)
    for budget in gmatch(budgets, '%S+') do set_pending(budget, request, '0') end
    local counted = call('DEL', key('undecided', request)) == 1
    change_scopes(now, scopes, tonumber(admitted_at), 1, counted and 0 or 1, counted and 0 or tokens)
    state = 2
  end
  states[#states + 1] = state
end
return states
