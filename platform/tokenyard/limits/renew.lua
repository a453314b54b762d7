-- Prolong holds of one bucket; one that Redis lost, or that expired, is taken again, without asking whether it still
-- fits. What its expiry left behind is then no more: it would count twice.
--
-- ARGV: now ('' = the server's clock), lease ms, then for each hold: request, admitted at, amount,
--   tokens, claims, budgets, slots, token windows.
-- Reply: for each hold 1 (renewed), 2 (was lost, taken again) or 0 (already settled: left alone).
local now, lease = now_ms(ARGV[1]), ARGV[2]
local states = {}
for i = 3, #ARGV, 8 do
  local request, admitted_at, amount, tokens = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local state
  if call('EXISTS', key('settled', request)) == 1 then
    state = 0
  elseif call('EXISTS', key('hold', request)) == 1 then
    call('ZADD', HOLDS, now + lease, request)
    state = 1
  else
    put_hold(now, lease, request, admitted_at, amount, tokens, ARGV[i + 4], ARGV[i + 5], ARGV[i + 6], ARGV[i + 7])
    for budget in string.gmatch(ARGV[i + 5], '%S+') do set_pending(budget, request, '0') end
    if call('DEL', key('undecided', request)) == 0 then
      correct_tokens(now, ARGV[i + 7], tonumber(admitted_at), 0, tonumber(tokens))
    end
    state = 2
  end
  states[#states + 1] = state
end
return states
